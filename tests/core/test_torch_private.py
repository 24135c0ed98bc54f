"""What is private in torch does what the library relies on; where a release changes it, these tests see it first."""

import logging
import resource
import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Normal

from bayesmeta.errors import DataError
from bayesmeta.torch_private import (
    DROPOUT,
    INSTANCE_NORMALISATION,
    NORMALISATION,
    Budget,
    Growing,
    Unrounded,
    compile_graph,
    copy_each,
    is_mapped,
    record_graph,
    tables,
    talking_to_itself,
    unvalidated,
    without_asides,
)

BATCH = [nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm]
INSTANCE = [nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d]
LAZY_BATCH = [nn.LazyBatchNorm1d, nn.LazyBatchNorm2d, nn.LazyBatchNorm3d]
LAZY_INSTANCE = [nn.LazyInstanceNorm1d, nn.LazyInstanceNorm2d, nn.LazyInstanceNorm3d]
DROPPING = [nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout]
OTHERS = [nn.Linear, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.LocalResponseNorm, nn.Conv2d, nn.Identity]


def test_layer_kinds_are_all_layers_of_the_kind_and_no_others() -> None:
    for layer in vars(nn).values():
        if isinstance(layer, type) and issubclass(layer, nn.Module):
            normalises = layer in [*BATCH, *LAZY_BATCH, *INSTANCE, *LAZY_INSTANCE]
            assert issubclass(layer, NORMALISATION) == normalises, layer
            assert issubclass(layer, INSTANCE_NORMALISATION) == (layer in [*INSTANCE, *LAZY_INSTANCE]), layer
            assert issubclass(layer, DROPOUT) == (layer in DROPPING), layer
    assert not any(issubclass(layer, (NORMALISATION, DROPOUT)) for layer in OTHERS)


def test_layers_of_the_kinds_say_what_they_do() -> None:
    """Those without a state or noise are let through, by these attributes."""
    assert not nn.InstanceNorm1d(2).track_running_stats
    assert nn.InstanceNorm1d(2, track_running_stats=True).track_running_stats
    assert all(layer(p=0.25).p == 0.25 for layer in DROPPING)


def test_values_are_copied_in_groups_of_one_precision() -> None:
    values = [torch.ones(2), torch.tensor([True]), torch.full((1, 3), 2.0), torch.tensor(5), torch.empty(0)]
    targets = [torch.zeros_like(value) for value in values]
    copy_each(targets, [value.requires_grad_() if value.is_floating_point() else value for value in values])
    assert all(map(torch.equal, targets, values))
    assert not any(target.requires_grad for target in targets)


def test_tables_are_where_a_module_keeps_its_own_tensors() -> None:
    module = nn.Sequential(nn.Linear(1, 1), nn.BatchNorm1d(1))
    assert tables(module) == ({}, {})
    linear, norm = tables(module[0]), tables(module[1])
    assert linear.parameters == dict(module[0].named_parameters())
    assert norm.buffers == dict(module[1].named_buffers())
    other = 3.0 * torch.ones(1, 1)
    parameter, linear.parameters["weight"] = linear.parameters["weight"], other
    assert module[0].weight is other
    assert torch.equal(module[0](torch.ones(1, 1)), other + module[0].bias)
    linear.parameters["weight"] = parameter
    assert next(module.parameters()) is parameter


def test_public_writing_refuses_a_tensor_in_a_parameters_place() -> None:
    """When it no longer does, `tables` may go."""
    with pytest.raises(TypeError, match="cannot assign"):
        nn.Linear(1, 1).weight = torch.ones(1, 1)  # type: ignore[assignment]


def test_is_mapped_inside_of_vmap_alone() -> None:
    seen = []

    def look(tensor: Tensor) -> Tensor:
        seen.append((is_mapped(tensor), is_mapped(torch.ones(2)), is_mapped(tensor.sum() * torch.ones(2))))
        return tensor.sum()

    tensor = torch.randn(3, 2)
    assert not is_mapped(tensor)
    torch.vmap(look)(tensor)
    look(tensor)
    torch.vmap(torch.vmap(look))(tensor[None])
    assert seen == [(True, False, True), (False, False, False), (True, False, True)]


class Statistics(Unrounded):
    """Buffers that stay, with a module whose own are converted."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("exact", torch.tensor([1e6 + 0.01], dtype=torch.float64))
        self.register_buffer("count", torch.tensor(3))
        self.weight = nn.Parameter(torch.ones(1, dtype=torch.float64))
        self.inner = nn.BatchNorm1d(1).double()


@pytest.mark.parametrize("outer", [False, True], ids=["itself", "inside of another"])
@pytest.mark.parametrize(
    "convert",
    [
        nn.Module.float,
        nn.Module.half,
        nn.Module.bfloat16,
        lambda m: m.to(torch.float32),
        lambda m: m.type(torch.float32),
    ],
    ids=["float", "half", "bfloat16", "to", "type"],
)
def test_unrounded_buffers_keep_every_digit(convert: object, outer: bool) -> None:
    statistics = Statistics()
    module = nn.Sequential(statistics) if outer else statistics
    assert convert(module) is module  # type: ignore[operator]
    assert statistics.exact.dtype == torch.float64
    assert statistics.exact.item() == 1e6 + 0.01
    assert statistics.count.dtype == torch.int64
    assert statistics.weight.dtype == statistics.inner.running_mean.dtype != torch.float64
    assert [name for name, _ in statistics.named_buffers(recurse=False)] == ["exact", "count"]  # still registered


def test_unrounded_buffers_move() -> None:
    statistics = Statistics().to("meta", torch.float32)
    assert (statistics.exact.device.type, statistics.exact.dtype) == ("meta", torch.float64)
    assert (statistics.weight.device.type, statistics.weight.dtype) == ("meta", torch.float32)


def cube(x: Tensor) -> tuple[Tensor]:
    """x³, as half the second derivative of x⁵ / 10: through two gradients."""
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        (first,) = torch.autograd.grad((x**5 / 10.0).sum(), x, create_graph=True)
        (second,) = torch.autograd.grad(first.sum(), x)
    return (0.5 * second,)


def test_a_recorded_graph_computes_derivatives_at_other_values() -> None:
    graph = record_graph(cube, [torch.ones(3, dtype=torch.float64)])
    x = torch.tensor([1.0, 2.0, -3.0], dtype=torch.float64)
    torch.testing.assert_close(graph(x)[0], x**3)


@pytest.mark.parametrize(
    "look",
    [
        lambda x: x if x.sum() > 0 else -x,
        lambda x: x * x.sum().item(),
        lambda x: x[x > 0],
        lambda x: x * x.nonzero().shape[0],
        lambda x: x * x.tolist()[0],
    ],
    ids=["bool", "item", "mask", "nonzero", "tolist"],
)
def test_recording_knows_no_values(look: object) -> None:
    with pytest.raises(RuntimeError):
        record_graph(look, [torch.ones(3)])  # type: ignore[arg-type]
    assert not torch.compiler.is_compiling()


@pytest.mark.parametrize("validate", [True, False])
def test_recording_says_so_and_puts_back_what_it_found(validate: bool) -> None:
    before, seen = Distribution._validate_args, []

    def look(x: Tensor) -> Tensor:
        seen.append(torch.compiler.is_compiling())
        return Normal(x, x).log_prob(x)  # would look at the scale

    Distribution.set_default_validate_args(validate)
    try:
        record_graph(look, [torch.ones(3)])
        assert seen == [True]
        assert not torch.compiler.is_compiling()
        assert Distribution._validate_args is validate
    finally:
        Distribution.set_default_validate_args(before)


def test_a_compiled_graph_gives_what_the_function_gives() -> None:
    example = torch.ones(3, dtype=torch.float64)
    run = compile_graph(record_graph(cube, [example]), [example])
    x = torch.tensor([1.0, 2.0, -3.0], dtype=torch.float64)
    (found,) = run(x)
    torch.testing.assert_close(found, x**3)


def test_a_compiled_graph_draws_as_torch_does() -> None:
    def noisy(x: Tensor) -> tuple[Tensor]:
        return (x + torch.randn(3),)

    example = torch.zeros(3)
    run = compile_graph(record_graph(noisy, [example]), [example])
    found = [(torch.manual_seed(1), run(example)[0])[1] for _ in range(2)]
    torch.manual_seed(1)
    expected = torch.randn(3)
    assert torch.equal(found[0], expected)
    assert torch.equal(found[1], expected)


def test_importing_it_does_not_import_the_compiler() -> None:
    code = (
        "import sys, bayesmeta.torch_private; print({'torch._inductor', 'torch._dynamo', 'sympy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


LARGE: dict[str, Callable[[], object]] = {
    "empty": lambda: torch.empty(10**6, 10**6),
    "a layer": lambda: nn.Linear(10**6, 10**6),
    "eye": lambda: torch.eye(10**5),
    "arange": lambda: torch.arange(10**9),
    "arange of floats": lambda: torch.arange(1e9),
    "linspace": lambda: torch.linspace(0.0, 1.0, 10**9),
    "repeat": lambda: torch.ones(10).repeat(10**8),
    "all pairs": lambda: torch.outer(torch.ones(10**5), torch.ones(10**5)),
    "a grid": lambda: torch.cartesian_prod(*[torch.ones(5)] * 20),
    "a copy of an expanded": lambda: torch.ones(1).expand(10**9).clone(),
    "many": lambda: [torch.ones(10**5) for _ in range(10**5)],
    "many operations": lambda: [torch.ones(1) for _ in range(10**6)],
    "drawn by a generator": lambda: torch.randn(10**9, generator=torch.Generator()),
}


@pytest.mark.parametrize("name", LARGE)
def test_a_budget_is_kept_before_memory_is_taken(name: str) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(DataError, match="of the size of its weights"), Budget(2**24, 2**26, 10_000):
        LARGE[name]()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 400_000  # kB; torch's own code is some of it


def test_a_budget_changes_nothing_within_it() -> None:
    def made() -> list[Tensor]:
        torch.manual_seed(0)
        layer = nn.Linear(30, 20)
        nn.init.orthogonal_(layer.weight)
        grid = torch.cartesian_prod(torch.linspace(0, 1, 5), torch.arange(3.0))
        assert bool((grid >= 0.0).all())  # values may be looked at
        return [*layer.parameters(), grid, torch.outer(grid[:, 0], grid[:, 1]).double()]

    expected = made()
    with Budget(2**20, 2**22, 1_000):
        found = made()
    for a, b in zip(found, expected, strict=True):
        assert torch.equal(a, b)
        assert type(a) is type(b)


def test_loading_gives_growing_buffers_their_length() -> None:
    """Also deep inside, and only to buffers that may grow, whose other axes must agree."""

    class Kept(Growing):
        growing = ("rows",)

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("rows", torch.zeros(0, 2))
            self.register_buffer("fixed", torch.zeros(2))

    full, inner = Kept(), nn.Sequential(Kept(), nn.Linear(1, 1))
    full.rows = torch.ones(3, 2)
    inner.load_state_dict({**inner.state_dict(), "0.rows": full.rows})
    assert torch.equal(inner[0].rows, full.rows)
    full.load_state_dict(Kept().state_dict())
    assert full.rows.shape == (0, 2)
    for name, wrong in (("rows", torch.ones(3, 5)), ("fixed", torch.ones(3))):
        with pytest.raises(RuntimeError, match=f"size mismatch for {name}"):
            full.load_state_dict({**full.state_dict(), name: wrong})


def test_a_recorded_program_without_asides_says_the_same() -> None:
    class Program(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x.exp()  # nobody asks for it
            return x.double() + 1.0

    x = torch.ones(3)
    with torch.no_grad(), talking_to_itself(), unvalidated():
        exported = torch.export.export(Program(), (x,), strict=False)
    without_asides(exported)
    targets = [str(node.target) for node in exported.graph.nodes if node.op == "call_function"]
    assert not any("exp" in target or "assert" in target for target in targets)
    assert exported.module()(x).tolist() == [2.0, 2.0, 2.0]


def test_what_is_switched_off_is_on_again() -> None:
    logger, level = logging.getLogger("torch.onnx"), logging.getLogger("torch.onnx").level
    with talking_to_itself(), unvalidated():
        assert logger.level == logging.ERROR
        Normal(0.0, -1.0)  # not looked at
    assert logger.level == level
    with pytest.raises(ValueError, match="scale"):
        Normal(0.0, -1.0)
