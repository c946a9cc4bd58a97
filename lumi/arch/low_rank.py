"""An adapted projection in as few operations as it needs.

peft converts the input to the adapter's type and scales and adds whole activations one after the other, which makes a step of a
small model slower than training all weights does. Here both products end in one array and nothing is converted twice.
"""

import functools
from typing import Any

import torch
from torch import Tensor, nn


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
            (name,) = self.active_adapters
            weight = self.base_layer.weight
            if torch.is_autocast_enabled(x.device.type):
                dtype = torch.get_autocast_dtype(x.device.type)
                x, weight = x.to(dtype), weight.to(dtype)
            out: Tensor = LowRank.apply(
                x, weight, self.lora_A[name].weight, self.lora_B[name].weight, self.scaling[name]
            )
            return out

    return QuickLinear


def _is_plain(module: Any) -> bool:
    """Whether it computes the formula and nothing else: one adapter, no dropout, no DoRA, not merged, not taken apart."""
    if module.disable_adapters or module.merged or module.lora_variant or len(module.active_adapters) != 1:
        return False
    weight, dropout = module.base_layer.weight, module.lora_dropout[module.active_adapters[0]]
    whole = not weight.requires_grad and module.base_layer.bias is None and not hasattr(weight, "full_tensor")
    return whole and (isinstance(dropout, nn.Identity) or not module.training)
