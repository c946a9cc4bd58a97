"""Reading packed tokens: windows cut from a memory-mapped stream when they are asked for.

The stream of a split is all its documents in a row. Window ``i`` holds tokens ``i * (T - 1) … i * (T - 1) + T - 1``: it shares
one token with the next window, which is the last target of one and the first context of the other, so that each token is a
target exactly once per epoch. Another sequence length needs no re-packing.
"""

import functools
from pathlib import Path
from typing import Any, Literal, TypedDict

import numpy as np

from lumi.corpus.engine.blocks import read_array
from lumi.errors import ConfigError, DataError, TokenizerMismatch
from lumi.manifest import Manifest, verify

Split = Literal["train", "val"]

PADDING_DOC = -1


class Windows(TypedDict):
    """``n`` windows as arrays; see `lumi.batch.PackedBatch`."""

    tokens: np.ndarray  # (n, T) int64
    doc_ids: np.ndarray  # (n, T) int32
    loss_mask: np.ndarray  # (n, T) bool


class PackedStream:
    """One split of a packed dataset, as windows.

    Args:
        folder: of the packed dataset.
        split: ``train`` or ``val``.
        seq_len: tokens in a window, T.
        expect_tokenizer: SHA-256 of the tokenizer of this run; another one is refused.
        full_check: hash every shard first (about a second per gigabyte); else only sizes are compared.

    Raises:
        DataError: the folder is missing, damaged, or smaller than one window.
        TokenizerMismatch: it was made with another tokenizer.
    """

    def __init__(
        self, folder: Path, split: Split, seq_len: int, expect_tokenizer: str | None = None, *, full_check: bool = True
    ) -> None:
        if seq_len < 2:
            raise ConfigError(f"data.seq_len={seq_len}", "must be at least 2: one token of context and one target")
        self.folder, self.split, self.seq_len = folder, split, seq_len
        self.manifest = verify(folder, kind="packed", full=full_check)
        check_tokenizer(self.manifest, folder, expect_tokenizer)
        info = self.manifest.info
        if info.get("dtype") not in ("uint16", "uint32"):  # numpy would even take bytes for addresses of objects
            raise DataError(
                f"{folder} holds {info.get('dtype')}", "packed tokens are uint16 or uint32", "pack it again"
            )
        try:
            self._open(info)
        except (KeyError, TypeError, ValueError, OverflowError, OSError) as error:
            raise DataError(
                f"{folder}", f"its manifest and its files contradict each other ({error!r})", "pack it again"
            ) from None
        self._length = max(0, -(-(self.n_tokens - 1) // (seq_len - 1)))
        # Training reads whole windows only; a last partial one is for evaluation, where no token may be missed.
        self.n_whole = max(0, (self.n_tokens - 1) // (seq_len - 1))

    def _open(self, info: dict[str, Any]) -> None:
        """Map the files that the manifest describes; whatever it says wrongly is an error here, not in the middle of a run."""
        facts, self._vocab_size = info["splits"][self.split], int(info["vocab_size"])
        self.n_tokens, self.n_bytes, self.bits = int(facts["tokens"]), int(facts["bytes"]), facts["bits"]
        shards = [f"{self.split}-{number:05d}.bin" for number in range(len(facts["shards"]))]
        for name in (*shards, f"{self.split}.offsets.npy"):
            if name not in self.manifest.files:
                raise ValueError(f"it does not name {name}")
        self._offsets: np.ndarray = read_array(self.folder / f"{self.split}.offsets.npy", mapped=True)
        if self._offsets.dtype != np.int64 or self._offsets.ndim != 1 or not len(self._offsets):
            raise ValueError(f"{self.split}.offsets.npy holds no places of documents")
        self._shards = [
            np.memmap(self.folder / name, dtype=info["dtype"], mode="r", shape=(length,))
            for name, length in zip(shards, facts["shards"], strict=True)
        ]
        self._shard_starts = np.concatenate(([0], np.cumsum(facts["shards"]))).astype(np.int64)
        if not self.n_tokens == self._shard_starts[-1] == self._offsets[-1]:
            raise ValueError(f"{self.split} has {self.n_tokens} tokens, its shards hold {self._shard_starts[-1]}")

    def __len__(self) -> int:
        """Windows, the last one possibly padded."""
        return self._length

    def __reduce__(self) -> tuple[Any, ...]:
        # A worker that starts afresh opens the files itself: pickling a memory map would send it every byte.
        return functools.partial(type(self), full_check=False), (self.folder, self.split, self.seq_len)

    @property
    def offsets(self) -> np.ndarray:
        """(documents + 1,) int64: where each document begins in the stream, and its end."""
        return self._offsets

    def tokens(self, start: int, stop: int) -> np.ndarray:
        """Tokens ``start … stop - 1`` of the stream, in their stored type, across shards."""
        parts = []
        first = int(np.searchsorted(self._shard_starts, start, side="right")) - 1
        for number in range(first, len(self._shards)):
            base = int(self._shard_starts[number])
            if base >= stop:
                break
            parts.append(self._shards[number][max(0, start - base) : stop - base])
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def windows(self, indices: np.ndarray) -> Windows:
        """The windows with these indices, padded with token 0 outside any document where the stream has ended.

        Raises:
            DataError: a token is outside the vocabulary: the file was damaged after it was checked, or with ``full_check``
                off. The embedding would read beyond its table.
        """
        shape = (len(indices), self.seq_len)
        tokens = np.zeros(shape, dtype=np.int64)
        doc_ids = np.full(shape, PADDING_DOC, dtype=np.int32)
        for row, index in enumerate(np.asarray(indices).tolist()):
            if not 0 <= index < len(self):
                raise IndexError(f"window {index} of {len(self)}")
            start = index * (self.seq_len - 1)
            stop = min(start + self.seq_len, self.n_tokens)
            tokens[row, : stop - start] = self.tokens(start, stop)
            doc_ids[row, : stop - start] = self._documents(start, stop)
        if tokens.size and tokens.max() >= self._vocab_size:
            raise DataError(
                f"{self.folder}: the {self.split} split holds the id {tokens.max()}",
                f"the vocabulary has {self._vocab_size:,}",
                "data.full_check=true names the file; pack it again",
            )
        loss_mask = np.zeros(shape, dtype=bool)
        loss_mask[:, 1:] = (doc_ids[:, 1:] == doc_ids[:, :-1]) & (doc_ids[:, 1:] != PADDING_DOC)
        return {"tokens": tokens, "doc_ids": doc_ids, "loss_mask": loss_mask}

    def _documents(self, start: int, stop: int) -> np.ndarray:
        """Which document each token belongs to, counted from 0 at the first token asked for."""
        first = int(np.searchsorted(self._offsets, start, side="right")) - 1
        last = int(np.searchsorted(self._offsets, stop - 1, side="right")) - 1
        edges = np.clip(self._offsets[first : last + 2], start, stop)
        return np.repeat(np.arange(last - first + 1, dtype=np.int32), np.diff(edges))


def check_tokenizer(manifest: Manifest, folder: Path, expected: str | None) -> None:
    """Refuse an artefact that was made with another tokenizer.

    Raises:
        TokenizerMismatch: with both hashes and the command that rebuilds.
    """
    actual = manifest.parents.get("tokenizer", "none")
    if expected is not None and actual != expected:
        raise TokenizerMismatch(
            f"{folder} was tokenised with {actual[:12]}…",
            f"this run uses tokenizer {expected[:12]}…",
            "rebuild: python prepare.py step=pack force=true, or choose the tokenizer it was made with",
        )


def check_enough(stream: PackedStream, n_windows: int) -> None:
    """Refuse a split that cannot fill even one batch.

    Raises:
        DataError: with the number of tokens there and needed.
    """
    if stream.n_whole < n_windows:
        needed = n_windows * (stream.seq_len - 1) + 1
        raise DataError(
            f"{stream.folder} has {stream.n_tokens:,} {stream.split} tokens",
            f"one batch of {n_windows} windows of {stream.seq_len} tokens needs {needed:,}",
            "add text, or lower data.batch_size or data.seq_len",
        )
