"""Writing the token shards of one split, and the test that they can be read back."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from lumi.data.packed import PackedStream, Split
from lumi.errors import DataError
from lumi.tokenizer import Tokenizer

_CHECK_TOKENS = 10_000_000


class SplitWriter:
    """Appends documents to ``<split>-00000.bin``, ``<split>-00001.bin``…; memory does not grow with them.

    Args:
        folder: where the files go.
        split: train or val.
        dtype: of the tokens on disk.
        shard_tokens: tokens after which a new shard begins, in the middle of a document if need be.
    """

    def __init__(self, folder: Path, split: Split, dtype: np.dtype, shard_tokens: int) -> None:
        self.dtype = dtype
        self.n_documents = self.n_tokens = self.n_bytes = 0
        self._bits: list[float | None] = []
        self.samples: list[tuple[int, str]] = []
        self._folder, self._split, self._shard_tokens = folder, split, shard_tokens
        self._shards: list[int] = []
        self._file: BinaryIO | None = None
        self._offsets = (folder / f"{split}.offsets.npy").open("wb")
        self._write_header(1)
        self._offsets.write(np.int64(0).tobytes())

    def extend(self, tokens: np.ndarray, lengths: np.ndarray, facts: Mapping[str, Any]) -> None:
        """Append documents.

        Args:
            tokens: of all of them in a row.
            lengths: tokens of each, (documents,).
            facts: their number as ``documents``, their UTF-8 ``bytes``, their ``bits``, and ``samples`` of (number, text).
        """
        # Of all samples the 0th, 1st, 2nd, 4th, 8th … document of the first part and the first one of every other.
        given = [(self.n_documents + number, text) for number, text in facts["samples"]]
        self.samples += given if not self.samples else given[:1]
        offsets = self.n_tokens + np.cumsum(lengths, dtype=np.int64)
        self._offsets.write(offsets.tobytes())
        self.n_documents += len(lengths)
        self.n_tokens += len(tokens)
        self.n_bytes += facts["bytes"]
        if len(lengths):
            self._bits.append(facts["bits"])
        while len(tokens):
            if self._file is None or self._shards[-1] == self._shard_tokens:
                self._next_shard()
            tokens = self._fill(tokens)

    def close(self) -> None:
        """Finish all files."""
        if self._file is not None:
            self._file.close()
        self._offsets.seek(0)
        self._write_header(self.n_documents + 1)
        self._offsets.close()

    def facts(self) -> dict[str, Any]:
        """What the manifest says about the split."""
        return {
            "documents": self.n_documents,
            "tokens": self.n_tokens,
            "bytes": self.n_bytes,
            "bits": self._sum_of_bits(),
            "shards": self._shards,
        }

    def _sum_of_bits(self) -> float | None:
        known = [bits for bits in self._bits if bits is not None]
        return math.fsum(known) if self._bits and len(known) == len(self._bits) else None

    def _next_shard(self) -> None:
        if self._file is not None:
            self._file.close()
        self._file = (self._folder / f"{self._split}-{len(self._shards):05d}.bin").open("wb")
        self._shards.append(0)

    def _fill(self, tokens: np.ndarray) -> np.ndarray:
        """Write what fits the open shard; returns the rest."""
        assert self._file is not None, "a shard is open"
        room = self._shard_tokens - self._shards[-1]
        part = tokens[:room]
        self._file.write(part.tobytes())
        self._shards[-1] += len(part)
        return tokens[room:]

    def _write_header(self, length: int) -> None:
        # numpy leaves room in the header for the first axis to grow, so that it can be written again at the end.
        header = {"descr": np.lib.format.dtype_to_descr(np.dtype(np.int64)), "fortran_order": False, "shape": (length,)}
        np.lib.format.write_array_header_1_0(self._offsets, header)


def check_packed(folder: Path, split: Split, tokenizer: Tokenizer, samples: Sequence[tuple[int, str]]) -> None:
    """Open a split as training will and compare it with what was written.

    Every id is in the vocabulary; documents, tokens and bytes add up; each document begins with bos and ends with eos and
    has neither within; the ``samples`` (number and text of a document) decode to their text.

    Raises:
        DataError: something differs, so the disk or the program is at fault.
    """
    stream = PackedStream(folder, split, 2, tokenizer.sha256)
    offsets = np.asarray(stream.offsets)
    facts = stream.manifest.info["splits"][split]
    n_documents = facts["documents"]
    counts = np.zeros(tokenizer.vocab_size, dtype=np.int64)
    for start in range(0, stream.n_tokens, _CHECK_TOKENS):
        block = stream.tokens(start, min(start + _CHECK_TOKENS, stream.n_tokens))
        if block.max() >= tokenizer.vocab_size:
            raise _broken(folder, split, f"holds the id {block.max()}, the vocabulary has {tokenizer.vocab_size}")
        counts += np.bincount(block, minlength=tokenizer.vocab_size)
    if len(offsets) != n_documents + 1 or offsets[0] != 0 or offsets[-1] != stream.n_tokens:
        raise _broken(folder, split, "its offsets do not cover its tokens")
    if not counts[tokenizer.bos_id] == counts[tokenizer.eos_id] == n_documents:
        raise _broken(folder, split, f"needs one bos and one eos for each of {n_documents} documents")
    if not counts[tokenizer.unk_id] and int((counts * tokenizer.token_bytes()).sum()) != stream.n_bytes:
        raise _broken(folder, split, f"its tokens do not stand for the {stream.n_bytes} bytes of its text")
    for number, text in samples:
        tokens = stream.tokens(int(offsets[number]), int(offsets[number + 1]))
        framed = tokens[0] == tokenizer.bos_id and tokens[-1] == tokenizer.eos_id
        if not framed or (tokenizer.decode(tokens) != text and not counts[tokenizer.unk_id]):
            raise _broken(folder, split, f"its document {number} does not decode to its text")


def _broken(folder: Path, split: Split, rule: str) -> DataError:
    return DataError(f"{folder.name}: the {split} split", rule, "it was not kept; check the disk, then pack again")
