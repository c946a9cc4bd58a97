"""Next-token loss: the only place in Lumi that shifts.

Position t - 1 predicts token t. Data never holds shifted labels, so nothing can be shifted twice. The loss never holds all
logits: rows are taken in chunks, and each chunk's gradient is made in the forward pass while its logits are still there
(the idea of Liger-Kernel's fused linear cross-entropy, arXiv:2410.10989). A vocabulary of 32768 would otherwise take 4 bytes
x 32768 per token three times over, more than everything else in a small model.

The same is done in four ways: by a CPU's matrix units (`lumi.arch.native.head`, bfloat16), on a CPU as products of PyTorch with
C++ between them, on a GPU with a Triton kernel between them (`lumi.arch.slopes`), and by PyTorch's operations alone.
"""

import functools
import importlib.util
import logging
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from lumi.arch import native
from lumi.arch.native.head import HeadLoss, head_loss, takes_states

log = logging.getLogger(__name__)

CHUNK_BYTES = {"cpu": 32 * 2**20, "cuda": 256 * 2**20}
"""Logits held at once, in the type of the products: near the cache of a CPU, and large enough products for a GPU."""

_COPIES = 5
"""PyTorch's operations on a GPU hold a chunk, and twice as float32, beside it."""

_PADDING = 16
"""Unused columns of a CPU's logits. Rows that lie a power of two apart share cache lines' sets: 10 to 15 % of the products."""

_TILE = {torch.float32: 1024, torch.bfloat16: 4096}
"""Columns of a CPU's logits made at once. MKL is a third slower on one product as wide as a vocabulary; of bfloat16, the
gradient of the head is."""


def next_token_loss(
    hidden: Tensor, weight: Tensor, tokens: Tensor, loss_mask: Tensor, *, nearly_all: bool = False
) -> tuple[Tensor, Tensor]:
    """Summed negative log-likelihood of the masked tokens, each given those before it.

    Args:
        hidden: (B, T, D) last hidden states.
        weight: (V, D) output head.
        tokens: (B, T) int64.
        loss_mask: (B, T) bool, True where the token *itself* is a target. Column 0 has no predecessor and is ignored.
        nearly_all: most tokens are targets. A GPU then computes the few others too, which costs less than to wait for their
            number; the result is the same.

    Returns:
        The sum in nats (scalar float32, differentiable once) and the number of targets (scalar int64). The mean is left to
        the caller, who may have to add up micro-batches and ranks first.
    """
    if not torch.is_grad_enabled():
        # A custom function is told that a parameter wants a gradient even here, and would make one for nothing.
        hidden, weight = hidden.detach(), weight.detach()
    if nearly_all and (kernel := _kernel(hidden)) is not None:
        targets = torch.full_like(tokens, kernel.NO_TARGET)
        targets[:, :-1] = tokens[:, 1:].where(loss_mask[:, 1:], kernel.NO_TARGET)
        nll: Tensor = _ChunkedCrossEntropy.apply(hidden.flatten(0, 1), weight, targets.flatten())[0]
        return nll, loss_mask[:, 1:].sum()
    rows, targets = _shift(hidden, tokens, loss_mask)
    nll = _ChunkedCrossEntropy.apply(rows, weight, targets)[0]
    return nll, torch.full((), targets.numel(), device=nll.device)


@torch.no_grad()
def token_nll(hidden: Tensor, weight: Tensor, tokens: Tensor) -> Tensor:
    """Negative log-likelihood of every token given those before it: (B, T) float32 in nats, 0 in column 0."""
    everywhere = torch.ones_like(tokens, dtype=torch.bool)
    rows, targets = _shift(hidden.detach(), tokens, everywhere)
    nll = torch.zeros(tokens.shape, device=hidden.device)
    nll[:, 1:] = _ChunkedCrossEntropy.apply(rows, weight.detach(), targets)[1].view(tokens.shape[0], -1)
    return nll


def target_nll(hidden: Tensor, weight: Tensor, tokens: Tensor, loss_mask: Tensor) -> Tensor:
    """Negative log-likelihood of each masked token, differentiable one by one: what preference losses are made of.

    Costs a second pass through the head in the backward pass, because the slope of each row is known only then.

    Args:
        hidden, weight, tokens, loss_mask: as in `next_token_loss`.

    Returns:
        (N,) float32 in nats, in the order of ``tokens[:, 1:][loss_mask[:, 1:]]``.
    """
    rows, targets = _shift(hidden, tokens, loss_mask)
    return _ChunkedRowNll.apply(rows, weight, targets)


@torch.no_grad()
def target_scores(hidden: Tensor, weight: Tensor, tokens: Tensor, loss_mask: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probability in nats (N,) float32 of every supervised token, and whether it was the likeliest one (N,) bool.

    Both in the order of `target_nll`; for evaluation, without a gradient. Arguments as in `next_token_loss`.
    """
    rows, targets = _shift(hidden, tokens, loss_mask)
    log_probs = torch.empty(len(rows), dtype=torch.float32, device=rows.device)
    likeliest = torch.empty(len(rows), dtype=torch.bool, device=rows.device)
    for part, x, scratch in _chunks(rows, weight):
        logits = _logits(x, weight, scratch)[:, : len(weight)].float()
        log_probs[part] = logits.log_softmax(dim=-1).gather(1, targets[part, None]).squeeze(1)
        likeliest[part] = logits.argmax(dim=-1) == targets[part]
    return log_probs, likeliest


def _shift(hidden: Tensor, tokens: Tensor, loss_mask: Tensor) -> tuple[Tensor, Tensor]:
    """Pair each target with the state before it: rows (N, D) and targets (N,)."""
    row, column = loss_mask[:, 1:].nonzero(as_tuple=True)
    places = row * tokens.shape[1] + column
    return hidden.flatten(0, 1).index_select(0, places), tokens.flatten().index_select(0, places + 1)


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Cross-entropy of ``rows @ weight.T`` against targets, without ever holding all logits.

    Returns the sum and, not differentiable, the value of each row.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Rows (N, D), weight (V, D), targets (N,) -> scalar and (N,), float32."""
        wants_rows, wants_weight = ctx.needs_input_grad[:2]
        dtype = _product_dtype(rows, weight)
        nll, *grads = _measure(rows, weight, targets, dtype, wants_rows=wants_rows, wants_weight=wants_weight)
        ctx.save_for_backward(*grads)
        ctx.weight_dtype, ctx.used = weight.dtype, False
        ctx.mark_non_differentiable(nll)
        return nll.sum(), nll

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        """Scale what the forward pass made, in place: it is the largest array of a small model."""
        assert not ctx.used, "next_token_loss is differentiable once"
        ctx.used = True
        grad_rows, grad_weight = ctx.saved_tensors
        return (
            None if grad_rows is None else grad_rows.mul_(grads[0].to(grad_rows.dtype)),
            None if grad_weight is None else grad_weight.mul_(grads[0]).to(ctx.weight_dtype),
            None,
        )


class _ChunkedRowNll(torch.autograd.Function):
    """As `_ChunkedCrossEntropy`, but every row has a gradient of its own; logits are made again in the backward pass."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
        """Rows (N, D), weight (V, D), targets (N,) -> (N,) float32."""
        ctx.save_for_backward(rows, weight, targets)
        ctx.dtype = _product_dtype(rows, weight)
        return _measure(rows, weight, targets, ctx.dtype).nll

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        """Each row's slope, by the gradient of its value."""
        rows, weight, targets = ctx.saved_tensors
        wants_rows, wants_weight = ctx.needs_input_grad[:2]
        found = _measure(rows, weight, targets, ctx.dtype, grads[0], wants_rows=wants_rows, wants_weight=wants_weight)
        return found.grad_rows, None if found.grad_weight is None else found.grad_weight.to(weight.dtype), None


def _measure(
    rows: Tensor,
    weight: Tensor,
    targets: Tensor,
    dtype: torch.dtype,
    scales: Tensor | None = None,
    *,
    wants_rows: bool = False,
    wants_weight: bool = False,
) -> HeadLoss:
    """Cross-entropy of each row, and where they are wanted the gradients of the sum, each row times its scale.

    Args:
        rows: (N, D). weight: (V, D). targets: (N,) int64. scales: (N,), or None for 1.
        dtype: of the products.
    """
    trained = _trained_rows(weight) if wants_weight else None
    if dtype == torch.bfloat16 and takes_states(rows):
        whole = wants_weight and trained is None
        found = head_loss(rows, weight, targets, scales, wants_rows=wants_rows, wants_weight=whole)
        if trained is None:
            return found
        return found._replace(grad_weight=_few_rows(rows, weight, targets, scales, found.nll, trained))
    matrix = weight.to(dtype)
    nll = rows.new_empty(rows.shape[0], dtype=torch.float32)
    grad_rows = torch.empty_like(rows) if wants_rows else None
    # Sums over all chunks: in float32 even when the products are 16 bit.
    grad_weight = torch.zeros_like(weight, dtype=torch.float32) if wants_weight else None
    with torch.autocast(rows.device.type, enabled=False):
        for part, x, scratch in _chunks(rows, matrix):
            scale, wanted = None if scales is None else scales[part], wants_rows or wants_weight
            logits = _logits(x, matrix, scratch)
            nll[part], slope = _nll_and_slope(logits, len(matrix), targets[part], scale, wanted=wanted)
            slope = slope.to(dtype) if wanted else slope
            if grad_rows is not None:
                _product(grad_rows[part], slope, matrix)
            if grad_weight is not None:
                _add_gradient(grad_weight, slope, x, trained)
    return HeadLoss(nll, grad_rows, grad_weight)


def _few_rows(
    rows: Tensor, weight: Tensor, targets: Tensor, scales: Tensor | None, nll: Tensor, trained: Tensor
) -> Tensor:
    """Gradient of the head (V, D) where only some of its rows are trained, from what each token's loss has turned out to be."""
    with torch.autocast("cpu", enabled=False):  # the factors are rounded as the others are, by hand
        x, few = rows.bfloat16().float(), weight[trained].bfloat16().float()
        sums = nll + (x * weight[targets].bfloat16().float()).sum(dim=1)  # (N,) logarithms of the sums of exponentials
        slope = (x @ few.T - sums.unsqueeze(1)).exp() - (targets.unsqueeze(1) == trained).float()  # (N, rows trained)
        if scales is not None:
            slope *= scales.unsqueeze(1)
        gradient = torch.zeros(weight.shape)
        gradient[trained] = slope.T @ x
    return gradient


def _product_dtype(rows: Tensor, weight: Tensor) -> torch.dtype:
    """Of the products with the head: what autocast says where it is on."""
    device = rows.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype


def _chunks(rows: Tensor, head: Tensor) -> Iterator[tuple[slice, Tensor, Tensor | None]]:
    """Which rows, the rows (n, D) in the head's type, and on a CPU memory for their logits, the same for all chunks."""
    on_cpu = rows.device.type == "cpu" and head.dtype in _TILE
    row_bytes = head.itemsize * head.shape[0]
    size = max(1, CHUNK_BYTES.get(rows.device.type, CHUNK_BYTES["cuda"]) // row_bytes)
    scratch = head.new_empty(min(size, len(rows)), head.shape[0] + _PADDING) if on_cpu else None
    for start in range(0, len(rows), size):
        part = slice(start, start + size)
        x = rows[part].to(head.dtype)
        yield part, x, None if scratch is None else scratch[: len(x)]


def _logits(x: Tensor, head: Tensor, scratch: Tensor | None) -> Tensor:
    """States (n, D) -> logits (n, V); in ``scratch``, with further columns of minus infinity, where there is one."""
    n_vocab = head.shape[0]
    if scratch is None:
        return x @ head.T
    for tile in _tiles(n_vocab, head.dtype):
        torch.mm(x, head[tile].T, out=scratch[:, tile])
    scratch[:, n_vocab:] = -torch.inf
    return scratch


def _tiles(n_vocab: int, dtype: torch.dtype) -> Iterator[slice]:
    """Parts of the vocabulary that a CPU multiplies at once."""
    for start in range(0, n_vocab, _TILE[dtype]):
        yield slice(start, min(start + _TILE[dtype], n_vocab))


def _nll_and_slope(
    logits: Tensor, n_vocab: int, targets: Tensor, scale: Tensor | None = None, *, wanted: bool = True
) -> tuple[Tensor, Tensor]:
    """Negative log-likelihoods (n,) float32; and, if wanted, in place of the logits (n, V or more) their slope (n, V).

    Args:
        targets: (n,). scale: (n,), a factor of each row's slope.
    """
    if logits.shape[1] == n_vocab + _PADDING:  # a CPU's
        nll = native.slopes_(logits, targets, scale, wanted=wanted)
        if nll is not None:
            return nll, logits[:, :n_vocab]
    if (kernel := _kernel(logits)) is not None:
        return kernel.slopes_(logits, targets, scale, wanted=wanted), logits
    target = targets.unsqueeze(1)  # (n, 1)
    numbers = logits.float()
    chosen = numbers.gather(1, target).squeeze(1)
    highest = numbers.amax(dim=1)
    probabilities = torch.softmax(numbers, dim=1, out=numbers if numbers is logits else None)
    # The largest probability is exp(0) over the sum of exponentials. Not by logsumexp: on a CPU that costs four softmaxes.
    nll = highest - probabilities.amax(dim=1).log() - chosen
    if wanted:
        probabilities.scatter_add_(1, target, probabilities.new_full(target.shape, -1.0))
        if scale is not None:
            probabilities.mul_(scale.unsqueeze(1))
    return nll, probabilities[:, :n_vocab]


@functools.cache
def _gpu_kernel() -> ModuleType | None:
    """`lumi.arch.slopes`; None where Triton is missing or fails: PyTorch's operations do the same, in twice the time."""
    if importlib.util.find_spec("triton") is None:
        return None
    try:
        from lumi.arch import slopes

        slopes.try_out()
    except Exception as error:  # noqa: BLE001  # whatever a compiler and a driver bring; the result does not depend on it
        log.warning("the loss is left to PyTorch's operations, which are slower: %s: %s", type(error).__name__, error)
        return None
    return slopes


def _kernel(like: Tensor) -> ModuleType | None:
    """What makes a loss of logits in one pass where this tensor is, if anything does."""
    return _gpu_kernel() if like.is_cuda and like.dtype != torch.float64 else None


def held_bytes() -> int:
    """On a GPU, at most, beside what the loss keeps for its backward pass."""
    return CHUNK_BYTES["cuda"] * (_COPIES if _gpu_kernel() is None else 1)


def _product(result: Tensor, left: Tensor, right: Tensor) -> None:
    """``result = left @ right``, without a copy where the types allow it."""
    if result.dtype == left.dtype:
        torch.mm(left, right, out=result)
    elif result.dtype == torch.float32 and _kernel(left) is not None:
        torch.mm(left, right, out_dtype=torch.float32, out=result)
    else:
        result.copy_(left @ right)


def _trained_rows(weight: Tensor) -> Tensor | None:
    """Ids of the only rows of the head that are trained (`lumi.arch.lora`); None for all."""
    rows: Tensor | None = getattr(weight, "trained_rows", None)
    return None if rows is None else rows.to(weight.device)


def _add_gradient(total: Tensor, slope: Tensor, x: Tensor, trained: Tensor | None) -> None:
    """Add the gradient of the head (V, D): slopes (n, V) by states (n, D)."""
    if trained is None:
        _add_product(total, slope.T, x)
    else:
        total[trained] += slope[:, trained].T @ x


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """``total += left @ right``, in one kernel where the types allow it."""
    if left.dtype == total.dtype:
        torch.addmm(total, left, right, out=total)
    elif left.device.type == "cpu" and left.dtype in _TILE:
        for tile in _tiles(len(left), left.dtype):
            total[tile] += left[tile] @ right
    elif _kernel(left) is not None:
        torch.addmm(total, left, right, out_dtype=total.dtype, out=total)
    else:
        total += left @ right
