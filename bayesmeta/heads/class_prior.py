"""How frequent the classes of a task are, before its query points are seen: a Dirichlet prior that the support updates.

    π ~ Dirichlet(κ C b),   b = softmax(location)      =>      π_c | D = (κ C b_c + n_c) / (κ C + N)

b starts at the frequencies among all tasks, and a task without an example keeps these: they are counted, and what
training makes of b is for tasks with examples, where it also makes up for what a head's scores get wrong. κ says how
alike the tasks are in them: where it is large, the numbers of examples tell nothing of the query (K-shot episodes),
where it is small a task has its own.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from bayesmeta.errors import DataError, UnsupportedError
from bayesmeta.noise import Positive

START, CONCENTRATION_BOUNDS = 100.0, (1e-3, 1e6)


class ClassPrior(nn.Module):
    """The frequencies of the classes of a task given the numbers of its examples. theta = `concentration`, `location`.

    A task without an example has the frequencies that were counted (`take_frequencies`), whatever was trained since;
    those of `location`, where none were.

    Classes of a fixed number have names that mean the same in every task, and each has its own frequency b_c. Where a
    task brings its own classes there is no `location`: b_c = 1/C, and relabelling them permutes everything.

    Args:
        num_classes: C, or None where tasks bring their own classes.

    Example:
        >>> import bayesmeta as bm
        >>> prior = bm.heads.ClassPrior(2)
        >>> prior.take_frequencies(torch.tensor([0] * 94 + [1] * 6))
        >>> counts = torch.tensor([[0.0, 0.0], [1.0, 3.0]], dtype=torch.float64)
        >>> prior(counts, torch.ones(2, 2, dtype=torch.bool)).exp().round(decimals=2)[:, 1]  # κ is 100 at the start
        tensor([0.0600, 0.0800], dtype=torch.float64, grad_fn=<...>)
    """

    def __init__(self, num_classes: int | None) -> None:
        super().__init__()
        self.concentration = Positive((), START, CONCENTRATION_BOUNDS)
        self.location = None if num_classes is None else nn.Parameter(torch.zeros(num_classes))
        self.counted: Tensor | None
        self.has_counted: Tensor | None
        self.register_buffer("counted", None if num_classes is None else torch.zeros(num_classes))
        self.register_buffer("has_counted", None if num_classes is None else torch.zeros((), dtype=torch.bool))

    def forward(self, counts: Float[Tensor, "B C"], classes: Bool[Tensor, "B C"]) -> Float[Tensor, "B C"]:
        """log π_c | D, in nats; what it says of what is no class of a task means nothing.

        Args:
            counts: n_c, the examples of each class.
            classes: True = a class of the task.
        """
        ways = classes.sum(-1, keepdim=True).to(counts.dtype)
        if self.location is None:
            shares = -ways.log().expand_as(counts)
        else:
            shares = self.shares().to(counts.dtype)
            if self.counted is not None and self.has_counted is not None:
                counted = torch.where(self.has_counted, self.counted, self.location).to(counts.dtype)
                shares = torch.where(counts.sum(-1, keepdim=True) > 0.0, shares, counted.log_softmax(-1))
        strength = self.concentration().to(counts.dtype) * ways
        return torch.logaddexp(strength.log() + shares, counts.log()) - (strength + counts.sum(-1, keepdim=True)).log()

    def shares(self) -> Float[Tensor, "C"]:
        """log b of a task with examples, in nats. Raises UnsupportedError where classes have no names.

        Example:
            >>> ClassPrior(2).shares().exp()
            tensor([0.5000, 0.5000], grad_fn=<...>)
        """
        if self.location is None:
            raise UnsupportedError("expected classes with names (num_classes), got those of each task")
        return self.location.log_softmax(-1)

    @torch.no_grad()
    def take_frequencies(self, labels: Int[Tensor, "L"]) -> None:
        """Start `location` at the frequencies of these labels; one that was trained, set or frozen stays as it is.

        Half an example is added to every class, so that none is impossible.

        Raises:
            DataError: a label that is negative or not below C.
        """
        if self.location is None or not self.location.requires_grad or bool((self.location != 0.0).any()):
            return
        num_classes = len(self.location)
        if labels.numel() and not 0 <= int(labels.min()) <= int(labels.max()) < num_classes:
            raise DataError(
                f"expected labels from 0 to {num_classes - 1}, got labels from {int(labels.min())} to "
                f"{int(labels.max())}"
            )
        log_counts = (torch.bincount(labels, minlength=num_classes).double() + 0.5).log()
        self.location.copy_(log_counts - log_counts.mean())
        assert self.counted is not None
        assert self.has_counted is not None
        self.counted.copy_(self.location)
        self.has_counted.fill_(True)
