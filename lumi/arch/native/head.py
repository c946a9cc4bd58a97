"""`head.cpp`: the loss of an output head from states to gradients, by a CPU's matrix units."""

import ctypes
import functools
from typing import NamedTuple

import torch
from torch import Tensor

from lumi.arch.native.attention import has_matrix_units
from lumi.arch.native.build import load_library

MULTIPLE = 32
"""Model widths that it takes."""


class _Call(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int64) for name in ("n", "d", "n_vocab")),
        *((name, ctypes.c_void_p) for name in ("x", "w", "targets", "scales", "nll", "grad_x", "grad_w", "memory")),
        ("n_threads", ctypes.c_int32),
    )


class HeadLoss(NamedTuple):
    """(N,) float32 in nats; where they were wanted the gradients of its sum, each row times its scale: (N, D) and (V, D)."""

    nll: Tensor
    grad_rows: Tensor | None
    grad_weight: Tensor | None


def takes_states(rows: Tensor) -> bool:
    """Whether the kernel takes these states (N, D)."""
    return rows.device.type == "cpu" and rows.numel() > 0 and rows.shape[1] % MULTIPLE == 0 and ready()


@functools.cache
def ready() -> bool:
    """Whether there are matrix units, and a compiler made the kernel for them."""
    library = head_library() if has_matrix_units() else None
    return library is not None and bool(library.lumi_head_ready())


@functools.cache
def head_library() -> ctypes.CDLL | None:
    """The compiled kernel; None where it cannot be had. Without matrix units it is slow, and for tests only."""
    library = load_library("head", "the loss")
    if library is not None:
        library.lumi_head_bytes.argtypes = library.lumi_head_loss.argtypes = [ctypes.c_void_p]
        library.lumi_head_bytes.restype, library.lumi_head_loss.restype = ctypes.c_int64, None
        library.lumi_head_ready()  # asks Linux for the units, which a process may not use before
    return library


def head_loss(
    rows: Tensor,
    weight: Tensor,
    targets: Tensor,
    scales: Tensor | None = None,
    *,
    wants_rows: bool = True,
    wants_weight: bool = True,
) -> HeadLoss:
    """Cross-entropy of ``rows @ weight.T`` against targets, the factors of all products rounded to bfloat16.

    Args:
        rows: (N, D) on a CPU, D a multiple of 32, N above 0. weight: (V, D).
        targets: (N,) int64. scales: (N,), or None for 1.

    Raises:
        IndexError: a target is no row of the weight.
    """
    if int(targets.min()) < 0 or int(targets.max()) >= len(weight):
        raise IndexError(f"targets from {int(targets.min())} to {int(targets.max())}, of {len(weight)} rows")
    library = head_library()
    assert library is not None, "chosen only where it is there"
    x, w, targets = rows.float().contiguous(), weight.float().contiguous(), targets.contiguous()
    factors = None if scales is None else scales.float().contiguous()
    nll = torch.empty(len(x))
    found = HeadLoss(nll, torch.empty_like(x) if wants_rows else None, torch.empty_like(w) if wants_weight else None)
    pointers = [None if one is None else one.data_ptr() for one in (x, w, targets, factors, *found)]
    call = _Call(len(x), x.shape[1], len(w), *pointers, None, torch.get_num_threads())
    memory = torch.empty(library.lumi_head_bytes(ctypes.byref(call)), dtype=torch.uint8)
    call.memory = memory.data_ptr()
    library.lumi_head_loss(ctypes.byref(call))
    grad_rows = None if found.grad_rows is None else found.grad_rows.to(rows.dtype)
    return found._replace(grad_rows=grad_rows)
