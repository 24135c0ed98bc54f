"""What a run consists of, part by part: whatever has a state that can be taken and given back, as torch's own have.

A part's state is a tree of tensors and plain values (`packing`).
"""

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

State = dict[str, Any]
"""A tree: dictionaries, lists and tuples of tensors and plain values."""


@runtime_checkable
class Stateful(Protocol):
    """A part of a run: a learner (`ModuleState`), an optimizer (`OptimizerState`), a history.

    Example:
        >>> from bayesmeta.training.runs.parts import Stateful
        >>> class Counter:
        ...     count = 0
        ...
        ...     def state_dict(self):
        ...         return {"count": self.count}
        ...
        ...     def load_state_dict(self, state_dict):
        ...         self.count = state_dict["count"]
        >>> part: Stateful = Counter()
        >>> part.state_dict()
        {'count': 0}
    """

    def state_dict(self) -> State:
        """What it is now."""

    def load_state_dict(self, state_dict: State) -> Any:
        """Make it what it was when `state_dict` was taken."""


Parts = Mapping[str, Stateful]
"""All that a run consists of, by name."""


class ModuleState:
    """A module as a part: parameters and all buffers, those too that a model folder does not hold.

    Args:
        module: whose tensors are kept.

    Example:
        >>> layer = nn.Linear(1, 1)
        >>> layer.register_buffer("seen", torch.zeros(()), persistent=False)
        >>> list(ModuleState(layer).state_dict()["passing"])
        ['seen']
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def state_dict(self) -> State:
        """Parameters and buffers, copied."""
        kept = {name: _copied(value) for name, value in self.module.state_dict().items()}
        return {"kept": kept, "passing": {name: _copied(value) for name, value in self._passing(kept).items()}}

    def load_state_dict(self, state_dict: State) -> None:
        """Give the module these parameters and buffers, in place."""
        self.module.load_state_dict(state_dict["kept"])
        TensorState(self._passing(state_dict["kept"])).load_state_dict(state_dict["passing"])

    def _passing(self, kept: Mapping[str, Any]) -> dict[str, Tensor]:
        return {name: value for name, value in self.module.named_buffers() if name not in kept}


class AtStart:
    """A part as it was when the run began: for a computation that is done again from there.

    Args:
        part: at its start.

    Example:
        >>> value = torch.zeros(1)
        >>> start = AtStart(TensorState({"value": value}))
        >>> _ = value.fill_(5.0)
        >>> start.state_dict()
        {'value': tensor([0.])}
    """

    def __init__(self, part: Stateful) -> None:
        self.part, self._state = part, part.state_dict()

    def state_dict(self) -> State:
        """What it was."""
        return self._state

    def load_state_dict(self, state_dict: State) -> None:
        """Begin from there."""
        self.part.load_state_dict(state_dict)
        self._state = state_dict


class TensorState:
    """Tensors as a part.

    Args:
        tensors: by name.

    Example:
        >>> value = torch.zeros(2)
        >>> part = TensorState({"value": value})
        >>> before = part.state_dict()
        >>> value.fill_(1.0)
        tensor([1., 1.])
        >>> part.load_state_dict(before)
        >>> value
        tensor([0., 0.])
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self.tensors = tensors

    def state_dict(self) -> State:
        """The tensors, copied."""
        return {name: _copied(value) for name, value in self.tensors.items()}

    @torch.no_grad()
    def load_state_dict(self, state_dict: State) -> None:
        """Give the tensors these values, in place."""
        for name, value in self.tensors.items():
            value.copy_(state_dict[name])


class OptimizerState:
    """An optimizer as a part. Which parameters go together, and how fast, may depend on theta at the start
    (`Learner.configure_optimizer`), so that they are known by name, and not by their place.

    Args:
        optimizer: whose moments and rates are kept.
        parameters: all that it moves, by name.

    Example:
        >>> slow, fast = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))
        >>> parameters = {"slow": slow, "fast": fast}
        >>> one = torch.optim.Adam([{"params": [slow], "lr": 0.1}, {"params": [fast], "lr": 1.0}])
        >>> other = torch.optim.Adam([fast, slow])
        >>> OptimizerState(other, parameters).load_state_dict(OptimizerState(one, parameters).state_dict())
        >>> [(group["params"][0] is slow, group["lr"]) for group in other.param_groups]
        [(True, 0.1), (False, 1.0)]
    """

    def __init__(self, optimizer: torch.optim.Optimizer, parameters: Mapping[str, Tensor]) -> None:
        self.optimizer, self.parameters = optimizer, parameters

    def state_dict(self) -> State:
        """Moments, rates, and which parameters they are of."""
        names = {id(value): name for name, value in self.parameters.items()}
        moved = [[names[id(value)] for value in group["params"]] for group in self.optimizer.param_groups]
        return {"moved": moved, "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state_dict: State) -> None:
        """Group the parameters as they were, and give them their moments and rates."""
        self.optimizer.param_groups[:] = [
            {**group, "params": [self.parameters[name] for name in names]}
            for names, group in zip(state_dict["moved"], state_dict["optimizer"]["param_groups"], strict=True)
        ]
        self.optimizer.load_state_dict(state_dict["optimizer"])


class RandomState:
    """torch's global random numbers as a part: a loss may draw from them. Those of GPUs count where one was used.

    Example:
        >>> state = RandomState().state_dict()
        >>> first = torch.rand(3)
        >>> RandomState().load_state_dict(state)
        >>> bool((torch.rand(3) == first).all())
        True
    """

    def state_dict(self) -> State:
        """The states of the generators."""
        gpus = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
        return {"cpu": torch.get_rng_state(), "cuda": gpus}

    def load_state_dict(self, state_dict: State) -> None:
        """Go on with the random numbers that came next; a GPU that is not there is passed over."""
        torch.set_rng_state(state_dict["cpu"])
        for place, state in enumerate(state_dict["cuda"][: torch.cuda.device_count()]):
            torch.cuda.set_rng_state(state, place)


def _copied(value: Any) -> Any:
    return value.detach().clone() if isinstance(value, Tensor) else value
