"""An adapted projection in as few operations as it needs.

peft converts the input to the adapter's type and scales and adds whole activations one after the other, which makes a step of a
small model slower than training all weights does. Here a small projection is added up first, W + scale B A, and then multiplied
once; of a larger one, whose own gradient would cost more than the adapter's thin products, both products end in one array.
"""

import functools
from typing import Any

import torch
from torch import Tensor, nn

_SMALL = 20.0
"""Add up where O I < 20 R (O + I): thin products reach a fraction of a square one's rate (docs/experiments.md)."""


class AddedUp(torch.autograd.Function):
    """``x (W + scale B A)'`` with a frozen W (arXiv:2106.09685).

    In 16 bit the sum is rounded, as trained weights are, and so is the gradient of the whole matrix, of which A and B then take
    a share of R / I: their gradients are off by a few roundings instead of one.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, a: Tensor, b: Tensor, scale: float) -> Tensor:
        """As `LowRank`, but the weight comes in its own type."""
        rows = x.reshape(-1, x.shape[-1])  # (N, I)
        whole = torch.addmm(weight, b, a, alpha=scale).to(x.dtype)  # (O, I)
        ctx.save_for_backward(rows, whole, a, b)
        ctx.scale, ctx.shape = scale, x.shape
        return (rows @ whole.T).view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, None, Tensor, Tensor, None]:
        """Of x, a and b, the last two through that of the whole matrix."""
        rows, whole, a, b = ctx.saved_tensors
        grad = grads[0].reshape(-1, whole.shape[0])  # (N, O)
        grad_x = (grad @ whole).view(ctx.shape) if ctx.needs_input_grad[0] else None
        pulled = (grad.T @ rows).to(a.dtype).mul_(ctx.scale)  # (O, I)
        # So thin that rounding them first takes longer than they do; a compiled backward pass has autocast on.
        with torch.autocast(grad.device.type, enabled=False):
            return grad_x, None, b.T @ pulled, pulled @ a.T, None


class LowRank(torch.autograd.Function):
    """``x W' + scale (x A') B'`` with a frozen W (arXiv:2106.09685)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, a: Tensor, b: Tensor, scale: float) -> Tensor:
        """Inputs x (…, I), weight (O, I), a (R, I), b (O, R) -> (…, O), in the type of x and weight."""
        rows = x.reshape(-1, x.shape[-1])  # (N, I)
        low_a, low_b = a.to(x.dtype), b.to(x.dtype)
        reduced = rows @ low_a.T  # (N, R)
        out = rows @ weight.T
        out.addmm_(reduced, low_b.T, alpha=scale)
        ctx.save_for_backward(rows, weight, low_a, low_b, reduced)
        ctx.scale, ctx.types, ctx.shape = scale, (a.dtype, b.dtype), x.shape
        return out.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, None, Tensor, Tensor, None]:
        """Of x, a and b."""
        rows, weight, a, b, reduced = ctx.saved_tensors
        grad = grads[0].reshape(-1, weight.shape[0])  # (N, O)
        pulled = grad @ b  # (N, R)
        grad_x = None
        if ctx.needs_input_grad[0]:
            grad_x = (grad @ weight).addmm_(pulled, a, alpha=ctx.scale).view(ctx.shape)
        grad_a, grad_b = (pulled.T @ rows).mul_(ctx.scale), (grad.T @ reduced).mul_(ctx.scale)
        return grad_x, None, grad_a.to(ctx.types[0]), grad_b.to(ctx.types[1]), None


@functools.cache
def quick_class() -> type[nn.Module]:
    """The adapted linear layer of peft, with `LowRank` where the adapter is nothing but A and B."""
    from peft.tuners.lora.layer import Linear  # seconds of import

    class QuickLinear(Linear):
        """Everything but the forward pass is peft's."""

        def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            """(…, I) -> (…, O)."""
            if args or kwargs or not _is_plain(self):
                return super().forward(x, *args, **kwargs)
            layer: Any = self
            (name,) = layer.active_adapters
            weight, a, b = layer.base_layer.weight, layer.lora_A[name].weight, layer.lora_B[name].weight
            autocast = torch.is_autocast_enabled(x.device.type)
            x = x.to(torch.get_autocast_dtype(x.device.type) if autocast else weight.dtype)
            small = weight.numel() < _SMALL * len(a) * sum(weight.shape) and weight.dtype == a.dtype
            function, weight = (AddedUp, weight) if small else (LowRank, weight.to(x.dtype))
            with torch.autocast(x.device.type, enabled=False):
                out: Tensor = function.apply(x, weight, a, b, layer.scaling[name])
            return out

    return QuickLinear


def _is_plain(module: Any) -> bool:
    """Whether it computes the formula and nothing else: one adapter, no dropout, no DoRA, not merged, not taken apart."""
    if module.disable_adapters or module.merged or module.lora_variant or len(module.active_adapters) != 1:
        return False
    weight, dropout = module.base_layer.weight, module.lora_dropout[module.active_adapters[0]]
    whole = not weight.requires_grad and module.base_layer.bias is None and not hasattr(weight, "full_tensor")
    return whole and (isinstance(dropout, nn.Identity) or not module.training)
