"""describe and construct: plain JSON there and back, and clear refusals."""

import json

import numpy as np
import pytest
import torch
from jaxtyping import Float
from torch import Tensor, nn

import bayesmeta as bm
from bayesmeta.description import Described, construct, describe
from bayesmeta.errors import DataError, UnsupportedError
from bayesmeta.networks.network import Network


class Wave(Network):
    """A user's own features."""

    def __init__(self, frequency: float = 1.0, *, shape: list[int] | None = None) -> None:
        super().__init__()
        self.frequency, self.shape = frequency, shape
        self.x_shape, self.num_outputs = (1,), 2

    def forward(self, x: Float[Tensor, "B N 1"]) -> Float[Tensor, "B N 2"]:
        """Sine and cosine."""
        return torch.cat([(self.frequency * x).sin(), (self.frequency * x).cos()], -1)


class FastWave(Wave):
    """Inherits the constructor."""


class SlowWave(Wave):
    """Another constructor that calls the parent's."""

    def __init__(self, slowness: float) -> None:
        super().__init__(1.0 / slowness)


def _round_trip(value: object) -> object:
    return construct(json.loads(json.dumps(describe(value))))


@pytest.mark.parametrize(
    "make",
    [
        lambda: bm.ALPaCA(bm.MLP(2, [8, 4], activation="relu"), num_outputs=3),
        lambda: bm.ALPaCA(
            bm.MLP(np.int64(2), np.array([8, 4])), covariance=bm.priors.DiagonalCovariance(4, varying=np.array([1, 3]))
        ),
        lambda: bm.ALPaCA(bm.Spline(np.linspace(0, 1, 4), 1), covariance=bm.priors.FullCovariance(6, varying=[0])),
        lambda: bm.ALPaCA(bm.RadialBasis(1, 5, (-1.0, 1.0)), noise=bm.noise.DiagonalNoise(1, bounds=(1e-3, 1.0))),
        lambda: bm.Standardized(bm.ALPaCA(bm.Polynomial(2, 2), num_outputs=2, noise=bm.noise.FullNoise(2, 0.5))),
        lambda: bm.ALPaCA(Wave(2.0, shape=[1, 2])),
        lambda: bm.ALPaCA(FastWave(3.0)),
        lambda: bm.ALPaCA(SlowWave(4.0)),
        lambda: bm.likelihoods.StudentT(2, dof_bounds=(3.0, 30.0)),
        lambda: bm.likelihoods.Censored(bm.likelihoods.ProportionalGaussian(2), limit=0.5),
        lambda: bm.likelihoods.Categorical(4),
        bm.likelihoods.Bernoulli,
    ],
)
@pytest.mark.usefixtures("unchecked")  # numpy arrays where a list is meant
def test_round_trip(make: object) -> None:
    original = make()
    built = _round_trip(original)
    assert type(built) is type(original)
    assert describe(built) == describe(original)
    assert str(built) == str(original)
    for (name, a), (other, b) in zip(original.state_dict().items(), built.state_dict().items(), strict=True):
        assert (name, a.shape, a.dtype) == (other, b.shape, b.dtype)
    built.load_state_dict(original.state_dict())


def test_details_survive() -> None:
    wave = _round_trip(FastWave(3.0, shape=[1, 2]))
    assert (wave.frequency, wave.shape) == (3.0, (1, 2))
    assert _round_trip(SlowWave(4.0)).frequency == 0.25
    assert describe(SlowWave(4.0)) == {"class": "SlowWave", "arguments": {"slowness": 4.0}}


def test_a_users_class_does_not_replace_the_librarys() -> None:
    class MLP(bm.MLP):
        """Same name, another network."""

        def __init__(self) -> None:
            super().__init__(1, [3])

    assert describe(bm.MLP(1, [2]))["class"] == "MLP"
    assert type(_round_trip(bm.MLP(1, [2]))) is bm.MLP
    assert type(_round_trip(MLP())) is MLP


def test_what_cannot_be_described_is_named() -> None:
    class Holder(Described):
        def __init__(self, network: object) -> None:
            self.network = network

    class Star(Described):
        def __init__(self, *sizes: int, **options: int) -> None:
            self.sizes = sizes

    with pytest.raises(UnsupportedError, match=r"expected model.network\[1\] to be .* got Sequential"):
        describe(Holder([1, nn.Sequential(nn.Linear(1, 1))]))
    with pytest.raises(UnsupportedError, match=r"model.network.a .* got Tensor"):
        describe(Holder({"a": torch.zeros(1)}))
    with pytest.raises(UnsupportedError, match=r"model .*named arguments, got Star.*\*args"):
        describe(Star(1, 2))
    with pytest.raises(UnsupportedError, match="got function"):
        describe(Holder(_round_trip))


@pytest.mark.usefixtures("unchecked")
def test_plain_modules_are_refused_as_features_at_once() -> None:
    with pytest.raises(UnsupportedError, match=r"features that inherit bayesmeta.Network.*got Sequential"):
        bm.ALPaCA(nn.Sequential(nn.Linear(1, 8), nn.Tanh()))


@pytest.mark.parametrize(
    ("description", "message"),
    [
        ({"class": "Nonsense", "arguments": {}}, "unknown class 'Nonsense': import the module"),
        ({"class": ["MLP"], "arguments": {}}, "unknown class"),
        ({"class": "MLP", "arguments": [1]}, "named arguments for MLP"),
        ({"class": "MLP", "arguments": {"num_inputs": 1}}, "arguments that MLP accepts.*hidden"),
        ({"class": "MLP", "arguments": {"num_inputs": 1, "hidden": [2], "extra": 3}}, "MLP accepts.*extra"),
        ({"class": "MLP", "arguments": {"num_inputs": 1, "hidden": []}}, "positive widths"),
        ({"class": "DiagonalNoise", "arguments": {"num_outputs": 1, "bounds": [1.0]}}, "DiagonalNoise accepts"),
        (
            {
                "class": "ALPaCA",
                "arguments": {
                    "features": {"class": "Identity", "arguments": {"num_inputs": 1}},
                    "covariance": {"class": "FullCovariance", "arguments": {"num_features": 7}},
                },
            },
            "ALPaCA accepts.*expected a covariance over 2 features",
        ),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_broken_descriptions(description: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        construct(description)
