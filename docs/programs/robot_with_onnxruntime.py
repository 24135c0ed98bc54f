"""A robot with onnxruntime (and numpy, which it needs) and nothing else: it streams what `bm.export` wrote in ONNX.

python robot_with_onnxruntime.py FOLDER
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime

folder = Path(sys.argv[1])
manifest = json.loads((folder / "manifest.json").read_text())


def load(name):
    """A program as a function of arrays, which gives a dictionary of arrays."""
    session = onnxruntime.InferenceSession(folder / manifest["programs"][name]["files"]["onnx"])
    inputs, outputs = manifest["programs"][name]["inputs"], manifest["programs"][name]["outputs"]

    def run(*values):
        arrays = {slot["name"]: np.asarray(v, slot["dtype"]) for slot, v in zip(inputs, values, strict=True)}
        return dict(zip([slot["name"] for slot in outputs], session.run(None, arrays), strict=True))

    return run


update, predict = load("update"), load("predict")
state = dict(np.load(folder / manifest["state"]["files"]["onnx"]))
for x, y in [(0.0, 0.2), (1.0, 0.9), (2.0, 2.1)]:
    after = update([[x]], [[y]], *state.values())  # one stream; one input and one outcome
    state = {name: after[f"next_{name}"] for name in state}
streamed = predict([[[0.5], [3.0]]], *state.values())
print("one by one  mean", streamed["mean"].flatten().tolist(), "variance", streamed["variance"].flatten().tolist())
