"""What learners refuse, in words that help; and the parts that are one learner's alone."""

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import bayesmeta as bm
from bayesmeta.inference.map import unrolled_map
from bayesmeta.learners.gradient.base import GradientLearner
from bayesmeta.learners.gradient.hypergradient import HypergradientAdam

D = torch.float64


class Wrapped(bm.WholeNetwork):
    """Two dense layers with something between."""

    def __init__(self, between: nn.Module) -> None:
        super().__init__()
        self.first, self.between, self.last = nn.Linear(1, 4), between, nn.Linear(4, 1)
        self.x_shape, self.num_outputs = (1,), 1

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.between(self.first(x)))


class Nothing(bm.WholeNetwork):
    """All of f, and no parameters."""

    x_shape, num_outputs = (1,), 1

    def forward(self, x: Tensor) -> Tensor:
        return x


class Constant(bm.Network):
    """A network without inputs, which takes a context."""

    x_shape, num_outputs = (0,), 1

    def forward(self, x: Tensor) -> Tensor:
        return torch.ones(*x.shape[:2], 1)

    def with_context(self, size: int) -> bm.MLP:
        """Of the context alone."""
        return bm.MLP(size, [4])


class Unwidened(Constant):
    """A context that it does not take."""

    def with_context(self, size: int) -> bm.MLP:
        """One input too many."""
        return bm.MLP(size + 1, [4])


WEIGHTS: dict[str, Callable[..., GradientLearner]] = {
    "MAML": bm.MAML,
    "FirstOrderMAML": bm.FirstOrderMAML,
    "MetaSGD": bm.MetaSGD,
    "MAMLPlusPlus": bm.MAMLPlusPlus,
    "AlphaMAML": bm.AlphaMAML,
    "IMAML": bm.IMAML,
    "LLAMA": bm.LLAMA,
    "BMAML": bm.BMAML,
}
ALL = WEIGHTS | {"CAVIA": lambda network, **arguments: bm.CAVIA(network, num_context=1, **arguments)}


def _data(points: int = 3, num_outputs: int = 1, tasks: int = 2) -> bm.Data:
    x, y = torch.randn(tasks, points, 1), torch.randn(tasks, points, num_outputs)
    return bm.Data.full(x, y)


# ------------------------------------------------------------------------------------------------------------- networks


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (nn.BatchNorm1d(4), r"got BatchNorm1d as 'between' in Wrapped: use nn.GroupNorm or nn.LayerNorm"),
        (nn.BatchNorm2d(4, track_running_stats=False), r"got BatchNorm2d as 'between'.*norm='task'"),
        (nn.InstanceNorm1d(4, track_running_stats=True), r"got InstanceNorm1d as 'between'"),
        (nn.Dropout(0.1), r"got Dropout as 'between' in Wrapped: leave it out"),
        (nn.AlphaDropout(0.5), r"got AlphaDropout"),
        (nn.Sequential(nn.ReLU(), nn.Dropout1d(0.1)), r"got Dropout1d as 'between.1'"),
        (nn.GRU(4, 4), r"got GRU as 'between' in Wrapped: use an MLP on a fixed window"),
        (nn.LSTMCell(4, 4), r"got LSTMCell as 'between' in Wrapped: use an MLP on a fixed window"),
    ],
)
@pytest.mark.parametrize("name", ALL)
def test_layers_that_cannot_be_adapted_are_named(name: str, layer: nn.Module, message: str) -> None:
    with pytest.raises(bm.UnsupportedError, match=message):
        ALL[name](Wrapped(layer))


@pytest.mark.filterwarnings("ignore::bayesmeta.ConvergenceWarning")  # an untrained network far from its data
@pytest.mark.parametrize("layer", [nn.Dropout(0.0), nn.LayerNorm(4), nn.InstanceNorm1d(4), nn.Identity(), nn.ReLU()])
@pytest.mark.parametrize("name", WEIGHTS)
def test_layers_that_can(name: str, layer: nn.Module) -> None:
    learner = WEIGHTS[name](Wrapped(layer))
    if not isinstance(layer, nn.InstanceNorm1d):  # which looks at the other points: as a layer it is sound
        assert torch.isfinite(learner.adapt(_data()).predict(torch.zeros(2, 1, 1)).mean).all()


@pytest.mark.parametrize("network", [nn.Linear(1, 1), nn.Sequential(nn.Linear(1, 1)), None, torch.sin])
@pytest.mark.parametrize("name", ALL)
@pytest.mark.usefixtures("unchecked")
def test_a_network_that_is_no_network(name: str, network: object) -> None:
    with pytest.raises(bm.UnsupportedError, match=f"inherits bayesmeta.Network.*got {type(network).__name__}"):
        ALL[name](network)


@pytest.mark.parametrize("name", ALL)
def test_wrong_outputs(name: str) -> None:
    """Of a network that is all of f; and of the learner, where the likelihood has another number."""
    network = bm.MLP(1, [4]).with_outputs(3)
    if name != "CAVIA":  # whose network is made anew
        with pytest.raises(bm.ShapeError, match=r"expected a network with 1 outputs, got 3 \(Gaussian needs 1\)"):
            ALL[name](network)
    for likelihood in (bm.likelihoods.Categorical(2), bm.likelihoods.HeteroscedasticGaussian(1)):
        title = type(likelihood).__name__
        if name != "CAVIA":
            with pytest.raises(bm.ShapeError, match=rf"expected a network with 2 outputs, got 3 \({title} needs 2\)"):
                ALL[name](network, likelihood=likelihood)
        with pytest.raises(bm.ShapeError, match=f"expected num_outputs as {title} has it, .*got 3: leave"):
            ALL[name](bm.MLP(1, [4]), likelihood=likelihood, num_outputs=3)
    with pytest.raises(bm.DataError, match="at least one"):
        ALL[name](bm.MLP(1, [4]), num_outputs=0)


@pytest.mark.filterwarnings("ignore::bayesmeta.ConvergenceWarning")  # an untrained network far from its data
@pytest.mark.parametrize("name", ALL)
def test_the_number_of_outputs_is_the_learners(name: str) -> None:
    assert ALL[name](bm.MLP(1, [4])).outcomes == bm.Numbers(1)
    learner = ALL[name](bm.MLP(1, [4]), num_outputs=2)
    assert learner.outcomes == bm.Numbers(2)
    assert learner.adapt(_data(num_outputs=2)).predict(torch.zeros(2, 1, 1)).mean.shape == (2, 1, 2)
    assert (
        ALL[name](
            bm.MLP(1, [4]), likelihood=bm.likelihoods.HeteroscedasticGaussian(2), num_outputs=2
        ).network.num_outputs
        == 4
    )
    assert ALL[name](bm.MLP(1, [4]), likelihood=bm.likelihoods.Categorical(3), num_outputs=3).network.num_outputs == 3


def test_contexts() -> None:
    with pytest.raises(
        bm.ShapeError, match=r"add 4 numbers to inputs that are vectors, got.* \(0,\) before and \(5,\)"
    ):
        bm.CAVIA(Unwidened(), num_context=4)
    with pytest.raises(bm.UnsupportedError, match=r"got Conv4: write Conv4.with_context\(size\), which returns"):
        bm.CAVIA(bm.Conv4((1, 8, 8), 16), num_context=1)
    with pytest.raises(bm.DataError, match="context of at least one number and one step, got 0 and 1"):
        bm.CAVIA(bm.MLP(3, [4]), num_context=0)
    learner = bm.CAVIA(bm.MLP(3, [4], "relu").double().with_outputs(1), num_context=2)
    assert (learner.x_shape, learner.network.x_shape) == ((3,), (5,))
    assert [layer for layer in learner.network.modules() if isinstance(layer, nn.ReLU)]
    assert {p.dtype for p in learner.network.parameters()} == {D}
    constant = bm.CAVIA(Constant(), num_context=2)  # no inputs at all: the mean of a task
    data = bm.Data.full(torch.zeros(2, 3, 0), torch.randn(2, 3, 1))
    assert torch.isfinite(constant.adapt(data).predict(torch.zeros(2, 1, 0)).stddev).all()


@pytest.mark.parametrize(
    "beginning", ["features.layers.7", "features.layer", "features.layers.0.weights", "layers.0", "", "weight"]
)
@pytest.mark.parametrize("name", WEIGHTS)
def test_unknown_weights(name: str, beginning: str) -> None:
    with pytest.raises(bm.DataError, match=rf"among \['features.layers.0.weight'.*got '{beginning}'"):
        WEIGHTS[name](bm.MLP(1, [4]), adapted=["features.layers.0", beginning])


@pytest.mark.parametrize("name", WEIGHTS)
def test_beginnings_are_those_of_whole_names(name: str) -> None:
    """features.layers.2 is not features.layers.20."""
    network = bm.MLP(1, [2] * 11)
    learner = WEIGHTS[name](network, adapted=["features.layers.2", "features.layers.4.bias"])
    assert learner.adapted == ("features.layers.2.weight", "features.layers.2.bias", "features.layers.4.bias")
    with pytest.raises(bm.DataError, match="expected parameters to adapt, got none"):
        WEIGHTS[name](network, adapted=[])
    with pytest.raises(bm.DataError, match="expected parameters to adapt, got none: Nothing has"):
        WEIGHTS[name](Nothing())
    assert WEIGHTS[name](bm.Identity(0)).adapted == ("output.weight", "output.bias")


@pytest.mark.parametrize("solver", [bm.inference.GaussNewton, bm.inference.LevenbergMarquardt])
def test_solvers_steps_out_of_range(solver: type[bm.inference.Solver]) -> None:
    for steps in (0, -1):
        with pytest.raises(bm.DataError, match=rf"one step, got {steps}|steps, history >= 1, got {steps}"):
            solver(steps=steps)


@pytest.mark.parametrize("name", [name for name in ALL if name not in ("IMAML", "LLAMA")])
def test_steps_and_rates_out_of_range(name: str) -> None:
    for arguments in ({"steps": 0}, {"steps": -1}, {"lr": 0.0}, {"lr": -0.1}, {"lr": 1e9}, {"lr": math.nan}):
        with pytest.raises(bm.DataError, match=r"one step|strictly between"):
            ALL[name](bm.MLP(1, [4]), **arguments)


def test_other_arguments_out_of_range() -> None:
    network = bm.MLP(1, [4])
    for make, message in (
        (lambda: bm.BMAML(network, num_particles=0), "one particle and one step, got 0 and 5"),
        (lambda: bm.BMAML(network, spread=0.0), "finite spread of the particles, got 0.0"),
        (lambda: bm.Linearized(draws=-1), "not negative, got -1"),
        (lambda: bm.IMAML(network, precision=0.0), "strictly between"),
        (lambda: bm.MAMLPlusPlus(network, multi_step_share=1.5), "shares from 0 to 1, got 1.5"),
        (lambda: bm.MAMLPlusPlus(network, first_order_share=-0.1), "shares from 0 to 1"),
        (lambda: bm.AlphaMAML(network, inner_hyper_lr=0.0), "inner_hyper_lr > 0"),
        (lambda: bm.AlphaMAML(network, outer_hyper_lr=1.0), "outer_hyper_lr < 1"),
        (lambda: bm.training.Chaser(lead=0), "one step of the leader, got 0"),
    ):
        with pytest.raises(bm.DataError, match=message):
            make()


# ----------------------------------------------------------------------------------------------------------------- data


@pytest.mark.parametrize("name", ALL)
def test_labels_out_of_range(name: str) -> None:
    learner = ALL[name](bm.MLP(1, [4]), likelihood=bm.likelihoods.Categorical(3))
    x, labels = torch.randn(1, 4, 1), torch.tensor([[0, 3, 1, 2]])
    with pytest.raises(bm.DataError, match="expected labels from 0 to 2, got labels from 0 to 3"):
        learner.adapt(bm.Data.full(x, labels))
    hidden = learner.adapt(bm.Data(x, labels, torch.tensor([[True, False, True, True]])))
    assert torch.isfinite(hidden.predict(x).marginals.probs).all()  # padding may be anything
    with pytest.raises(bm.DataError, match=r"expected labels for .*, got numbers"):
        learner.adapt(bm.Data.full(x, torch.randn(1, 4, 3)))
    regression = ALL[name](bm.MLP(1, [4]))
    with pytest.raises(bm.DataError, match=r"expected numbers for .*, got labels"):
        regression.adapt(bm.Data.full(x, labels))


@pytest.mark.filterwarnings("ignore::bayesmeta.ConvergenceWarning")  # an untrained network far from its data
@pytest.mark.parametrize("name", WEIGHTS)
def test_statistics_of_a_task_and_padding(name: str) -> None:
    learner = WEIGHTS[name](bm.Conv4((1, 8, 8), 8, norm="task"), likelihood=bm.likelihoods.Categorical(3))
    x, labels = torch.randn(2, 6, 1, 8, 8), torch.arange(6).expand(2, -1) % 3
    whole = bm.Data.full(x, labels)
    assert torch.isfinite(learner.adapt(whole).predict(x).marginals.probs).all()
    padded = bm.Data(x, labels, torch.arange(6) < torch.tensor([[6], [4]]))
    for call in (
        lambda: learner.adapt(padded),
        lambda: learner.meta_loss(bm.TaskBatch(padded, whole)),
        lambda: learner.meta_loss(bm.TaskBatch(whole, padded)),
        lambda: learner.adapt(whole).update(padded),
    ):
        with pytest.raises(bm.DataError, match=r"tasks of one size, got padding: the network of .*norm='group'"):
            call()


# ----------------------------------------------------------------------------------------------------------- Alpha MAML


def test_the_inner_rate_moves_down_its_hypergradient() -> None:
    learner = bm.AlphaMAML(bm.MLP(1, [4]), steps=2, lr=0.05, inner_hyper_lr=0.3).double()
    optimizer = learner.configure_optimizer(0.01)
    tasks = bm.TaskBatch(_data(6), _data(4))
    loss = learner.meta_loss(tasks).mean()
    loss.backward()
    raw, gradient = learner.rate.raw.detach().clone(), learner.rate.raw.grad.clone()
    weights = [p.detach().clone() for p in learner.network.parameters()]
    optimizer.step()
    assert gradient.abs() > 1e-6
    torch.testing.assert_close(learner.rate.raw.detach(), raw - 0.3 * gradient, rtol=1e-12, atol=0.0)  # plain descent
    for before, p in zip(weights, learner.network.parameters(), strict=True):  # Adam's first step is its rate
        torch.testing.assert_close((p - before).abs(), torch.full_like(p, 0.01), rtol=1e-3, atol=1e-6)


def test_a_fixed_rate_has_no_step() -> None:
    learner = bm.AlphaMAML(bm.MLP(1, [4]), steps=2, lr=0.05)
    learner.rate.requires_grad_(False)
    before = learner.rate().item()
    bm.fit(learner, bm.tasks.Sinusoid(), steps=3, batch_size=2)
    assert learner.rate().item() == before


@pytest.mark.parametrize(
    ("signs", "grows"), [([1.0] * 6, True), ([1.0, -1.0] * 3, False)], ids=["one way", "back and forth"]
)
def test_the_outer_rate_follows_the_gradients(signs: list[float], grows: bool) -> None:
    weight = nn.Parameter(torch.tensor([3.0, -2.0], dtype=D))
    optimizer = HypergradientAdam([weight], [], 0.1, 0.05, 1.0, betas=(0.0, 0.999))
    factors = []
    for sign in signs:
        weight.grad = sign * torch.tensor([1.0, 2.0], dtype=D)
        optimizer.step()
        factors.append(optimizer.param_groups[0]["factor"])
    assert factors[0] == 1.0
    # the direction of Adam, (1, 1), and the gradient, (1, 2), have the cosine 3 / √10
    ratio = 1.0 + (0.05 if grows else -0.05) * 3.0 / 10.0**0.5
    for a, b in itertools.pairwise(factors):
        assert math.isclose(b / a, ratio, rel_tol=1e-6)  # Adam's eps


def test_the_factor_grows_on_a_long_slope_and_multiplies_the_step() -> None:
    """A quadratic far from its optimum."""
    weight = nn.Parameter(torch.tensor([100.0, -100.0], dtype=D))
    optimizer = HypergradientAdam([weight], [], 0.1, 0.02, 1.0)
    for _ in range(30):
        optimizer.zero_grad()
        weight.square().sum().backward()
        before = weight.detach().clone()
        optimizer.step()
    factor = optimizer.param_groups[0]["factor"]
    assert math.isclose(factor, 1.02**29, rel_tol=1e-3)  # the cosine is 1
    # Adam's direction is 1 but for the averages' lag behind a gradient that falls
    torch.testing.assert_close(
        (before - weight.detach()).abs(), torch.full((2,), 0.1 * factor, dtype=D), rtol=0.02, atol=0
    )


# ---------------------------------------------------------------------------------------------------------------- BMAML


def _bmaml(particles: int = 3, steps: int = 2, precision: float = 4.0) -> bm.BMAML:
    return bm.BMAML(bm.MLP(1, [4]), num_particles=particles, steps=steps, lr=0.05, precision=precision).double()


def test_one_particle_is_the_map_under_the_prior() -> None:
    """A particle of BMAML that starts at theta climbs the log joint, in the end to the mode of LLAMA and IMAML."""
    network = bm.MLP(1, [4]).with_outputs(1)
    llama = bm.LLAMA(network, precision=50.0).double()
    imaml = bm.IMAML(network, precision=50.0, solver=bm.inference.LBFGS(200, 1e-12)).double()
    support = _data(5).to(D)
    learner = bm.BMAML(network, num_particles=1, steps=3, lr=0.1, precision=50.0).double()
    with torch.no_grad():
        for offset in learner.offsets:
            offset.zero_()
        # a step is lr / (N / σ² + precision) of the gradient
        rate = learner.rate() / (5 / learner.likelihood.unit() + learner.prior.precision())
        path = unrolled_map(llama.log_joint(support), llama.start(2), steps=3, lr=rate)
    for name, value in learner.adapt(support).mean.items():
        torch.testing.assert_close(value, path[name], rtol=0.0, atol=1e-12)  # rounding
    # the smallest curvature is half of what steps are measured in, and there is one optimum: (1 - 0.1 / 2)^600 = 1e-13
    learner.steps = 600
    for other in (llama, imaml):
        for name, value in other.adapt(support).mean.items():
            torch.testing.assert_close(learner.adapt(support).mean[name], value, rtol=0.0, atol=1e-8)  # the solvers'


def test_particles_are_the_mixture() -> None:
    learner, data = _bmaml(), _data(5).to(D)
    posterior = learner.adapt(data)
    x = torch.randn(2, 4, 1, dtype=D)
    prediction = posterior.predict(x)
    each = torch.stack([learner.forward({n: v[s] for n, v in posterior.phi.items()}, x) for s in range(3)]).detach()
    torch.testing.assert_close(prediction.mean, each.mean(0), rtol=1e-12, atol=1e-12)  # rounding
    variance = each.var(0, correction=0) + learner.likelihood.noise.variance().detach()
    torch.testing.assert_close(prediction.variance, variance, rtol=1e-12, atol=1e-12)
    draws = posterior.sample(200, torch.Generator().manual_seed(0))
    for name, value in draws.items():
        assert value.shape == (200, *posterior.mean[name].shape)
        distance = (value[:, None] - posterior.phi[name]).abs().flatten(3).amax(-1)  # draws, particles, tasks
        assert (distance.amin(1) == 0.0).all()
        assert (
            distance.argmin(1).bincount(minlength=3) if value.ndim < 2 else distance.argmin(1).unique()
        ).numel() == 3


def test_the_chaser_follows_a_leader_that_is_held() -> None:
    learner, tasks = _bmaml(), bm.TaskBatch(_data(5).to(D), _data(3).to(D))
    loss = bm.training.Chaser(2)(learner, tasks)
    assert loss.shape == (2,)
    with torch.no_grad():
        chaser = learner.condition(tasks.support).phi
        leader = learner.climb(tasks.support.append(tasks.query), chaser, 2)
    expected = sum((chaser[name] - leader[name]).square().transpose(0, 1).flatten(1).sum(1) for name in chaser)
    torch.testing.assert_close(loss.detach(), expected, rtol=1e-12, atol=0.0)  # rounding
    # the gradient is that of the distance to a constant
    parameters = [p for p in learner.parameters() if p.numel()]
    found = torch.autograd.grad(loss.sum(), parameters)
    moving = learner.condition(tasks.support).phi
    distance = sum((moving[name] - leader[name]).square().sum() for name in moving)
    for a, b in zip(found, torch.autograd.grad(distance, parameters), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


def test_a_chaser_at_the_optimum_is_not_led_away() -> None:
    """A particle at the optimum of support and query together: with an empty query and many steps the loss is zero."""
    learner = _bmaml(particles=1, steps=600, precision=50.0)
    with torch.no_grad():
        tasks = bm.TaskBatch(_data(5).to(D), bm.Data.empty(_data(5)).to(D))
        assert bm.training.Chaser()(learner, tasks).max() < 1e-12
        further = bm.TaskBatch(tasks.support, _data(5).to(D))
        assert bm.training.Chaser()(learner, further).min() > 1e-6
        first, second = (bm.training.Chaser(lead)(learner, further) for lead in (1, 5))
        assert (second > first).all()


@pytest.mark.parametrize("name", [name for name in ALL if name != "BMAML"])
def test_the_chaser_needs_particles(name: str) -> None:
    learner = ALL[name](bm.MLP(1, [4]))
    with pytest.raises(bm.UnsupportedError, match=f"expected a BMAML learner for the chaser loss, got {name}"):
        bm.training.Chaser()(learner, bm.TaskBatch(_data(), _data()))
    with pytest.raises(bm.UnsupportedError, match="expected a BMAML learner"):
        bm.fit(learner, bm.tasks.Sinusoid(), steps=1, objective=bm.training.Chaser())


def test_the_chaser_trains() -> None:
    """On tasks with a level in common, which nothing needs to lead to any more."""
    learner, x = bm.BMAML(bm.MLP(1, [8]), num_particles=3, steps=2, lr=0.05), torch.randn(8, 8, 1)
    y = 3.0 + 0.3 * torch.randn(8, 8, 1)
    tasks = bm.TaskBatch(*(bm.Data.full(x, y).points(part) for part in (slice(4), slice(4, None))))
    learner.likelihood.requires_grad_(False)
    learner.prior.precision.requires_grad_(False)
    before = bm.training.Chaser()(learner, tasks).mean().item()
    pairs = [(a[:, 0].numpy(), b[:, 0].numpy()) for a, b in zip(x, y, strict=True)]
    bm.fit(learner, bm.TaskDataset.from_list(pairs), steps=60, batch_size=8, lr=0.05, objective=bm.training.Chaser())
    assert bm.training.Chaser()(learner, tasks).mean().item() < 0.3 * before
