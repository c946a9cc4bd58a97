"""What is done in C++ on a CPU.

The decoding step (`decode.cpp`), the loss between its products (`loss.cpp`), and by matrix units attention (`attention.cpp`,
whose Python is `lumi.arch.native.attention`) and the whole loss (`head.cpp`, `lumi.arch.native.head`).

There is no build at installation: a compiler makes each library in a few seconds when it is first needed, and it stays in
``~/.cache/lumi`` for this source, compiler and processor. Without a compiler, or for a shape or type that it does not take,
PyTorch's operations do the same.
"""

import ctypes
import os
import threading
import weakref
from collections.abc import Sequence

import torch
from torch import Tensor

from lumi.arch.config import DecoderConfig
from lumi.arch.native.build import load_library

_MULTIPLE = 16  # floats in the widest vector


class _Shape(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int32) for name in ("n_layers", "d_model", "n_heads", "n_kv_heads", "d_head", "d_ff")),
        ("vocab_size", ctypes.c_int32),
        ("most_rows", ctypes.c_int32),
        ("norm_eps", ctypes.c_float),
    )


class NativeStep:
    """`FusedDecoder.decode` of float32 weights on a CPU in one call; give it what `decode_library` gives.

    Args:
        config: with a shape that `fits`.
        layers: for each layer its six weights, matrices as (outputs, inputs): norm, queries with keys and values, output,
            norm, gate with up, down.
        rest: embedding, last norm, head, and cosines and sines, each (places, E / 2).
        n_threads: the bits do not depend on it.
    """

    def __init__(
        self,
        library: ctypes.CDLL,
        config: DecoderConfig,
        layers: Sequence[Sequence[Tensor]],
        rest: Sequence[Tensor],
        n_threads: int,
    ) -> None:
        self._library, self._config, self._n_threads = library, config, n_threads
        self._layers = [weight.contiguous() for layer in layers for weight in layer]
        self._rest = [weight.contiguous() for weight in rest]
        assert all(one.dtype == torch.float32 for one in (*self._layers, *self._rest)), "the kernel reads float32"
        self._lock = threading.Lock()
        self._most_rows = self._process = 0
        self._model = ctypes.c_void_p()

    def __call__(self, tokens: Tensor, lengths: Tensor, caches: Sequence[Tensor]) -> Tensor:
        """Logits (n, V) of what comes after ``tokens`` (n,) in rows that hold ``lengths`` (n,) tokens; both int64."""
        n, vocab_size = len(tokens), self._config.vocab_size
        logits = torch.empty(n, vocab_size)
        _, n_rows, _, max_len, _ = caches[0].shape
        tokens, lengths = tokens.contiguous(), lengths.contiguous()
        with self._lock:
            self._make_room(n, max_len)
            self._library.lumi_step(
                self._model,
                n,
                tokens.data_ptr(),
                lengths.data_ptr(),
                _pointers(caches),
                n_rows,
                max_len,
                logits.data_ptr(),
            )
        return logits

    def _make_room(self, n: int, max_len: int) -> None:
        """A model for so many rows; another one in a forked child, which has none of its parent's threads."""
        if n <= self._most_rows and self._process == os.getpid():
            return
        self._most_rows, self._process = max(2 * self._most_rows, n), os.getpid()
        c = self._config
        shape = _Shape(
            c.n_layers, c.d_model, c.n_heads, c.n_kv_heads, c.d_head, c.d_ff, c.vocab_size, self._most_rows, c.norm_eps
        )
        places = max(max_len, c.max_seq_len)
        make = self._library.lumi_model
        model = make(ctypes.byref(shape), _pointers(self._layers), _pointers(self._rest), self._n_threads, places)
        if not model:
            raise MemoryError("no memory for the buffers of a decoding step")
        self._model = ctypes.c_void_p(model)
        if hasattr(self, "_forget"):
            self._forget()
        self._forget = weakref.finalize(self, _forget, self._library, model, os.getpid())


def _forget(library: ctypes.CDLL, model: int, process: int) -> None:
    if process == os.getpid():
        library.lumi_forget(ctypes.c_void_p(model))


def fits(config: DecoderConfig) -> bool:
    """Whether the kernel takes a model of this shape."""
    return all(size % _MULTIPLE == 0 for size in (config.d_model, config.d_head, config.d_ff))


def decode_library() -> ctypes.CDLL | None:
    """The compiled decoding step; None where it cannot be had."""
    pointer, size = ctypes.c_void_p, ctypes.c_int64
    if (loaded := load_library("decode", "generation")) is not None:
        loaded.lumi_model.restype = pointer
        loaded.lumi_model.argtypes = [pointer, pointer, pointer, ctypes.c_int, ctypes.c_int]
        loaded.lumi_forget.argtypes = [pointer]
        loaded.lumi_step.argtypes = [pointer, ctypes.c_int, pointer, pointer, pointer, size, size, pointer]
        loaded.lumi_step.restype = loaded.lumi_forget.restype = None
    return loaded


def slopes_(logits: Tensor, targets: Tensor, scales: Tensor | None = None, *, wanted: bool = True) -> Tensor | None:
    """Cross-entropy of each row of logits; in place of the logits its derivative by them, times a factor of each row.

    Args:
        logits: (N, W) float32 or bfloat16 on a CPU, each row contiguous, W a multiple of 16 or more columns than are
            read; unused columns hold minus infinity.
        targets: (N,) int64. scales: (N,) float32, or None for 1.
        wanted: whether the derivative is; else the logits stay.

    Returns:
        (N,) float32 in nats; None where the library cannot be had.
    """
    if (loaded := load_library("loss", "the loss")) is None:
        return None
    function = loaded.lumi_slopes_float if logits.dtype == torch.float32 else loaded.lumi_slopes_bfloat
    n_rows, width = logits.shape
    nll = torch.empty(n_rows)
    targets = targets.contiguous()
    factors = None if scales is None else scales.float().contiguous()
    function.restype, number = None, ctypes.c_int64
    function(
        ctypes.c_void_p(logits.data_ptr()),
        number(n_rows),
        number(width // _MULTIPLE * _MULTIPLE),
        number(logits.stride(0)),
        ctypes.c_void_p(targets.data_ptr()),
        ctypes.c_void_p(None if factors is None else factors.data_ptr()),
        ctypes.c_int(wanted),
        ctypes.c_void_p(nll.data_ptr()),
        ctypes.c_int(torch.get_num_threads()),
    )
    return nll


def _pointers(tensors: Sequence[Tensor]) -> ctypes.Array[ctypes.c_void_p]:
    return (ctypes.c_void_p * len(tensors))(*(tensor.data_ptr() for tensor in tensors))
