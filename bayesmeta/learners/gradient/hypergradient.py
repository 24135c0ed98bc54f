"""Adam whose learning rate is learned, too, from the gradient of the loss in it.

Baydin, Cornish, Martinez Rubio, Schmidt, Wood 2018 (arXiv:1703.04782), the multiplicative rule: the loss after a step
-β u has the derivative -∇L · u in β, so that β grows while gradients keep pointing along the last step.

    β <- β (1 + κ ∇L_t · u_t-1 / (|∇L_t| |u_t-1|))
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import parameters_to_vector


class HypergradientAdam(torch.optim.Optimizer):
    """Adam with an adapted rate on `weights`, and plain gradient descent on `rates`.

    A schedule multiplies the adapted rate: it sets `lr` of the groups, and the factor is kept beside it
    (`param_groups[0]["factor"]`).

    Args:
        weights: what Adam moves.
        rates: parameters that are rates themselves (logarithms of inner step sizes), for which one step of plain
            descent is a hypergradient step. May be empty.
        lr: first rate of Adam.
        hyper_lr: κ, the largest relative change of the rate in a step.
        rates_lr: step size on `rates`.
        betas: as for Adam.
        eps: as for Adam.

    Example:
        >>> weight = torch.nn.Parameter(torch.tensor([100.0]))
        >>> optimizer = HypergradientAdam([weight], [], lr=0.1, hyper_lr=0.02, rates_lr=1.0)
        >>> for _ in range(3):
        ...     optimizer.zero_grad()
        ...     weight.square().sum().backward()
        ...     optimizer.step()
        >>> round(optimizer.param_groups[0]["factor"], 4)  # every step but the first points where the last one went
        1.0404
    """

    def __init__(
        self,
        weights: Sequence[Tensor],
        rates: Sequence[Tensor],
        lr: float,
        hyper_lr: float,
        rates_lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        groups: list[dict[str, Any]] = [{"params": list(weights), "lr": lr, "kind": "weights", "factor": 1.0}]
        if rates:
            groups.append({"params": list(rates), "lr": rates_lr, "kind": "rates"})
        super().__init__(groups, {"hyper_lr": hyper_lr, "betas": betas, "eps": eps})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step of all groups; the loss of the closure, where one is given."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            moved = [p for p in group["params"] if p.grad is not None]
            if group["kind"] == "rates":
                for p in moved:
                    p.sub_(group["lr"] * p.grad)
            elif moved:
                self._step_weights(group, moved)
        return loss

    def _step_weights(self, group: dict[str, Any], moved: list[Tensor]) -> None:
        state = self.state[moved[0]]
        gradient = parameters_to_vector([p.grad for p in moved if p.grad is not None])
        if not state or state["first"].shape != gradient.shape:
            state.update(count=0, first=torch.zeros_like(gradient), second=torch.zeros_like(gradient), last=None)
        if state["last"] is not None:
            cosine = torch.nn.functional.cosine_similarity(gradient, state["last"], dim=0)
            group["factor"] *= 1.0 + group["hyper_lr"] * cosine.item()
        beta1, beta2 = group["betas"]
        state["count"] += 1
        state["first"].lerp_(gradient, 1.0 - beta1)
        state["second"].lerp_(gradient.square(), 1.0 - beta2)
        first = state["first"] / (1.0 - beta1 ** state["count"])
        second = state["second"] / (1.0 - beta2 ** state["count"])
        state["last"] = first / (second.sqrt() + group["eps"])
        change = group["lr"] * group["factor"] * state["last"]
        for p, part in zip(moved, change.split([p.numel() for p in moved]), strict=True):
            p.sub_(part.view_as(p))
