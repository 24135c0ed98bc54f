"""Other libraries doing the same mathematics, each in one file behind the same function.

A `*_maml` module and `loop` have

    meta_step(network, batch, inner_steps, lr, first_order) -> loss

    phi_b = theta - lr ∂/∂phi L_b(support), inner_steps times from phi_b = theta
    loss  = mean over tasks of L_b(query),   L = half the mean squared error; for labels the mean cross entropy

which leaves ∂loss/∂theta in `.grad` of the network's parameters. A `*_laplace` module has

    predict(network, support_x, support_y, query_x, precision, noise) -> mean, variance of f at the queries

    f ~ N(f(x, w), J(x) (precision I + JᵀJ / noise)⁻¹ J(x)ᵀ),   J at the support inside, w the given weights

`jax_maml` has `prepared(network, batch, inner_steps, lr)`, which gives the step itself, and `flat` for its gradient.

`neuralprocesses_models` has models to train on, their `loss(model, batch)` and `predict(model, batch)`.

Each library is used the way its own documentation shows; where that shows several, the fastest.
"""

from collections.abc import Iterator
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType

from torch import Tensor, nn
from torch.nn import functional

Batch = tuple[Tensor, Tensor, Tensor, Tensor]  # support x "B N *x", support y, query x "B M *x", query y

PACKAGES = {
    "higher_maml": "higher",
    "torchopt_maml": "torchopt",
    "learn2learn_maml": "learn2learn",
    "jax_maml": "jax",
    "laplace_torch": "laplace-torch",
    "posteriors_laplace": "posteriors",
    "neuralprocesses_models": "neuralprocesses",
}
UNPACKED = {"learn2learn": "0.2.0"}  # files without the record of an installation (see peers.txt)


def installed(*names: str) -> tuple[dict[str, ModuleType], list[str]]:
    """Modules by "package version" for the peers that are here, and the packages that are not."""
    found, absent = {}, []
    for name in names:
        package = PACKAGES[name]
        try:
            module = import_module(f"benchmarks.peers.{name}")
        except ModuleNotFoundError as error:
            if error.name is None or error.name.partition(".")[0] not in (package, package.partition("-")[0]):
                raise
            absent.append(package)
            continue
        try:
            release = version(package)
        except PackageNotFoundError:
            release = UNPACKED[package]
        found[f"{package} {release}"] = module
    return found, absent


def loss(prediction: Tensor, y: Tensor) -> Tensor:
    """Half the mean squared error, or for labels the mean cross entropy."""
    if y.is_floating_point():
        return 0.5 * functional.mse_loss(prediction, y)
    return functional.cross_entropy(prediction, y)


def tasks(batch: Batch) -> Iterator[Batch]:
    """One task after the other."""
    return zip(*(value.unbind() for value in batch), strict=True)


def mlp() -> nn.Sequential:
    """The network of MAML's sinusoids."""
    return nn.Sequential(nn.Linear(1, 40), nn.ReLU(), nn.Linear(40, 40), nn.ReLU(), nn.Linear(40, 1))


def conv4(channels: int = 64, classes: int = 5) -> nn.Sequential:
    """Four blocks of convolution, group norm, ReLU and pooling for 28 x 28 images, then a linear layer."""
    layers: list[nn.Module] = []
    for size in (1, channels, channels, channels):
        layers += [nn.Conv2d(size, channels, 3, padding=1), nn.GroupNorm(8, channels), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels, classes))
