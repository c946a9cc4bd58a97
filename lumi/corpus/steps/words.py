"""Words of a document and hashes of its word n-grams: computed once, used by every step that counts words.

A word is a run of letters and digits, in lower case; everything else separates words. All of it is array arithmetic, over
some two hundred megabytes of text a second. With ``B`` odd, the prefix sums of ``byte_i * B**i`` modulo 2**64 give the hash of
any run of bytes by one subtraction and one multiplication with ``B**-i``; the same over the words' hashes gives that of any
n-gram, for every n at the same cost.
"""

import functools
import re
from collections.abc import Sequence
from typing import NamedTuple, Self

import numpy as np

_BASE = 0x9E3779B97F4A7C15
_INVERSE = pow(_BASE, -1, 2**64)
_HALF, _MIXER = np.uint64(32), np.uint64(0xD6E8FEB86659FD93)
_SPACE = ord(" ")
_CHUNK_BYTES = 1 << 18
"""Bytes that are hashed at a time, so that the arrays stay in the processor's cache."""


def _lower(byte: int) -> int:
    if byte >= 128:
        return byte  # of a letter of another script, or blanked later
    sign = chr(byte).lower()
    return ord(sign) if sign.isalnum() else _SPACE


_TABLE = bytes(map(_lower, range(256)))
# Signs beyond ASCII that separate words, as UTF-8: U+0080 to U+00BF but for ª µ º, × and ÷, U+2000 to U+2BFF, U+2E00 to
# U+2E7F, U+3000 to U+303F, U+FF00 to U+FF0F, U+FFC0 to U+FFFF.
_FOREIGN_SIGN = re.compile(
    rb"\xc2[^\xaa\xb5\xba]|\xc3[\x97\xb7]|\xe2[\x80-\xaf\xb8\xb9].|\xe3\x80.|\xef(?:\xbf.|\xbc[\x80-\x8f])", re.DOTALL
)


class Words(NamedTuple):
    """The words of a text.

    Attributes:
        data: the words' UTF-8 bytes in lower case with spaces between, before and after, (n,) uint8.
        starts: where in ``data`` each word begins, (n_words,) int64.
        ends: where it ends, exclusive, (n_words,) int64.
    """

    data: np.ndarray
    starts: np.ndarray
    ends: np.ndarray


@functools.lru_cache(maxsize=1)  # the steps of a pipeline look at one document after the other
def find_words(text: str) -> Words:
    """Where the words of ``text`` stand."""
    return _found(b" " + _plain(text) + b" ")


def split_words(text: str) -> list[bytes]:
    """The words of ``text`` as UTF-8 bytes in lower case."""
    return find_words(text).data.tobytes().split()


def word_lengths(text: str) -> np.ndarray:
    """Characters of each word, (n_words,) int64."""
    data, starts, ends = find_words(text)
    if text.isascii():
        return ends - starts
    characters = np.concatenate(([0], np.cumsum((data & 0xC0) != 0x80)))  # bytes that continue a character do not count
    return characters[ends] - characters[starts]


@functools.lru_cache(maxsize=1)
def word_hashes(text: str) -> np.ndarray:
    """One 64-bit hash a word, (n_words,) uint64. Do not write into it."""
    return _hashed(find_words(text))


@functools.lru_cache(maxsize=1)
def _prefix_sums(text: str) -> np.ndarray:
    return _sums(word_hashes(text))


def ngram_hashes(text: str, n: int) -> np.ndarray:
    """One 64-bit hash for each run of ``n`` words, (max(0, n_words - n + 1),) uint64."""
    return _grams(_prefix_sums(text), n)


class WordBatch:
    """The words of many texts at once: for short ones, an array operation costs more than what it does.

    Args:
        hashes: of the words of all texts in a row, (n_words,) uint64.
        bounds: where each text begins among them, and the end, (n_texts + 1,) int64.

    Attributes:
        n_words: of each text, (n_texts,) int64.
    """

    def __init__(self, hashes: np.ndarray, bounds: np.ndarray) -> None:
        self._bounds = bounds
        self.n_words = np.diff(bounds)
        self._sums = _sums(hashes)

    @classmethod
    def of_texts(cls, texts: Sequence[str]) -> Self:
        """The words of these texts."""
        plain = list(map(_plain, texts))
        words = _found(b" " + b" ".join(plain) + b" ")
        begins = np.cumsum([1, *(len(part) + 1 for part in plain)])
        return cls(_hashed(words), np.searchsorted(words.starts, begins))

    @classmethod
    def of_hashes(cls, hashes: Sequence[np.ndarray]) -> Self:
        """Of texts whose `word_hashes` are known."""
        joined = np.concatenate([np.empty(0, dtype=np.uint64), *hashes])
        return cls(joined, np.cumsum([0, *map(len, hashes)]))

    def ngrams(self, n: int) -> tuple[np.ndarray, np.ndarray]:
        """Hashes of all runs of ``n`` words within a text, as `ngram_hashes` gives them, and the number of their text."""
        hashes = _grams(self._sums, n)
        texts = np.repeat(np.arange(len(self.n_words)), self.n_words)[: len(hashes)]
        within = np.arange(len(hashes)) + n <= self._bounds[1:][texts]
        return hashes[within], texts[within]


def _plain(text: str) -> bytes:
    """UTF-8 of the words in lower case, with spaces for all other signs."""
    if text.isascii():
        return text.encode().translate(_TABLE)
    return _FOREIGN_SIGN.sub(b" ", text.lower().encode("utf-8", "replace").translate(_TABLE))


def _found(plain: bytes) -> Words:
    data = np.frombuffer(plain, dtype=np.uint8)
    is_word = data != _SPACE
    edges = np.flatnonzero(is_word[1:] != is_word[:-1]) + 1
    return Words(data, edges[::2], edges[1::2])


def _hashed(words: Words) -> np.ndarray:
    data, starts, ends = words
    hashes = np.empty(len(starts), dtype=np.uint64)
    first = 0
    while first < len(starts):
        begin = starts[first]
        last = max(first + 1, int(np.searchsorted(starts, begin + _CHUNK_BYTES)))
        size = int(ends[last - 1] - begin)
        sums = np.zeros(size + 1, dtype=np.uint64)
        np.cumsum(data[begin : begin + size] * _powers(_BASE, size), out=sums[1:])
        inside, outside = starts[first:last] - begin, ends[first:last] - begin
        hashes[first:last] = (sums[outside] - sums[inside]) * _powers(_INVERSE, size)[inside]
        first = last
    return mixed(hashes)  # without it an n-gram would be a sum of characters, and words could trade them


def _sums(hashes: np.ndarray) -> np.ndarray:
    sums = np.zeros(len(hashes) + 1, dtype=np.uint64)
    np.cumsum(hashes * _powers(_BASE, len(hashes)), out=sums[1:])
    return sums


def _grams(sums: np.ndarray, n: int) -> np.ndarray:
    size = max(0, len(sums) - n)
    return (sums[n:] - sums[:size]) * _powers(_INVERSE, size) if size else np.empty(0, dtype=np.uint64)


def mixed(hashes: np.ndarray) -> np.ndarray:
    """A bijection of 64-bit numbers whose upper bits depend on all bits: hashes in an order that means nothing."""
    hashes = (hashes ^ (hashes >> _HALF)) * _MIXER
    return hashes ^ (hashes >> _HALF)


_POWERS: dict[int, np.ndarray] = {}


def _powers(base: int, size: int) -> np.ndarray:
    """``base**0 … base**(size - 1)`` modulo 2**64; kept, and longer ones made by doubling."""
    known = _POWERS.get(base)
    if known is None or len(known) < size:
        known = np.ones(1, dtype=np.uint64) if known is None else known
        while len(known) < size:
            known = np.concatenate((known, known * np.uint64(pow(base, len(known), 2**64))))
        _POWERS[base] = known
    return known[:size]
