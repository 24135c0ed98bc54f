"""The library with torch, numpy, safetensors, jaxtyping, tqdm, typing-extensions and lazy-loader alone.

`make slim` runs this file where nothing else is installed. `python tests/slim.py --pretend` hides all other packages of
a full installation that the library knows, which is how the test suite runs it.
"""

import sys
import tempfile

OTHERS = (
    *("pandas", "scipy", "gpytorch", "linear_operator", "pyro", "arviz", "xarray", "matplotlib", "typer", "sklearn"),
    *("skpro", "botorch", "ax", "pyarrow", "narwhals", "onnx", "onnxruntime", "graphviz", "rich", "click", "beartype"),
)

if "--pretend" in sys.argv:
    sys.modules.update(dict.fromkeys(OTHERS))  # None: not found

import torch  # noqa: E402

import bayesmeta as bm  # noqa: E402


def main() -> None:
    """Learners are saved, loaded, adapted, updated and asked; what needs another package says which."""
    torch.manual_seed(0)
    x, y = torch.linspace(0.0, 1.0, 8)[:, None], torch.linspace(1.0, 2.0, 8)[:, None]
    tasks = bm.Data.full(x.expand(4, 8, 1), y + torch.randn(4, 8, 1))
    wrapped = bm.Standardized(bm.ALPaCA(bm.MLP(1, [8])))
    learners = {
        "ALPaCA": wrapped,
        "LogTransformed": bm.wrappers.LogTransformed(bm.R2D2Regressor(bm.MLP(1, [8]))),
        "R2D2": bm.R2D2(bm.MLP(1, [8]), num_classes=2),
        "MAML": bm.MAML(bm.MLP(1, [8]), steps=2),
        "CNP": bm.ConditionalNeuralProcess(bm.Identity(1), width=8),
    }
    wrapped.prepare(tasks)
    for name, learner in learners.items():
        with tempfile.TemporaryDirectory() as folder:
            bm.save(learner, folder)
            loaded = bm.load(folder)
        labels = isinstance(learner.outcomes, bm.Labels)
        data = bm.Data.from_labels(x, [0, 1] * 4) if labels else bm.Data.from_arrays(x, y)
        posterior = loaded.adapt(data.points(slice(4))).update(data.points(slice(4, 8)))
        prediction, expected = posterior.predict(x), learner.adapt(data).predict(x)
        asked = "probs" if labels else "mean"
        torch.testing.assert_close(getattr(prediction, asked), getattr(expected, asked), rtol=1e-4, atol=1e-5)
        assert prediction.sample(3).shape[0] == 3
        if not labels:
            assert bool((prediction.interval(0.9)[1] > prediction.mean).all())
        print(f"{name}: saved, loaded, adapted, updated, predicted")
    scaled = bm.ALPaCA(bm.Identity(1), scale=bm.priors.TaskScale()).adapt(bm.Data.from_arrays(x, y)).predict(x)
    for needs, call in {
        "scipy": lambda: scaled.quantile(0.9),
        "gpytorch": lambda: bm.DeepKernelTransfer(bm.Identity(1)),
    }.items():
        said = ""
        try:
            call()
        except bm.UnsupportedError as error:
            said = str(error)
        assert f"expected {needs}" in said, said
        print(said)
    imported = {name.split(".")[0] for name, module in sys.modules.items() if module is not None}
    assert not imported & set(OTHERS), imported & set(OTHERS)


if __name__ == "__main__":
    main()
