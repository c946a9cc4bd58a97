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

from lumi.corpus.steps.words import WordBatch, mixed

_BORROWINGS = 16
"""Tries of an empty bin; where half of the bins are filled, one in 65,000 needs more."""
_ONE, _HALF = np.uint64(1), np.uint64(32)
_SEED = 20260


class Signature:
    """Of a document: a minimum for each bin, and a hash for each band of ``rows`` bins; computed for many at once.

    Args:
        shingle_words: words in a shingle; a shorter document has one shingle, all of it.
        bands: of `rows` minima each.
        rows: minima in a band.
    """

    version = 1

    def __init__(self, shingle_words: int, bands: int, rows: int) -> None:
        self.shingle_words, self.bands, self.rows = shingle_words, bands, rows
        self.n_bins = bands * rows

    def of(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """As `of_words`, of these texts."""
        return self.of_words(WordBatch.of_texts(texts))

    def of_words(self, words: WordBatch) -> tuple[np.ndarray, np.ndarray]:
        """Minima, (texts, bins) uint8, and bands, (bands, texts) uint64, so that a band is read by itself.

        A minimum is kept to 8 of its bits (arXiv:0910.3349): unequal ones then agree by chance once in 256, which
        `similarities` takes into account. A text without words is like nothing: its bands are 0.
        """
        n_bins, tables, size = self.n_bins, _tables(self.n_bins, self.rows), len(words.n_words) * self.n_bins
        shingles = self._shingles(words)
        minima, filled = np.zeros(size, dtype=np.uint32), np.zeros(size, dtype=np.bool_)
        bins = (shingles >> tables.shift).astype(np.int64)  # of the text and the hash: its place in all minima
        is_first = np.ones(len(bins), dtype=bool)
        np.not_equal(bins[1:], bins[:-1], out=is_first[1:])
        places = bins[is_first]
        minima[places], filled[places] = shingles[is_first].astype(np.uint32), True
        has_words = np.asarray(filled.reshape(-1, n_bins).any(axis=1))
        self._borrow(minima, filled, np.flatnonzero(~filled & np.repeat(has_words, n_bins)), tables)
        bands = mixed(minima.reshape(-1, self.rows).astype(np.uint64) @ tables.weights).reshape(-1, self.bands)
        bands = np.where(has_words[:, None], bands | _ONE, np.uint64(0))
        return minima.astype(np.uint8).reshape(-1, n_bins), np.ascontiguousarray(bands.T)

    def _shingles(self, words: WordBatch) -> np.ndarray:
        """The number of a text in the upper half, the hash of a shingle in the lower one, sorted, (n,) uint64."""
        hashes, owners = words.ngrams(self.shingle_words)
        parts = [(mixed(hashes) >> _HALF) | (owners.astype(np.uint64) << _HALF)]
        for n in range(1, self.shingle_words):  # a text of fewer words is one shingle
            if (words.n_words == n).any():
                hashes, owners = words.ngrams(n)
                alone = words.n_words[owners] == n
                parts.append((mixed(hashes[alone]) >> _HALF) | (owners[alone].astype(np.uint64) << _HALF))
        return np.sort(np.concatenate(parts))

    def _borrow(self, minima: np.ndarray, filled: np.ndarray, empty: np.ndarray, tables: "_Tables") -> None:
        """Give empty bins the minimum of a filled one of the same text."""
        known, base = filled.copy(), empty - empty % self.n_bins
        for column in tables.donors.T:
            donor = base + column[empty - base]
            found = known[donor]
            minima[empty[found]] = minima[donor[found]]
            empty, base = empty[~found], base[~found]
            if not len(empty):
                return
        for bin_, start in zip(empty.tolist(), base.tolist(), strict=True):  # of a very short text
            full = np.flatnonzero(known[start : start + self.n_bins])
            minima[bin_] = minima[start + full[tables.liking[bin_ - start, full].argmin()]]


def similarities(one: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Estimated Jaccard similarity of ``one``, or each of them, to each of ``others`` by their minima, (n,) float64."""
    agreement = np.count_nonzero(one == others, axis=-1) / others.shape[-1]
    return (agreement - 1 / 256) / (1 - 1 / 256)


class _Tables(NamedTuple):
    shift: np.uint64  # text and hash, shifted right by so many bits, are the number of a bin among those of all texts
    donors: np.ndarray  # (bins, tries) whom an empty bin asks, in order
    liking: np.ndarray  # (bins, bins) whom it asks when all of these are empty: the filled one with the least
    weights: np.ndarray  # (rows,) of the hash of a band


@functools.cache
def _tables(n_bins: int, rows: int) -> _Tables:
    random = np.random.Generator(np.random.Philox(_SEED))
    shift = 32 - (n_bins.bit_length() - 1)
    return _Tables(
        shift=np.uint64(shift),
        donors=random.integers(0, n_bins, (n_bins, _BORROWINGS)),
        liking=random.integers(0, 2**32, (n_bins, n_bins), dtype=np.uint32),
        weights=random.integers(0, 2**64, rows, dtype=np.uint64) | _ONE,
    )
