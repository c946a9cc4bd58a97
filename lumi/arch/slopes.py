"""The loss between its two products on a GPU, in one pass over the logits: what ``native/loss.cpp`` is on a CPU.

A row of logits is read twice, the second time from the cache, and written once, in its own type. PyTorch's operations go over
float32 copies of it six times, which takes longer than the products (docs/experiments.md). Importing this needs Triton, which
PyTorch brings along where it has CUDA.
"""

import torch
import triton  # pyright: ignore[reportMissingImports]  # comes with PyTorch for CUDA only
import triton.language as tl  # pyright: ignore[reportMissingImports]
from torch import Tensor

NO_TARGET = -1
"""In place of a target: the row counts nothing, and its slope is zero."""

_MOST_COLUMNS, _WARPS = 4096, 8


def slopes_(logits: Tensor, targets: Tensor, scales: Tensor | None = None, *, wanted: bool = True) -> Tensor:
    """Cross-entropy of each row of logits; in place of the logits its derivative by them, times a factor of each row.

    Args:
        logits: (N, V) of any floating type, each row contiguous; the arithmetic is float32.
        targets: (N,) int64, `NO_TARGET` among them. scales: (N,) float32, or None for 1.
        wanted: whether the derivative is; else the logits stay.

    Returns:
        (N,) float32 in nats.
    """
    n_rows, n_columns = logits.shape
    nll = torch.empty(n_rows, dtype=torch.float32, device=logits.device)
    if n_rows:
        block = min(_MOST_COLUMNS, triton.next_power_of_2(n_columns))
        factors = nll if scales is None else scales.float().contiguous()  # not read where there are none
        _kernel[(n_rows,)](  # pyright: ignore[reportIndexIssue]  # as many programs as rows
            logits, targets.contiguous(), factors, nll, n_columns, logits.stride(0),
            scales is not None, wanted, block, num_warps=_WARPS,
        )  # fmt: skip
    return nll


def try_out() -> None:
    """Compile and compare with the formula on a few rows: compiler, driver and chip are the user's.

    Raises:
        ArithmeticError: something is computed wrongly.
    """
    generator = torch.Generator().manual_seed(0)
    for dtype, slack in ((torch.float32, 1e-4), (torch.bfloat16, 1e-2)):
        # More columns than a block has, and not a multiple of anything.
        logits = (3 * torch.randn(4, _MOST_COLUMNS + 77, generator=generator)).to("cuda", dtype)
        targets = torch.tensor([5, NO_TARGET, 0, _MOST_COLUMNS + 76], device="cuda")
        counts, log_probs = (targets >= 0).unsqueeze(1), logits.float().log_softmax(dim=1)
        chosen = torch.zeros_like(log_probs).scatter_(1, targets.clamp(min=0).unsqueeze(1), 1.0)
        nll = slopes_(logits, targets)
        errors = [nll + ((log_probs * chosen).sum(dim=1) * counts[:, 0]), logits - (log_probs.exp() - chosen) * counts]
        if dtype == torch.bfloat16:
            x = torch.randn(logits.shape[1], 64, generator=generator).to("cuda", dtype)
            exact, ones = logits.float() @ x.float(), torch.ones(4, 64, device="cuda")
            errors += [torch.mm(logits, x, out_dtype=torch.float32) - exact]
            errors += [torch.addmm(ones, logits, x, out_dtype=torch.float32, out=ones) - exact - 1]
        if not all(bool((error.abs() <= slack).all()) for error in errors):
            raise ArithmeticError(f"{dtype} is computed wrongly")


@triton.jit
def _kernel(  # Triton reads it, and has types of its own
    logits, targets, scales, nll, n_columns, stride,
    scaled: tl.constexpr, wanted: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    """One row a program."""
    row = tl.program_id(0).to(tl.int64)
    target = tl.load(targets + row)
    counts = target >= 0
    logits += row * stride
    # Before anything is overwritten: the sums below make every thread wait for all.
    chosen = tl.load(logits + target, mask=counts, other=0.0).to(tl.float32)
    highest, total = -float("inf"), 0.0
    for start in range(0, n_columns, block):
        columns = start + tl.arange(0, block)
        x = tl.load(logits + columns, mask=columns < n_columns, other=-float("inf")).to(tl.float32)
        top = tl.maximum(highest, tl.max(x, axis=0))
        total = total * tl.exp(highest - top) + tl.sum(tl.exp(x - top), axis=0)
        highest = top
    tl.store(nll + row, tl.where(counts, tl.log(total) + highest - chosen, 0.0))
    if wanted:
        factor = tl.where(counts, 1.0, 0.0)
        if scaled:
            factor *= tl.load(scales + row)
        for start in range(0, n_columns, block):
            columns = start + tl.arange(0, block)
            inside = columns < n_columns
            x = tl.load(logits + columns, mask=inside, other=-float("inf")).to(tl.float32)
            slope = tl.exp(x - highest) / total - tl.where(columns == target, 1.0, 0.0)
            tl.store(logits + columns, slope * factor, mask=inside)
