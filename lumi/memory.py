"""How much memory training will take at its highest: what is there, plus what is counted, plus what is known to be lost.

What the backward pass needs is not guessed from the architecture. Autograd hands over every array that it keeps; those of one
and of two windows are counted in a forward pass without a backward one, and the rest is proportion.
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lumi.arch.loss import held_bytes

Loss = Callable[[Any], tuple[Tensor, Tensor]]

_LIBRARIES_BYTES = 100 * 10**6
"""What MKL and OpenMP take for themselves in the first steps on a CPU."""

_SCATTERED = {False: 1.2, True: 1.1}
"""CPU: the heap's size for each kept byte, of plain and of compiled blocks. Arrays of many sizes come and go, and gradients
that outlive them lie between; a compiled block makes few. Measured on nano, micro and tiny (docs/results.md)."""

_COMPILED = 0.8
"""What compiled blocks keep of what plain ones keep (nano 0.85, tiny 0.78): the count is of plain ones."""


def estimate_memory(
    module: nn.Module, loss: Loss, batch: Any, *, optimizer_bytes: int, compiled: bool, accumulates: bool
) -> int:
    """Bytes at the highest point of training: of the process on a CPU, of the device's allocations on a GPU.

    Args:
        module: the stage, on its device.
        loss: of a batch, as the stage computes it.
        batch: as in training, on the device.
        optimizer_bytes: of its state.
        compiled: whether the blocks will be.
        accumulates: gradients stay over several micro-batches.
    """
    device = next(module.parameters()).device
    resident = resident_bytes(device)
    kept = kept_bytes(module, loss, batch) * (_COMPILED if compiled else 1.0)
    gradients = sum(p.nbytes for p in module.parameters() if p.requires_grad)
    if device.type != "cpu":
        activations = kept + held_bytes()
        # Without accumulation the blocks' arrays are gone when the last gradients come.
        highest = activations + gradients if accumulates else max(activations, gradients)
        return round(resident + optimizer_bytes + highest)
    return round(resident + _LIBRARIES_BYTES + optimizer_bytes + gradients + kept * _SCATTERED[compiled])


def kept_bytes(module: nn.Module, loss: Loss, batch: Any) -> int:
    """Bytes that the forward pass keeps for the backward one, without the weights, for the whole batch."""
    n_rows = len(batch["tokens"])
    one = _kept(module, loss, batch, 1)
    if n_rows == 1:
        return one
    return one + (_kept(module, loss, batch, 2) - one) * (n_rows - 1)  # some of it does not grow with the batch


def _kept(module: nn.Module, loss: Loss, batch: Any, n_rows: int) -> int:
    weights = {p.untyped_storage().data_ptr() for p in module.parameters()}
    found: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            found[storage.data_ptr()] = storage.nbytes()
        return tensor.detach()  # an output that its own graph held would never be freed

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        graph = loss({key: value[:n_rows] for key, value in batch.items()})
    del graph  # alive until here, or storages would be given out twice
    return sum(found.values())


def resident_bytes(device: torch.device) -> int:
    """What is taken now: by the process on a CPU, by allocations on a GPU."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    if not sys.platform.startswith("linux"):
        return 0  # no figure without a further package: the estimate is then what training adds
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
