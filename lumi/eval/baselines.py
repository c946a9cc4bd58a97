"""What methods without a network reach on the same validation text, to put beside a model's bits per byte.

- *unigram*: how often each token occurs, and nothing else. A trained model above it has learnt nothing.
- *n-gram*: interpolated Kneser-Ney over the model's own tokens (`lumi.eval.ngram`), order 5 by default.
- *xz*: what ``xz -9`` adds to the compressed training text when the validation text follows it, hence the cost of that
  text for a method that has memorised the training text and copies from it.

All of them pay for the ends of documents, as the model does: the token models for each eos, xz for a zero byte.
"""

import dataclasses
import json
import lzma
import math
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from lumi.errors import DataError
from lumi.eval.codec import Codec
from lumi.eval.ngram import NGram
from lumi.eval.windows import PackedSplit
from lumi.manifest import fingerprint, write_atomic
from lumi.provenance import made_by

METHOD_VERSION = 1
"""Raised whenever the figures of equal data change, so that cached ones are not used."""

_XZ_CHUNK_BYTES = 2**20
_XZ_MAX_DICT_BYTES = 3 * 2**29  # liblzma's limit, 1.5 GiB


@dataclasses.dataclass(frozen=True, kw_only=True)
class Baselines:
    """Bits per byte of the validation text, and what they were measured on.

    Attributes:
        unigram_bits_per_byte: tokens by their frequency alone.
        ngram_bits_per_byte: the order-``order`` model.
        xz_bits_per_byte: ``xz -9``, given the training text.
        order: tokens in the longest n-gram.
        train_tokens, train_bytes: training text used.
        val_tokens, val_bytes: validation text scored.
        complete: the whole of both splits was used, so the figures are on the very text of the model's score.
    """

    unigram_bits_per_byte: float
    ngram_bits_per_byte: float
    xz_bits_per_byte: float
    order: int
    train_tokens: int
    train_bytes: int
    val_tokens: int
    val_bytes: int
    complete: bool


@dataclasses.dataclass(frozen=True)
class TokenDocuments:
    """Documents as a token stream.

    Attributes:
        tokens: (N,) any integer type; each document is bos, its tokens, eos.
        offsets: (documents + 1,) int64, where documents begin, and N.
    """

    tokens: np.ndarray
    offsets: np.ndarray

    @classmethod
    def first(cls, stream: PackedSplit, max_tokens: int) -> "TokenDocuments":
        """As many documents from the start of a packed split as fit in ``max_tokens``; a first one too long is cut."""
        n_documents = max(1, int(np.searchsorted(stream.offsets, max_tokens, side="right")) - 1)
        offsets = np.minimum(stream.offsets[: n_documents + 1], max_tokens)
        return cls(np.asarray(stream.tokens(0, int(offsets[-1]))), offsets)

    def texts(self, tokenizer: Codec) -> Iterable[bytes]:
        """Each document's text in UTF-8."""
        for start, stop in zip(self.offsets[:-1], self.offsets[1:], strict=True):
            yield tokenizer.decode(self.tokens[start:stop].tolist()).encode()


def packed_baselines(
    train: PackedSplit,
    val: PackedSplit,
    tokenizer: Codec,
    *,
    cache: Path | None = None,
    order: int = 5,
    max_train_tokens: int = 8_000_000,
    max_val_tokens: int = 1_000_000,
) -> Baselines:
    """The baselines of a packed dataset, computed once.

    The limits bound time and memory; by default about a minute of two cores and 1.5 GB at most.

    Args:
        train: split to learn from. val: split to score. Their sequence length does not matter here.
        tokenizer: gives the text back for xz.
        cache: JSON file with an earlier result, used if it is of the same data and settings, written otherwise.
        order: tokens in the longest n-gram.
        max_train_tokens: learn from the first documents up to this many tokens.
        max_val_tokens: score the first documents up to this many tokens.
    """
    settings = {"order": order, "max_train_tokens": max_train_tokens, "max_val_tokens": max_val_tokens}
    key = fingerprint({"packed": train.manifest.fingerprint, "method": METHOD_VERSION} | settings)
    found = _read_cache(cache, key)
    if found is not None:
        return found
    limits = (TokenDocuments.first(train, max_train_tokens), TokenDocuments.first(val, max_val_tokens))
    complete = sum(len(part.tokens) for part in limits) == train.n_tokens + val.n_tokens
    result = dataclasses.replace(compute_baselines(*limits, tokenizer, order=order), complete=complete)
    if cache is not None:
        parents = {"packed": train.manifest.fingerprint}
        origin = {"made_from": parents, "settings": settings, "made_by": made_by()}
        fields = {"fingerprint": key, "origin": origin, **dataclasses.asdict(result)}
        write_atomic(cache, json.dumps(fields, indent=2) + "\n")
    return result


def compute_baselines(train: TokenDocuments, val: TokenDocuments, tokenizer: Codec, *, order: int) -> Baselines:
    """All figures, from exactly these documents.

    Raises:
        DataError: the validation documents hold no text.
    """
    train_text, val_text = list(train.texts(tokenizer)), list(val.texts(tokenizer))
    val_bytes = sum(map(len, val_text))
    if val_bytes == 0:
        raise DataError(f"{len(val_text)} validation documents", "hold no text to score")
    # The compressor works outside Python's lock, so the n-gram model is fitted meanwhile on the other core.
    with ThreadPoolExecutor(max_workers=1) as pool:
        xz = pool.submit(xz_bits_per_byte, train_text, val_text)
        size = tokenizer.vocab_size
        unigram = ngram_bits_per_byte(train, val, vocab_size=size, order=1, n_bytes=val_bytes)
        ngram = ngram_bits_per_byte(train, val, vocab_size=size, order=order, n_bytes=val_bytes)
        return Baselines(
            unigram_bits_per_byte=unigram,
            ngram_bits_per_byte=ngram,
            xz_bits_per_byte=xz.result(),
            order=order,
            train_tokens=len(train.tokens),
            train_bytes=sum(map(len, train_text)),
            val_tokens=len(val.tokens),
            val_bytes=val_bytes,
            complete=True,
        )


def ngram_bits_per_byte(
    train: TokenDocuments, val: TokenDocuments, *, vocab_size: int, order: int, n_bytes: int
) -> float:
    """Cost of every validation token but bos, eos included, per byte of text."""
    model = NGram(train.tokens, train.offsets, vocab_size=vocab_size, order=order)
    return float(-model.log_probs(val.tokens, val.offsets).sum() / math.log(2) / n_bytes)


def xz_bits_per_byte(train: Iterable[bytes], val: Iterable[bytes]) -> float:
    """What the validation text adds to the compressed training text, per byte.

    ``xz -9`` with a dictionary that holds both texts (at most 1.5 GiB), so that anything seen can be copied. Documents
    end with a zero byte, which counts as cost but not as text.
    """
    val = list(val)
    before, both = b"".join(text + b"\0" for text in train), b"".join(text + b"\0" for text in val)
    both = before + both
    dict_size = min(max(4096, 1 << (len(both) - 1).bit_length()), _XZ_MAX_DICT_BYTES)
    with (
        tqdm(total=len(before) + len(both), desc="xz -9", unit="B", unit_scale=True, delay=2, disable=None) as bar,
        ThreadPoolExecutor(max_workers=2) as pool,
    ):
        sizes = list(pool.map(lambda text: _xz_size(text, dict_size, bar), (before, both)))
    return (sizes[1] - sizes[0]) * 8 / sum(map(len, val))


def _xz_size(text: bytes, dict_size: int, bar: tqdm) -> int:
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 9, "dict_size": dict_size}]
    compressor = lzma.LZMACompressor(format=lzma.FORMAT_XZ, filters=filters)
    size = 0
    for start in range(0, len(text), _XZ_CHUNK_BYTES):
        chunk = text[start : start + _XZ_CHUNK_BYTES]
        size += len(compressor.compress(chunk))
        bar.update(len(chunk))
    return size + len(compressor.flush())


def _read_cache(path: Path | None, key: str) -> Baselines | None:
    """The cached result if it is one, of the same data and settings; anything else is computed anew."""
    if path is None or not path.exists():
        return None
    try:
        fields: dict[str, Any] = json.loads(path.read_bytes())
        same = fields.pop("fingerprint") == key
        fields.pop("origin", None)  # for people and for why=…
        return Baselines(**fields) if same else None
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
