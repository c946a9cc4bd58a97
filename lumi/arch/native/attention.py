"""`attention.cpp` as an operator of PyTorch: differentiable, and one node in what `torch.compile` makes."""

import ctypes
import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lumi.arch.native.build import load_library

_BLOCK = 64
"""The kernel reads sequences that are filled up to whole blocks of queries."""

MULTIPLE, MOST = 32, 256
"""Head sizes that it takes."""


class _Call(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int64) for name in ("n_rows", "n_tokens", "padded", "n_heads", "n_kv_heads", "e")),
        *((name, ctypes.c_int64 * 2) for name in ("q", "k", "v")),
        ("n_threads", ctypes.c_int32),
    )


def takes(d_head: int) -> bool:
    """Whether the kernel takes heads of this size."""
    return d_head % MULTIPLE == 0 and d_head <= MOST


def has_matrix_units() -> bool:
    """Whether the CPU multiplies bfloat16 matrices in units of their own, and the system lets this process use them."""
    found = getattr(torch.cpu, "get_capabilities", dict)()  # older PyTorch does not say
    return bool(found.get("amx_bf16"))


def ready() -> bool:
    """Whether there are matrix units, and a compiler made the kernel for them."""
    library = attention_library() if has_matrix_units() else None
    return library is not None and bool(library.lumi_attention_ready())


@functools.cache
def attention_library() -> ctypes.CDLL | None:
    """The compiled kernel; None where it cannot be had. Without matrix units it is slow, and for tests only."""
    library = load_library("attention", "attention")
    if library is not None:
        pointer = ctypes.c_void_p
        library.lumi_attention_ready.argtypes = []
        library.lumi_attention_bytes.argtypes = [pointer, ctypes.c_int]
        library.lumi_attention_bytes.restype = ctypes.c_int64
        library.lumi_attend.argtypes, library.lumi_attend.restype = [pointer] * 8, None
        library.lumi_attend_backward.argtypes, library.lumi_attend_backward.restype = [pointer] * 12, None
        library.lumi_attention_ready()  # asks Linux for the units, which a process may not use before
    return library


def first_visible(positions: Tensor) -> Tensor:
    """Where each token's document begins, as the kernel reads it: (B, T) positions -> (B, T or a little more) int32."""
    n_tokens = positions.shape[1]
    first = torch.arange(n_tokens, device=positions.device) - positions
    return torch.nn.functional.pad(first, (0, -n_tokens % _BLOCK), value=n_tokens).to(torch.int32)


def attend(q: Tensor, k: Tensor, v: Tensor, first: Tensor) -> Tensor:
    """Causal attention within documents.

    Args:
        q: (B, T, H, E) bfloat16 on a CPU. k, v: (B, T, K, E), likewise.
        first: of `first_visible`.

    Returns:
        (B, T, H, E).
    """
    return _attend(q, k, v, first)[0]


@torch.library.custom_op("lumi::attend", mutates_args=(), device_types="cpu")
def _attend(q: Tensor, k: Tensor, v: Tensor, first: Tensor) -> tuple[Tensor, Tensor]:
    """Also the logarithm of each query's sum of exponentials, (B, H, T or a little more) float32."""
    q, k, v = _dense(q), _dense(k), _dense(v)
    out, sums = _empty(q, k, v, first)
    _run("lumi_attend", (q, k, v, first.contiguous(), out, sums))
    return out, sums


@_attend.register_fake
def _empty(q: Tensor, _k: Tensor, _v: Tensor, first: Tensor) -> tuple[Tensor, Tensor]:
    return q.new_empty(q.shape), q.new_empty(q.shape[0], q.shape[2], first.shape[1], dtype=torch.float32)


@torch.library.custom_op("lumi::attend_backward", mutates_args=(), device_types="cpu")
def _attend_backward(
    q: Tensor, k: Tensor, v: Tensor, first: Tensor, out: Tensor, sums: Tensor, grad: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k and v from that of ``out``."""
    q, k, v = _dense(q), _dense(k), _dense(v)
    grads = (q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape))
    rest = (first.contiguous(), out.contiguous(), sums.contiguous(), grad.contiguous())
    _run("lumi_attend_backward", (q, k, v, *rest, *grads))
    return grads


@_attend_backward.register_fake
def _empty_grads(q: Tensor, k: Tensor, v: Tensor, *_rest: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape)


def _save(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs, *output)


def _pull(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
    return (*_attend_backward(*ctx.saved_tensors, grad), None)


_attend.register_autograd(_pull, setup_context=_save)


def _dense(x: Tensor) -> Tensor:
    """Heads one after another; rows and tokens may lie further apart."""
    return x if x.stride(3) == 1 and x.stride(2) == x.shape[3] else x.contiguous()


def _run(name: str, tensors: Sequence[Tensor]) -> None:
    """Call a function of the library with tensors, of which the first four are q, k, v and ``first``."""
    library = attention_library()
    assert library is not None, "chosen only where it is there"
    q, k, v, first = tensors[:4]
    n_rows, n_tokens, n_heads, d_head = q.shape
    shape = (n_rows, n_tokens, first.shape[1], n_heads, k.shape[2], d_head)
    n_threads = torch.get_num_threads()
    call = ctypes.byref(_Call(*shape, *((x.stride(0), x.stride(1)) for x in (q, k, v)), n_threads))
    n_bytes = library.lumi_attention_bytes(call, name == "lumi_attend_backward")
    memory = torch.empty(n_threads * n_bytes, dtype=torch.uint8)
    getattr(library, name)(call, *(tensor.data_ptr() for tensor in (*tensors, memory)))
