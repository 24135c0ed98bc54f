"""A robot with torch and nothing else: it loads what `bm.export(learner, folder)` wrote, adapts, predicts and updates.

python robot_with_torch.py FOLDER
"""

import json
import sys
from pathlib import Path

import torch

folder = Path(sys.argv[1])
manifest = json.loads((folder / "manifest.json").read_text())
dtypes = {"float32": torch.float32, "float64": torch.float64}


def load(name):
    return torch.export.load(folder / manifest["programs"][name]["files"]["torch"]).module()


def tensor(values, program, name):
    """Numbers in the precision that the program wants for this input."""
    slot = next(each for each in manifest["programs"][program]["inputs"] if each["name"] == name)
    return torch.tensor(values, dtype=dtypes[slot["dtype"]])


# one task of three points, and two queries: axes are tasks, points, inputs (or outcomes)
adapt_predict = load("adapt_predict")
support_x = tensor([[[0.0], [1.0], [2.0]]], "adapt_predict", "support_x")
support_y = tensor([[[0.2], [0.9], [2.1]]], "adapt_predict", "support_y")
query_x = tensor([[[0.5], [3.0]]], "adapt_predict", "query_x")
everything = adapt_predict(support_x, support_y, torch.ones(1, 3, dtype=torch.bool), query_x)
print("at once     mean", everything["mean"].flatten().tolist(), "variance", everything["variance"].flatten().tolist())

# the same points one after the other: a state of fixed size goes from update to update
update, predict = load("update"), load("predict")
state = torch.load(folder / manifest["state"]["files"]["torch"], weights_only=True)
for x, y in zip(support_x.unbind(1), support_y.unbind(1), strict=True):
    after = update(x, y, *state.values())
    state = {name: after[f"next_{name}"] for name in state}
streamed = predict(query_x, *state.values())
print("one by one  mean", streamed["mean"].flatten().tolist(), "variance", streamed["variance"].flatten().tolist())
