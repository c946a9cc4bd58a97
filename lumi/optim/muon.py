"""Muon's step: momentum, made orthogonal by Newton-Schulz iterations, many matrices at a time.

PyTorch's own class iterates in bfloat16, one matrix after the other. A CPU without bfloat16 units emulates every product: on
such a machine the optimizer took five times as long as the model (docs/experiments.md). Here the arithmetic follows the
device, and matrices of one shape share a batched product.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic iteration (Jordan et al. 2024): steep at zero, and singular values end between about 0.7 and 1.2."""

_TOGETHER = 16
"""Matrices in a batched product at most; bounds the memory beside the gradients."""


class MuonStep(torch.optim.Optimizer):
    """Muon for matrices (Jordan et al. 2024), its updates scaled to AdamW's root mean square (arXiv:2502.16982).

    Args:
        groups: parameter groups; every parameter has two dimensions.
        lr: rate, on AdamW's scale.
        momentum: decay of the momentum, with Nesterov's look-ahead.
        weight_decay: per step, times the rate.
        ns_steps: Newton-Schulz iterations.

    Attributes:
        grad_scale: gradients are divided by it; None for 1. found_inf: 1 where nothing must change; None for 0. Both are
            scalars on the parameters' device, as the fused kernels of PyTorch's own optimizers take them.
    """

    grad_scale: Tensor | None = None
    found_inf: Tensor | None = None

    def __init__(
        self, groups: Iterable[dict[str, Any]], *, lr: float, momentum: float, weight_decay: float, ns_steps: int
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "ns_steps": ns_steps}
        super().__init__(groups, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Update every parameter that has a gradient."""
        assert closure is None, "a stage computes its gradients before the step"
        for group in self.param_groups:
            present = [p for p in group["params"] if p.grad is not None]
            for same in _by_shape(present):
                self._update(same, group)

    def _update(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        """One step of matrices of one shape."""
        looked_ahead = []
        for parameter in parameters:
            state, gradient = self.state[parameter], parameter.grad
            assert gradient is not None, "chosen for having one"
            if not state:
                state["momentum_buffer"] = torch.zeros_like(gradient)
            momentum = state["momentum_buffer"]
            if self.grad_scale is not None:
                gradient = gradient / self.grad_scale
            if self.found_inf is not None:
                gradient = momentum.where(self.found_inf > 0, gradient)  # the momentum then stays, to the last bit
            momentum.lerp_(gradient, 1 - group["momentum"])
            looked_ahead.append(gradient.lerp(momentum, group["momentum"]))
        updates = orthogonalise(torch.stack(looked_ahead), group["ns_steps"])
        rate = (
            group["lr"] * 0.2 * max(parameters[0].shape) ** 0.5
        )  # an orthogonal matrix has this size over AdamW's 0.2
        decay = group["lr"] * group["weight_decay"]
        if self.found_inf is not None:
            updates, decay = updates * (1 - self.found_inf), decay * (1 - self.found_inf)
        for parameter, update in zip(parameters, updates, strict=True):
            parameter.mul_(1 - decay)
            parameter.add_(update.to(parameter.dtype), alpha=-rate)


def orthogonalise(matrices: Tensor, steps: int) -> Tensor:
    """The nearest orthogonal matrix of each, roughly: singular vectors stay, singular values become about 1.

    Args:
        matrices: (N, A, B).
        steps: Newton-Schulz iterations.

    Returns:
        (N, A, B): bfloat16 on a GPU, where it is enough and fastest; float32 elsewhere.
    """
    x = matrices.to(torch.bfloat16 if matrices.is_cuda else torch.float32)
    tall = x.shape[1] > x.shape[2]
    if tall:
        x = x.mT  # the Gram matrix of the shorter side is the smaller one
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)  # the largest singular value is then at most 1
    a, b, c = COEFFICIENTS
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


def _by_shape(parameters: list[Any]) -> Iterator[list[Any]]:
    """Parameters of one shape, device and dtype together, in their order."""
    groups: dict[tuple[Any, ...], list[Any]] = {}
    for parameter in parameters:
        groups.setdefault((parameter.shape, parameter.device, parameter.dtype), []).append(parameter)
    for same in groups.values():
        for first in range(0, len(same), _TOGETHER):
            yield same[first : first + _TOGETHER]
