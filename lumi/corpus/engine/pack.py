"""Packing as a step of the engine: the tokens of one shard of a corpus, by split, one shard a task.

`lumi.data.pack` runs it and joins the parts in their order. It stands here because a worker should not need torch.
"""

import functools
import hashlib
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from lumi.corpus.document import Document
from lumi.corpus.engine.blocks import read_documents, write_array, write_json
from lumi.corpus.engine.executor import Task
from lumi.tokenizer import Tokenizer, utf8

Split = Literal["train", "val"]

_BATCH_CHARS = 4_000_000
"""Text that is tokenised at once: enough for all threads, and what bounds the memory."""
_SAMPLE_CHARS = 100_000


class PackShards(Task):
    """Tokens of every document, with bos and eos around it.

    Args:
        folder: of the stage.
        shards: of the corpus, by task.
        tokenizer: folder of the tokenizer.
        sha256: its identity.
        val_ratio: share of the documents held out for validation.
        seed: decides which ones.
        num_threads: of the tokenizer.
    """

    name = "pack"

    def __init__(
        self,
        folder: Path,
        shards: Sequence[Path],
        tokenizer: Path,
        sha256: str,
        *,
        val_ratio: float,
        seed: int,
        num_threads: int,
    ) -> None:
        super().__init__(folder)
        self.shards, self.tokenizer, self.sha256 = shards, tokenizer, sha256
        self.val_ratio, self.seed, self.num_threads = val_ratio, seed, num_threads

    def result(self, rank: int, end: str) -> Path:
        """A file that a task leaves: ``train.tokens.npy``, ``train.lengths.npy``, the same of val, and ``json``."""
        return self.folder / "parts" / f"{rank:05d}.{end}"

    def work(self, data: Any, rank: int) -> None:
        """One shard."""
        tokenizer = _loaded(self.tokenizer, self.sha256)
        dtype = token_dtype(tokenizer)
        bos, eos = np.array([tokenizer.bos_id], dtype=dtype), np.array([tokenizer.eos_id], dtype=dtype)
        parts: dict[Split, _Part] = {"train": _Part(), "val": _Part()}
        fractions = [1.0, 0.0]
        for documents in _batches(read_documents(self.shards[rank])):
            arrays = tokenizer.encode_batch([document.text for document in documents], self.num_threads)
            for document, ids in zip(documents, arrays, strict=True):
                text = utf8(document.text)
                fraction = split_fraction(text, self.seed)
                fractions = [min(fractions[0], fraction), max(fractions[1], fraction)]
                part = parts["val" if fraction < self.val_ratio else "train"]
                part.add(document, [bos, ids.astype(dtype), eos], len(text))
        for split, part in parts.items():
            tokens = np.concatenate([np.empty(0, dtype=dtype), *part.tokens])
            write_array(self.result(rank, f"{split}.tokens.npy"), tokens)
            write_array(self.result(rank, f"{split}.lengths.npy"), np.array(part.lengths, dtype=np.int64))
        record = {split: part.facts() for split, part in parts.items()}
        write_json(self.result(rank, "json"), {**record, "fractions": fractions})


@functools.lru_cache(maxsize=1)  # a worker takes many shards
def _loaded(folder: Path, sha256: str) -> Tokenizer:
    return Tokenizer.load(folder, expect_sha256=sha256)


class _Part:
    """The documents of one split in one shard."""

    def __init__(self) -> None:
        self.tokens: list[np.ndarray] = []
        self.lengths: list[int] = []
        self.samples: list[tuple[int, str]] = []
        self.n_bytes = 0
        self.bits: list[float | None] = []

    def add(self, document: Document, tokens: Sequence[np.ndarray], n_bytes: int) -> None:
        number = len(self.lengths)
        # The 0th, 1st, 2nd, 4th, 8th … will be read again, except long ones: keeping their text would cost memory.
        if number & (number - 1) == 0 and (len(document.text) <= _SAMPLE_CHARS or not self.samples):
            self.samples.append((number, document.text))
        self.tokens.extend(tokens)
        self.lengths.append(sum(map(len, tokens)))
        self.n_bytes += n_bytes
        self.bits.append(document.bits)

    def facts(self) -> dict[str, Any]:
        known = [bits for bits in self.bits if bits is not None]
        bits = math.fsum(known) if len(known) == len(self.bits) else None
        return {"documents": len(self.lengths), "bytes": self.n_bytes, "bits": bits, "samples": self.samples}


def token_dtype(tokenizer: Tokenizer) -> np.dtype:
    """The smallest type on disk that holds every id."""
    return np.dtype(np.uint16 if tokenizer.vocab_size <= 2**16 else np.uint32)


def split_fraction(text: bytes, seed: int) -> float:
    """A number in [0, 1) that is a pure function of the text and the seed; below ``val_ratio`` means validation."""
    digest = hashlib.blake2b(text, digest_size=8, key=str(seed).encode()).digest()
    return int.from_bytes(digest) / 2**64


def _batches(documents: Iterator[Document]) -> Iterator[list[Document]]:
    batch: list[Document] = []
    n_chars = 0
    for document in documents:
        batch.append(document)
        n_chars += len(document.text)
        if n_chars >= _BATCH_CHARS:
            yield batch
            batch, n_chars = [], 0
    if batch:
        yield batch
