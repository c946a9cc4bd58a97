"""Words of a document and hashes of its word n-grams: computed once, used by every step that counts words.

A word is a run of letters and digits, in lower case; everything else separates words. The hash of an n-gram costs the same
for every n: with ``B`` odd, the prefix sums of ``hash(word_i) * B**i`` modulo 2**64 give any n-gram by one subtraction and
one multiplication with ``B**-i``.
"""

import functools
import re

import numpy as np
import xxhash

_MOST_CACHED = 1_000_000
"""Different words whose hashes are kept: about 100 MB."""
_BASE = 0x9E3779B97F4A7C15
_INVERSE = pow(_BASE, -1, 2**64)
_WORD_BYTES = frozenset(b"0123456789abcdefghijklmnopqrstuvwxyz") | frozenset(range(128, 256))
# Upper case falls to lower case in the same pass; bytes of other scripts are letters here, their punctuation is cut before.
_TABLE = bytes(
    ord(chr(byte).lower())
    if byte < 128 and chr(byte).lower().encode()[0] in _WORD_BYTES
    else byte
    if byte in _WORD_BYTES
    else 32
    for byte in range(256)
)
_FOREIGN_PUNCTUATION = re.compile(
    "[\u0080-\u00a9\u00ab-\u00b4\u00b6-\u00b9\u00bb-\u00bf\u00d7\u00f7\u1680\u2000-\u206f\u20a0-\u20cf\u2190-\u2bff"
    "\u2e00-\u2e7f\u3000-\u303f\ufe10-\ufe6f\uff00-\uff0f\uff1a-\uff20\uff3b-\uff40\uff5b-\uff65\ufffd]"
)


class _WordHashes(dict[bytes, int]):
    def __missing__(self, word: bytes) -> int:
        if len(self) >= _MOST_CACHED:
            self.clear()
        value = self[word] = xxhash.xxh3_64_intdigest(word)
        return value


_HASHES = _WordHashes()


@functools.lru_cache(maxsize=1)  # the steps of a pipeline look at one document after the other
def split_words(text: str) -> list[bytes]:
    """The words of ``text`` as UTF-8 bytes in lower case."""
    if not text.isascii():
        text = _FOREIGN_PUNCTUATION.sub(" ", text.lower())
    return text.encode("utf-8", "replace").translate(_TABLE).split()


@functools.lru_cache(maxsize=1)
def word_hashes(text: str) -> np.ndarray:
    """One 64-bit hash a word, (n_words,) uint64. Do not write into it."""
    return np.fromiter(map(_HASHES.__getitem__, split_words(text)), dtype=np.uint64)


@functools.lru_cache(maxsize=1)
def _prefix_sums(text: str) -> np.ndarray:
    words = word_hashes(text)
    sums = np.zeros(len(words) + 1, dtype=np.uint64)
    np.cumsum(words * _powers(_BASE, len(words)), out=sums[1:])
    return sums


def ngram_hashes(text: str, n: int) -> np.ndarray:
    """One 64-bit hash for each run of ``n`` words, (max(0, n_words - n + 1),) uint64."""
    sums = _prefix_sums(text)
    size = max(0, len(sums) - n)
    return (sums[n:] - sums[:-n][:size]) * _powers(_INVERSE, size) if size else np.empty(0, dtype=np.uint64)


def mixed(hashes: np.ndarray) -> np.ndarray:
    """A bijection of 64-bit numbers whose upper bits depend on all bits: hashes in an order that means nothing."""
    hashes = (hashes ^ (hashes >> np.uint64(32))) * np.uint64(0xD6E8FEB86659FD93)
    return hashes ^ (hashes >> np.uint64(32))


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
