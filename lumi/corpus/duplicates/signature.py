"""MinHash signatures at one hash a shingle instead of one a shingle and minimum.

One permutation hashing (Li, Owen, Zhang, arXiv:1208.1259): the hashes of a document's shingles are sorted, the range of
hashes is cut into as many bins as there are minima, and each bin gives its smallest one. A bin of a short document that
stays empty borrows from another one that a fixed table names (Shrivastava, arXiv:1703.04664), which keeps the probability
that two documents agree in a bin equal to their Jaccard similarity. For 300 shingles and 256 minima that is 300 hashes and a
sort, where the classic way computes 76,800 products; the estimates are as good (docs/experiments.md).
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from lumi.corpus.steps.words import mixed, ngram_hashes

_BORROWINGS = 16
"""Tries of an empty bin; where half of the bins are filled, one in 65,000 needs more."""
_ONE, _HALF = np.uint64(1), np.uint64(32)
_SEED = 20260


class Signature:
    """Of one document: a minimum for each bin, and a hash for each band of ``rows`` bins.

    Args:
        shingle_words: words in a shingle; a shorter document has one shingle, all of it.
        bands: of `rows` minima each.
        rows: minima in a band.
    """

    version = 1

    def __init__(self, shingle_words: int, bands: int, rows: int) -> None:
        self.shingle_words, self.bands, self.rows = shingle_words, bands, rows
        self.n_bins = bands * rows

    def shingles(self, text: str) -> np.ndarray:
        """The sorted different hashes of the shingles, (n,) uint32; a document without words has none."""
        hashes = ngram_hashes(text, self.shingle_words)
        for n in range(self.shingle_words - 1, 0, -1):
            hashes = hashes if len(hashes) else ngram_hashes(text, n)
        ordered = np.sort((mixed(hashes) >> _HALF).astype(np.uint32))
        is_new = np.ones(len(ordered), dtype=bool)
        np.not_equal(ordered[1:], ordered[:-1], out=is_new[1:])
        return ordered[is_new]

    def of(self, text: str) -> tuple[np.ndarray, np.ndarray]:
        """Minima, (bins,) uint8, and bands, (bands,) uint64.

        A minimum is kept to 8 of its bits (arXiv:0910.3349): unequal ones then agree by chance once in 256, which
        `similarities` takes into account.
        """
        shingles = self.shingles(text)
        if not len(shingles):  # no words: never similar to anything, so a band of its own that matches only its like
            return np.zeros(self.n_bins, dtype=np.uint8), np.zeros(self.bands, dtype=np.uint64)
        tables = _tables(self.n_bins, self.rows)
        minima = shingles.take(np.searchsorted(shingles, tables.starts), mode="clip")
        filled = (minima >> tables.shift) == tables.numbers
        empty = np.flatnonzero(~filled)
        if len(empty):
            tried = tables.donors[empty]
            chosen = tried[_numbers(len(empty)), filled[tried].argmax(axis=1)]
            lost = np.flatnonzero(~filled[chosen])
            if len(lost):  # a very short document: the filled bin that this one likes best
                known = np.flatnonzero(filled)
                chosen[lost] = known[tables.liking[empty[lost][:, None], known].argmin(axis=1)]
            minima[empty] = minima[chosen]
        bands = mixed(minima.reshape(self.bands, self.rows).astype(np.uint64) @ tables.weights)
        return minima.astype(np.uint8), bands | _ONE  # 0 is kept for documents without words

    def stack(self, signatures: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
        """Those of a block: minima (documents, bins), and bands (bands, documents), so that a band is read by itself."""
        if not signatures:
            return np.empty((0, self.n_bins), dtype=np.uint8), np.empty((self.bands, 0), dtype=np.uint64)
        minima, bands = zip(*signatures, strict=True)
        return np.stack(minima), np.ascontiguousarray(np.stack(bands).T)


def similarities(one: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Estimated Jaccard similarity of ``one``, or each of them, to each of ``others`` by their minima, (n,) float64."""
    agreement = np.count_nonzero(one == others, axis=-1) / others.shape[-1]
    return (agreement - 1 / 256) / (1 - 1 / 256)


class _Tables(NamedTuple):
    starts: np.ndarray  # (bins,) where each bin begins
    shift: np.uint32  # a hash shifted right by so many bits is the number of its bin
    numbers: np.ndarray  # (bins,)
    donors: np.ndarray  # (bins, tries) whom an empty bin asks, in order
    liking: np.ndarray  # (bins, bins) whom it asks when all of these are empty: the filled one with the least
    weights: np.ndarray  # (rows,) of the hash of a band


@functools.cache
def _tables(n_bins: int, rows: int) -> _Tables:
    random = np.random.Generator(np.random.Philox(_SEED))
    shift = 32 - (n_bins.bit_length() - 1)
    return _Tables(
        starts=(np.arange(n_bins, dtype=np.uint64) << np.uint64(shift)).astype(np.uint32),
        shift=np.uint32(shift),
        numbers=np.arange(n_bins, dtype=np.uint32),
        donors=random.integers(0, n_bins, (n_bins, _BORROWINGS)),
        liking=random.integers(0, 2**32, (n_bins, n_bins), dtype=np.uint32),
        weights=random.integers(0, 2**64, rows, dtype=np.uint64) | _ONE,
    )


@functools.cache
def _numbers(size: int) -> np.ndarray:
    return np.arange(size)
