"""Causal attention within documents, behind one function with several kernels.

Windows hold several documents. A query sees the keys of its own document up to itself, and positions start again at each
document, so that a packed document gives the same logits as the document alone. Kernels:

- ``flash``: flash-attn's variable-length kernel (optional package; CUDA, 16 bit).
- ``varlen``: the same kernel from PyTorch itself (CUDA, 16 bit).
- ``native``: Lumi's own for CPUs with matrix units (bfloat16; `lumi.arch.native.attention`).
- ``sdpa``: `scaled_dot_product_attention`, with a mask only where a window holds more than one document.
- ``reference``: the formula, in float32, for tests.
"""

import dataclasses
import functools
import importlib.util
import inspect
import logging
import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from lumi.arch.config import AttentionBackend
from lumi.arch.native import attention as native
from lumi.errors import ConfigError

try:
    from torch.nn.attention import varlen
except ImportError:  # a build without it
    varlen = None

log = logging.getLogger(__name__)

_FAST = ("flash", "varlen", "native")
"""Kernels that not every machine has, best first."""

_KNOWN = frozenset(inspect.signature(varlen.varlen_attn).parameters) if varlen else frozenset[str]()
"""What this PyTorch's kernel can be told; its arguments have changed from version to version."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layout:
    """Where documents lie in a batch; the same for every layer, hence made once per forward pass.

    Attributes:
        positions: (B, T) int64, from 0 at the start of each document or window.
        mask: (B, 1, T, T) bool, True where a query may look; None where plain causal order says it all.
        boundaries: (number of documents + 1,) int32 offsets into the flattened B * T tokens, for variable-length kernels.
        longest: bound of a document's length in tokens, for variable-length kernels.
        first: (B, T or a little more) int32, where each token's document begins, for ``native``.
    """

    positions: Tensor
    mask: Tensor | None = None
    boundaries: Tensor | None = None
    longest: int = 0
    first: Tensor | None = None


def document_boundaries(doc_ids: Tensor) -> Tensor:
    """Where documents begin in the flattened windows (B, T), and their end: (number of documents + 1,) int32.

    How many they are is known where they are only: a GPU is waited for, with all that it was given before.
    """
    return _boundaries(_starts(doc_ids, doc_ids.shape, doc_ids.device))


def _boundaries(starts: Tensor) -> Tensor:
    places = starts.flatten().nonzero().squeeze(1)
    return torch.cat((places, places.new_full((1,), starts.numel()))).to(torch.int32)


def _starts(doc_ids: Tensor | None, shape: tuple[int, ...], device: torch.device) -> Tensor:
    """(B, T) bool, True at the first token of each document and of each window."""
    starts = torch.zeros(shape, dtype=torch.bool, device=device)
    starts[:, 0] = True
    if doc_ids is not None:
        starts[:, 1:] = doc_ids[:, 1:] != doc_ids[:, :-1]
    return starts


def layout_documents(
    doc_ids: Tensor | None,
    shape: tuple[int, int],
    device: torch.device,
    backend: str,
    boundaries: Tensor | None = None,
) -> Layout:
    """The layout for training and scoring.

    Args:
        doc_ids: (B, T) equal within a document, or None when every row is one document.
        shape: (B, T).
        backend: a resolved name, not ``auto``.
        boundaries: `document_boundaries` of ``doc_ids``, where they are known already.
    """
    n_rows, n_tokens = shape
    index = torch.arange(n_tokens, device=device).expand(n_rows, n_tokens)
    starts = _starts(doc_ids, shape, device)
    positions = index - torch.where(starts, index, 0).cummax(dim=1).values
    if backend in ("flash", "varlen"):
        boundaries = _boundaries(starts) if boundaries is None else boundaries
        # A bound is enough, and one that never changes: the real length would be fetched from the device, and be another
        # constant for every batch that is compiled.
        return Layout(positions=positions, boundaries=boundaries, longest=n_tokens)
    if backend == "native":
        return Layout(positions=positions, first=native.first_visible(positions))
    if doc_ids is None or not bool(starts[:, 1:].any()):
        return Layout(positions=positions)
    same = doc_ids.unsqueeze(2) == doc_ids.unsqueeze(1)  # (B, T, T)
    return Layout(positions=positions, mask=same.tril().unsqueeze(1))


def attend(q: Tensor, k: Tensor, v: Tensor, layout: Layout, backend: str) -> Tensor:
    """Causal attention within documents.

    Args:
        q: (B, T, H, E). k, v: (B, T, K, E).
        backend: a resolved name; all but ``sdpa`` and ``reference`` need a layout that was made for them.

    Returns:
        (B, T, H, E).
    """
    if backend in ("flash", "varlen") and layout.boundaries is not None:
        kernel = _flash if backend == "flash" else _varlen
        out = kernel(q.flatten(0, 1), k.flatten(0, 1), v.flatten(0, 1), layout.boundaries, layout.longest)
        return out.view_as(q)
    if backend == "native" and layout.first is not None:
        return native.attend(q, k, v, layout.first)
    heads_first = (q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))  # (B, heads, ·, E)
    function = _reference if backend == "reference" else _sdpa
    return function(*heads_first, layout.mask).transpose(1, 2)  # (B, T, H, E)


def _sdpa(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    grouped = q.shape[1] != k.shape[1]
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None, enable_gqa=grouped)


def _reference(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """Attention as the formula says (arXiv:1706.03762, equation 1), in float32: (B, H, T, E)."""
    if mask is None:
        mask = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool, device=q.device).tril()
    share = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(share, dim=1).float(), v.repeat_interleave(share, dim=1).float()
    scores = q.float() @ k.transpose(2, 3) / math.sqrt(q.shape[-1])  # (B, H, T, S)
    return (scores.masked_fill(~mask, -torch.inf).softmax(dim=-1) @ v).type_as(q)


def _flash(q: Tensor, k: Tensor, v: Tensor, boundaries: Tensor, longest: int) -> Tensor:
    from flash_attn import flash_attn_varlen_func  # pyright: ignore[reportMissingImports]  # optional

    return flash_attn_varlen_func(q, k, v, boundaries, boundaries, longest, longest, causal=True)


def _varlen(q: Tensor, k: Tensor, v: Tensor, boundaries: Tensor, longest: int) -> Tensor:
    assert varlen is not None, "chosen only where it is there"
    if (
        q.shape[1] != k.shape[1] and "enable_gqa" not in _KNOWN
    ):  # an older PyTorch: every query head needs keys of its own
        share = q.shape[1] // k.shape[1]
        k, v = k.repeat_interleave(share, dim=1), v.repeat_interleave(share, dim=1)
    settings: dict[str, Any] = {"window_size": (-1, 0)} if "window_size" in _KNOWN else {"is_causal": True}
    if "enable_gqa" in _KNOWN:
        settings["enable_gqa"] = True
    out = varlen.varlen_attn(q, k, v, boundaries, boundaries, longest, longest, **settings)
    assert isinstance(out, Tensor), "no auxiliary output was asked for"
    return out


def resolve_backend(requested: AttentionBackend, device: torch.device, dtype: torch.dtype, d_head: int) -> str:
    """The kernels to use here for heads of a size; which ones is logged once.

    Raises:
        ConfigError: some were asked for by name that this machine, device or dtype does not have.
    """
    return _resolve(requested, device.type, dtype, d_head)


@functools.cache
def _resolve(requested: AttentionBackend, device_type: str, dtype: torch.dtype, d_head: int) -> str:
    # What any of them lacks is only asked where it matters: the native one would be compiled.
    if requested in _FAST and (reason := _lacking(requested, device_type, dtype, d_head)):
        raise ConfigError(f"arch.attention={requested}", reason, "use arch.attention=auto")
    chosen = requested
    if requested == "auto":
        chosen = next((name for name in _FAST if not _lacking(name, device_type, dtype, d_head)), "sdpa")
    log.info("attention: %s (%s, %s)", chosen, device_type, str(dtype).removeprefix("torch."))
    return chosen


def _lacking(backend: str, device_type: str, dtype: torch.dtype, d_head: int) -> str:
    """Why a kernel cannot be used, or nothing."""
    if backend == "native":
        return _native_lacking(device_type, dtype, d_head)
    if device_type != "cuda":
        return f"needs a CUDA device, this one is {device_type}"
    if dtype not in (torch.float16, torch.bfloat16):
        return f"needs 16-bit precision, this run has {dtype}"
    module = "flash_attn" if backend == "flash" else "torch.nn.attention.varlen"
    if importlib.util.find_spec(module) is None:
        return f"needs {module}, which is not installed" + (" (pip install flash-attn)" if backend == "flash" else "")
    return ""


def _native_lacking(device_type: str, dtype: torch.dtype, d_head: int) -> str:
    if device_type != "cpu":
        return f"needs a CPU, this device is {device_type}"
    if dtype != torch.bfloat16:
        return f"needs bfloat16, this run has {dtype}"
    if not native.takes(d_head):
        return f"needs heads of {native.MULTIPLE} to {native.MOST} features in steps of {native.MULTIPLE}, these have {d_head}"
    return "" if native.ready() else "needs a CPU with matrix units (AMX) and a C++ compiler"
