"""The pretended device keeps CUDA's rules: what meets and what does not, and the values of the CPU.

Where there is a GPU the same tests say of it what they say of the pretence.
"""

import copy
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.func import grad, jacrev, jvp, vmap

from tests.device import DEVICE, DeviceTensor, pretended

HERE = torch.arange(4.0)


def same(value: Tensor, expected: Tensor) -> None:
    assert value.device.type != "cpu"
    torch.testing.assert_close(value.detach().cpu(), expected)


MAKE: dict[str, Callable[[torch.device], Tensor]] = {
    "tensor": lambda d: torch.tensor([0.0, 1.0, 2.0, 3.0], device=d),
    "tensor of tensors": lambda d: torch.tensor([*HERE.to(d)], device=d),
    "as_tensor of a list": lambda d: torch.as_tensor([0.0, 1.0, 2.0, 3.0], device=d),
    "as_tensor of an array": lambda d: torch.as_tensor(HERE.numpy(), device=d),
    "as_tensor of a tensor": lambda d: torch.as_tensor(HERE, device=d),
    "asarray": lambda d: torch.asarray([0.0, 1.0, 2.0, 3.0], device=d),
    "arange": lambda d: torch.arange(4.0, device=d),
    "linspace": lambda d: torch.linspace(0.0, 3.0, 4, device=d),
    "zeros and ones": lambda d: torch.zeros(4, device=d) + torch.ones(4, device=d).cumsum(0) - 1.0,
    "full": lambda d: torch.full((4,), 3.0, device=d) - torch.tensor([3.0, 2.0, 1.0, 0.0], device=d),
    "eye": lambda d: torch.eye(4, device=d) @ HERE.to(d),
    "empty": lambda d: torch.empty(4, device=d).copy_(HERE),
    "to": lambda d: HERE.to(d),
    "to like": lambda d: HERE.to(torch.zeros(1, device=d)),
    "new_tensor": lambda d: torch.zeros(1, device=d).new_tensor([0.0, 1.0, 2.0, 3.0]),
    "new_zeros": lambda d: torch.zeros(1, device=d).new_zeros(4) + HERE.to(d),
    "zeros_like": lambda d: torch.zeros_like(HERE, device=d) + HERE.to(d),
    "default device": lambda d: _by_default(d),
}


def _by_default(device: torch.device) -> Tensor:
    with device:
        return torch.tensor([0.0, 1.0]).repeat(2) + torch.zeros(4) + torch.tensor([0.0, 0.0, 2.0, 2.0])


@pytest.mark.parametrize("name", MAKE)
def test_tensors_are_made_there(name: str, device: torch.device) -> None:
    same(MAKE[name](device), HERE)


MIXED: dict[str, Callable[[Tensor], object]] = {
    "sum": lambda x: x + HERE,
    "sum from the other side": lambda x: HERE + x,
    "in place": lambda x: x.add_(HERE),
    "in place from the other side": lambda x: HERE.clone().add_(x),
    "in place on a number": lambda x: torch.tensor(1.0).add_(x[0]),
    "matrix product": lambda x: torch.eye(4) @ x,
    "linear layer": lambda x: nn.Linear(4, 1)(x),
    "a device number and a CPU vector": lambda x: x[0] * HERE,
    "a number beside a number": lambda x: torch.stack([x[0], HERE[0]]),
    "concatenation": lambda x: torch.cat([x, HERE]),
    "where": lambda x: torch.where(x > 1.0, x, HERE),
    "where with a CPU condition": lambda x: torch.where(HERE > 1.0, x, 0.0),
    "two CPU numbers in one operation": lambda x: torch.addcmul(x, torch.tensor(1.0), torch.tensor(2.0)),
    "bounds": lambda x: x.clamp(min=torch.tensor(0.0)),
    "mask of a fill": lambda x: x.masked_fill(HERE > 1.0, 0.0),
    "gather": lambda x: x.gather(0, torch.tensor([0])),
    "device index of a CPU tensor": lambda x: HERE[x.long()],
    "device mask of a CPU tensor": lambda x: HERE[x > 1.0],
    "values put at indices": lambda x: x.index_put_((torch.tensor([0, 1]),), torch.ones(2)),
    "equality": lambda x: torch.equal(x, HERE),
    "search": lambda x: torch.searchsorted(x, HERE),
    "a generator of the CPU": lambda x: torch.rand(2, device=x.device, generator=torch.Generator()),
    "a generator of the device": lambda x: torch.rand(2, generator=torch.Generator(x.device)),
    "a generator of the CPU in place": lambda x: x.normal_(generator=torch.Generator()),
    "draws by weights": lambda x: torch.multinomial(x, 1, generator=torch.Generator()),
}


@pytest.mark.parametrize("name", MIXED)
def test_mixed_devices_raise(name: str, device: torch.device) -> None:
    with pytest.raises(RuntimeError, match=r"device|too many CPU scalars"):
        MIXED[name](HERE.to(device))


ALLOWED: dict[str, Callable[[Tensor], Tensor]] = {
    "a Python number": lambda x: 2.0 * x + 1,
    "a CPU number": lambda x: x * torch.tensor(2.0),
    "a CPU number in place": lambda x: x.clone().mul_(torch.tensor(2.0)),
    "a CPU number in a ternary operation": lambda x: torch.addcmul(x, x, torch.tensor(2.0)),
    "CPU numbers in where": lambda x: torch.where(x > 1.0, torch.tensor(1.0), torch.tensor(-1.0)),
    "Python numbers in where": lambda x: torch.where(x > 1.0, 1.0, -1.0),
    "bounds": lambda x: x.clamp(1.0, 2.0).clamp(min=x[1]),
    "a fill": lambda x: x.masked_fill(x > 1.0, torch.tensor(7.0)),
    "CPU indices": lambda x: x[torch.tensor([2, 0])],
    "a CPU mask": lambda x: x[torch.tensor([True, False, True, False])],
    "indices of both kinds": lambda x: x.reshape(2, 2)[torch.tensor([0, 1]), torch.tensor([1, 1]).to(x.device)],
    "a list as indices": lambda x: x.reshape(2, 2)[:, [1, 0]],
    "an empty list as indices": lambda x: x[[]],
    "an array as indices": lambda x: x[np.array([1, 2])],
    "a device index": lambda x: x[torch.tensor([1, 3]).to(x.device)],
    "a device number as index": lambda x: x[torch.tensor(1).to(x.device)],
    "a number put at CPU indices": lambda x: x.clone().index_put_((torch.tensor([0, 1]),), torch.tensor(9.0)),
    "CPU values copied into a slice": lambda x: _set(x, slice(2), torch.ones(2)),
    "a CPU number put at an index": lambda x: _set(x, 1, torch.tensor(5.0)),
    "a number put where a mask is true": lambda x: _set(x, x > 1.0, 7.0),
    "a number put at a list": lambda x: _set(x, [0, 2], 7.0),
    "copy": lambda x: x.clone().copy_(torch.ones(4)),
    "a view changed in place": lambda x: _set(x.clone().reshape(2, 2)[1], 0, 9.0),
    "results with names": lambda x: torch.linalg.cholesky_ex(torch.diag(x + 1.0)).L @ x.sort(descending=True).values,
    "parts": lambda x: torch.cat([part * i for i, part in enumerate(x.split(1))]),
}


def _set(x: Tensor, index: object, value: Tensor | float) -> Tensor:
    x = x.clone()
    x[index] = value
    return x


@pytest.mark.parametrize("name", ALLOWED)
def test_what_may_meet_gives_the_values_of_the_cpu(name: str, device: torch.device) -> None:
    same(ALLOWED[name](HERE.to(device)), ALLOWED[name](HERE))


def test_reading(device: torch.device) -> None:
    x = HERE.to(device)
    assert x.tolist() == [0.0, 1.0, 2.0, 3.0]
    assert [float(x[1]), int(x[2]), bool(x[0] > 1.0), x[3].item(), x.sum().tolist()] == [1.0, 2, False, 3.0, 6.0]
    assert math.isfinite(x.sum())
    assert [float(value) for value in x] == [0.0, 1.0, 2.0, 3.0]
    assert f"{x[1]:.2f}" == "1.00"
    assert "1." in repr(x)
    assert x.cpu().numpy().tolist() == x.tolist()
    assert x.cpu().device.type == x.to("cpu").device.type == "cpu"
    for read in (lambda: x.numpy(), lambda: np.asarray(x)):
        with pytest.raises(TypeError, match="convert"):
            read()
    assert x.numpy(force=True).tolist() == x.tolist()
    assert list(range(3))[torch.tensor(1).to(device)] == 1
    assert torch.tensor([x[1], x[2]]).tolist() == [1.0, 2.0]


def test_generators_know_their_device(device: torch.device) -> None:
    generator = torch.Generator(device).manual_seed(0)
    assert isinstance(generator, torch.Generator)
    assert isinstance(torch.Generator(), torch.Generator)
    assert generator.device.type == device.type
    assert torch.Generator().device.type == "cpu"
    draws = [
        torch.randn(3, device=device, generator=generator),
        torch.rand(3, device=generator.device, generator=generator),
        torch.randperm(3, device=device, generator=generator),
        torch.multinomial(HERE.to(device), 3, generator=generator),
        torch.poisson(HERE.to(device), generator),
        HERE.to(device).normal_(generator=generator),
    ]
    assert all(draw.device.type == device.type for draw in draws)
    again = torch.randn(3, device=device, generator=torch.Generator(device).manual_seed(0))
    assert torch.equal(again, draws[0])


def test_modules_move_and_keep_what_they_share(device: torch.device) -> None:
    first, second = nn.Linear(2, 2), nn.Linear(2, 2)
    second.weight = first.weight
    both = nn.ModuleList([first, second])
    both.register_buffer("count", torch.zeros(()))
    before = first.weight.detach().clone()
    for moved in (both.to(device), copy.deepcopy(both)):
        assert moved[0].weight is moved[1].weight
        assert isinstance(moved[0].weight, nn.Parameter)
        assert moved[0].weight.requires_grad
        assert moved.count.device.type == device.type
        same(moved[0].weight, before)
    weight = both.double()[0].weight
    assert weight is both[1].weight
    same(weight, before.double())
    both.load_state_dict(copy.deepcopy(both).state_dict())
    back = both.to("cpu")
    assert type(back[0].weight) is nn.Parameter
    assert back[0].weight is back[1].weight
    torch.testing.assert_close(back[0].weight.detach(), before.double())


@pytest.mark.parametrize("fused", [False, True])
def test_optimizers_step(fused: bool, device: torch.device) -> None:
    results = []
    for at in (torch.device("cpu"), device):
        torch.manual_seed(0)
        layer = nn.Linear(4, 1).double().to(at)
        optimizer = torch.optim.Adam(layer.parameters(), lr=0.1, fused=fused)
        for _ in range(3):
            optimizer.zero_grad()
            layer(HERE.double().to(at)).square().sum().backward()
            nn.utils.clip_grad_norm_(layer.parameters(), 1.0)
            optimizer.step()
        results.append(layer.weight)
    same(results[1], results[0].detach())


def test_gradients_of_first_and_second_order(device: torch.device) -> None:
    results = []
    for at in (torch.device("cpu"), device):
        x = HERE.to(at).double().requires_grad_()
        y = (x.sin() * torch.tensor(2.0, dtype=torch.float64)).clone()
        y[1:] += x[:-1] ** 3  # a view that is changed in place
        first = torch.autograd.grad(y.square().sum(), x, create_graph=True)[0]
        second = torch.autograd.grad(first.cumsum(0).sin().clamp(max=0.9).sum() + first.prod(), x, retain_graph=True)[0]
        y.sum().backward()
        results.append((first, second, x.grad))
    for value, expected in zip(results[1], results[0], strict=True):
        same(value, expected.detach())
    leaf = HERE.clone().requires_grad_()  # through a move
    (leaf.to(device) ** 2).sum().backward()
    torch.testing.assert_close(leaf.grad, 2.0 * HERE)


def test_functional_transforms(device: torch.device) -> None:
    def function(x: Tensor) -> Tensor:
        return (x.sin() * torch.arange(2.0, device=x.device) + x.flip(0)).square()

    def everything(x: Tensor) -> list[Tensor]:
        total = lambda v: function(v).sum()
        return [
            vmap(function)(x),
            vmap(grad(total))(x),
            vmap(jacrev(grad(total)))(x),
            jvp(function, (x[0],), (x[1],))[1],
            grad(lambda v: vmap(grad(total))(v).square().sum())(x),
        ]

    for value, expected in zip(everything(HERE.reshape(2, 2).to(device)), everything(HERE.reshape(2, 2)), strict=True):
        same(value, expected)
    with pytest.raises(RuntimeError, match="device"):
        vmap(lambda x: x + torch.ones(2))(HERE.reshape(2, 2).to(device))


def test_nothing_is_left_behind() -> None:
    """And a tensor that outlives the pretence runs no operation that makes tensors out of nothing."""
    before = torch.tensor, torch.as_tensor, torch.asarray, torch.Generator
    with pretended() as there:
        x = torch.ones(2, device=there)
    assert (torch.tensor, torch.as_tensor, torch.asarray, torch.Generator) == before
    assert isinstance(x, DeviceTensor)
    with pytest.raises((RuntimeError, NotImplementedError)):
        torch.ones(2, device=DEVICE)
    with pytest.raises(RuntimeError):
        torch.Generator(DEVICE)


def test_what_the_pretence_cannot_do_it_says() -> None:
    with pretended() as there, pytest.raises(NotImplementedError, match="shape"):
        torch.ones(2, 3, device=there).t_()
