"""Random choices that know how surprising they were.

Every choice behind a document goes through one `Draws`, which adds −log₂ of its probability to `Draws.bits`. When no two
sequences of choices give the same text, the sum is exactly −log₂ p(text): the fewest bits any model can need for it.
"""

import decimal
import functools
import hashlib
import random
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")

_PRECISE = decimal.Context(prec=40)


@functools.cache
def log2(n: int) -> float:
    """log₂ n, correctly rounded on every machine: the C library's last bit may differ, and it would end up in hashes."""
    return float(_PRECISE.divide(_PRECISE.ln(decimal.Decimal(n)), _PRECISE.ln(decimal.Decimal(2))))


def generator(*key: str | int) -> random.Random:
    """A generator of its own for every key, so that document 7 does not depend on documents 0 to 6."""
    digest = hashlib.sha256("/".join(map(str, key)).encode()).digest()
    return random.Random(int.from_bytes(digest, "big"))


class Draws:
    """Counted choices from a generator.

    Only `random.Random.getrandbits` is used: its stream is the same in every Python version, which `randrange`, `choice`
    and `shuffle` do not promise.

    Attributes:
        bits: −log₂ of the probability of everything drawn so far.
    """

    def __init__(self, rng: random.Random) -> None:
        self.bits = 0.0
        self._getrandbits = rng.getrandbits

    def below(self, n: int) -> int:
        """A whole number from 0 to n − 1, each equally likely; the only number below 1 costs nothing."""
        self.bits += log2(n)
        return self._uniform(n)

    def weighted(self, weights: Sequence[int]) -> int:
        """An index, each as likely as its weight says."""
        rest = self._uniform(sum(weights))
        for index, weight in enumerate(weights):
            if rest < weight:
                self.bits += log2(sum(weights)) - log2(weight)
                return index
            rest -= weight
        raise AssertionError("a number below the sum of the weights lies within one of them")

    def shuffled(self, items: Sequence[T]) -> list[T]:
        """The items in an order in which every permutation is equally likely."""
        rest = list(items)
        return [rest.pop(self.below(len(rest))) for _ in items]

    def _uniform(self, n: int) -> int:
        n_bits = (n - 1).bit_length()
        # Reject what is out of range: a remainder would favour the small numbers and make the counted bits a lie.
        while (number := self._getrandbits(n_bits)) >= n:
            pass
        return number
