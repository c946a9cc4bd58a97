"""Ways to find near duplicates: Lumi's, datasketch's, rensa's, and the classic one in NumPy.

All of them have the same words, the same shingles of three of them, and, but for Lumi with its own settings, 128 minima in 16
bands of 8. Each is used the way its documentation has it for many documents.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import rensa
import xxhash
from datasketch import MinHash, MinHashLSH
from datatrove.data import Document

from lumi.corpus import Duplicates, TokenCounter
from lumi.corpus.duplicates.match import MatchDocuments
from lumi.corpus.engine.blocks import BlockId, read_array
from lumi.corpus.engine.stages import META, WriteProcessed
from lumi.corpus.steps.step import BITS
from lumi.corpus.steps.words import ngram_hashes, split_words

WORDS = 3
MINIMA, BANDS = 128, 16
THRESHOLD = 0.8
_SEED = 1

_BATCH = 600  # documents: about what `WriteProcessed` computes at once


def shingles(text: str) -> list[bytes]:
    """Every run of three words of ``text``."""
    words = split_words(text)
    return list(map(b" ".join, zip(words, words[1:], words[2:], strict=False)))


class Contestant(Protocol):
    """One way to do it, in two parts that are timed apart."""

    name: str

    def signatures(self, texts: Sequence[str]) -> Any:
        """From texts to signatures."""
        ...

    def stored(self, texts: Sequence[str]) -> Any:
        """What `candidates` begins with; not timed."""
        return self.signatures(texts)

    def candidates(self, stored: Any) -> np.ndarray:
        """Pairs of documents that it finds, (n, 2) int64."""
        ...

    def digests(self, stored: Any) -> np.ndarray | None:
        """Minima of the documents, (documents, minima), to estimate similarities from; None if that was done."""
        ...


class Datasketch(Contestant):
    """``MinHash.bulk``, and a `MinHashLSH` that all are put into before all are asked for."""

    name = "datasketch"
    options: dict[str, Any] = {}  # noqa: RUF012 - the sha1 that is its default

    def signatures(self, texts: Sequence[str]) -> list[MinHash]:
        return MinHash.bulk(map(shingles, texts), num_perm=MINIMA, seed=_SEED, **self.options)

    def candidates(self, stored: list[MinHash]) -> np.ndarray:
        index = MinHashLSH(num_perm=MINIMA, params=(BANDS, MINIMA // BANDS))
        for number, one in enumerate(stored):
            index.insert(number, one)
        return _pairs([index.query(one) for one in stored])

    def digests(self, stored: list[MinHash]) -> np.ndarray:
        return np.stack([one.hashvalues for one in stored])


class DatasketchXxhash(Datasketch):
    """The same with a fast hash function, which is an option of its."""

    name = "datasketch, xxh32"
    options = {"hashfunc": xxhash.xxh32_intdigest}  # noqa: RUF012


class Rensa(Contestant):
    """``RMinHash.from_token_sets``, and an `RMinHashLSH`."""

    name = "rensa"

    def signatures(self, texts: Sequence[str]) -> list[rensa.RMinHash]:
        return rensa.RMinHash.from_token_sets(list(map(shingles, texts)), MINIMA, _SEED)

    def candidates(self, stored: list[rensa.RMinHash]) -> np.ndarray:
        index = rensa.RMinHashLSH(THRESHOLD, MINIMA, BANDS)
        index.insert_many(stored)
        return _pairs(index.query_all(stored))

    def digests(self, stored: list[rensa.RMinHash]) -> np.ndarray:
        return np.array([one.digest() for one in stored], dtype=np.uint32)


class Classic(Contestant):
    """128 permutations by multiplication and shift, of Lumi's hashes of shingles, a document at a time."""

    name = "NumPy, 128 permutations"

    def __init__(self) -> None:
        draws = np.random.default_rng(_SEED).integers(0, 2**64, (2, MINIMA), dtype=np.uint64)
        self.factors, self.terms = draws[0] | np.uint64(1), draws[1]

    def signatures(self, texts: Sequence[str]) -> np.ndarray:
        return np.stack([self._of(text) for text in texts])

    def _of(self, text: str) -> np.ndarray:
        hashes = ngram_hashes(text, WORDS)
        if not len(hashes):
            return np.zeros(MINIMA, dtype=np.uint32)
        permuted = hashes[:, None] * self.factors + self.terms  # (shingles, minima)
        return (permuted.min(axis=0) >> np.uint64(32)).astype(np.uint32)

    def candidates(self, stored: np.ndarray) -> np.ndarray:
        return _equal_bands(stored)

    def digests(self, stored: np.ndarray) -> np.ndarray:
        return stored


class RensaOnHashes(Classic):
    """rensa's signatures of Lumi's hashes of shingles: the fastest of both."""

    name = "rensa on Lumi's hashes"

    def signatures(self, texts: Sequence[str]) -> np.ndarray:
        hashes = [ngram_hashes(text, WORDS) for text in texts]
        ends = np.cumsum([0, *map(len, hashes)], dtype=np.uint64)
        matrix = rensa.RMinHash.digest_matrix_from_flat_token_hashes(np.concatenate(hashes), ends, MINIMA, _SEED)
        return np.array(matrix.to_rows(), dtype=np.uint32)


class Lumi(Contestant):
    """`Signature.of`, and the tasks of `MatchDocuments` on a block that `WriteProcessed` wrote."""

    name = "Lumi"

    def __init__(self, work: Path) -> None:
        self.work = work
        self.duplicates = Duplicates(near=True, threshold=THRESHOLD, shingle_words=WORDS)
        self.block = BlockId("text", 0)

    def signatures(self, texts: Sequence[str]) -> list[tuple[np.ndarray, np.ndarray]]:
        signature = self.duplicates.signature()
        assert signature is not None, "near=True has one"
        return [signature.of(texts[start : start + _BATCH]) for start in range(0, len(texts), _BATCH)]

    def stored(self, texts: Sequence[str]) -> int:
        shutil.rmtree(self.work, ignore_errors=True)
        documents = (
            Document(text=text, id=str(number), metadata={BITS: None, META: {}}) for number, text in enumerate(texts)
        )
        signature = self.duplicates.signature()
        WriteProcessed(self.work / "process", [self.block], "zst", signature, TokenCounter(), 0).work(documents, 0)
        return len(texts)

    def candidates(self, stored: int) -> np.ndarray:
        folder = self.work / "match"
        step = MatchDocuments(folder, self.work / "process", [self.block], [stored], self.duplicates)
        for rank in range(step.n_tasks):
            step.work(None, rank)
        return np.concatenate([read_array(step.result(rank)) for rank in range(step.n_tasks)])

    def digests(self, stored: int) -> None:
        return None


def _pairs(found: Sequence[Sequence[Any]]) -> np.ndarray:
    """Every document with what was found for it, each pair once."""
    pairs = [(one, other) for one, others in enumerate(found) for other in others if one < other]
    return np.array(pairs, dtype=np.int64).reshape(-1, 2)


def _equal_bands(digests: np.ndarray) -> np.ndarray:
    """Pairs that agree in all minima of a band."""
    rows = digests.shape[1] // BANDS
    found = []
    for start in range(0, digests.shape[1], rows):
        band = np.ascontiguousarray(digests[:, start : start + rows]).view(f"V{rows * digests.itemsize}").ravel()
        _, bucket, sizes = np.unique(band, return_inverse=True, return_counts=True)
        members = np.split(np.argsort(bucket, kind="stable"), np.cumsum(sizes)[:-1])
        for bucketful in (members[number] for number in np.flatnonzero(sizes > 1)):
            one, other = np.triu_indices(len(bucketful), 1)
            found.append(np.stack((bucketful[one], bucketful[other]), axis=1))
    return np.unique(np.concatenate([np.empty((0, 2), dtype=np.int64), *found]), axis=0)


def contestants(work: Path) -> list[Contestant]:
    """All of them; the first is the one that others are compared with."""
    return [Datasketch(), DatasketchXxhash(), Rensa(), RensaOnHashes(), Classic(), Lumi(work)]
