"""From a sample to the whole: shares, ratios and totals, each with the interval in which it lies in 95 of 100 cases.

What a file holds beyond the part that was read is taken to be like that part: the totals are ratio estimates in the bytes that
were read (Cochran, Sampling Techniques, ch. 6), their error comes from how much chunks of the file, and files, differ.
"""

import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

_Z = 1.959964  # 97.5 % of the normal distribution lie below
_MOST_CHUNKS = 20
"""Of a file: fewer and longer ones differ less by chance alone, so that what varies slowly over the file shows."""


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval; where it is exact, all three are the same."""

    value: float
    low: float
    high: float

    @classmethod
    def exactly(cls, value: float) -> "Estimate":
        """A figure that is known."""
        return cls(value, value, value)

    @property
    def is_exact(self) -> bool:
        """Whether there is no doubt."""
        return self.low == self.high

    def times(self, factor: float) -> "Estimate":
        """The same of something that is so many times as large."""
        return Estimate(self.value * factor, self.low * factor, self.high * factor)

    def within(self, least: float, most: float = math.inf) -> "Estimate":
        """Cut to what is possible."""
        return Estimate(*(float(min(max(part, least), most)) for part in (self.value, self.low, self.high)))

    def by(self, other: "Estimate") -> "Estimate":
        """The product of two figures whose errors have nothing to do with each other."""
        down = math.hypot((self.value - self.low) * other.value, (other.value - other.low) * self.value)
        up = math.hypot((self.high - self.value) * other.value, (other.high - other.value) * self.value)
        value = self.value * other.value
        # Nothing was seen: the largest that it may be is then a product of its own.
        return Estimate(value, max(0.0, value - down), value + up if value else self.high * other.high)


def total(parts: Iterable[Estimate]) -> Estimate:
    """The sum of figures whose errors have nothing to do with each other."""
    known = list(parts)
    value = math.fsum(part.value for part in known)
    down = math.hypot(*(part.value - part.low for part in known))
    up = math.hypot(*(part.high - part.value for part in known))
    return Estimate(value, max(0.0, value - down), value + up)


def wilson(share: float, n: float) -> Estimate:
    """A share that was found among ``n``, with the score interval (Wilson 1927), which is good for 0 and 1 too."""
    if not n:
        return Estimate(share, 0.0, 1.0)
    if math.isinf(n):
        return Estimate.exactly(share)
    middle = (share + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
    half = _Z / (1 + _Z**2 / n) * math.sqrt(share * (1 - share) / n + _Z**2 / (4 * n**2))
    return Estimate(share, min(share, max(0.0, middle - half)), max(share, min(1.0, middle + half)))


def interval(value: float, variance: float, freedom: float) -> Estimate:
    """A figure that cannot be negative, with the interval of Student's distribution of so many degrees of freedom."""
    value, half = float(value), _student(freedom) * math.sqrt(variance) if variance > 0 else 0.0
    return Estimate(value, max(0.0, value - half), value + half)


def _student(freedom: float) -> float:
    """97.5 % of the distribution lie below; by an expansion around the normal one, which is 3 % too small at 2 degrees."""
    z, n = _Z, max(freedom, 1.0)
    first, second = (z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / n + second / n**2 + third / n**3


class Stretch(NamedTuple):
    """The beginning of a part, often a file, that was read.

    Attributes:
        marks: (n, 3) float64, cumulated: how much of the part's size had been read, rows, and bytes of text; from zeros on.
        size: of the whole part, in the unit of the first column; None where nobody knows.
        ended: whether it was read to its end.
    """

    marks: np.ndarray
    size: float | None
    ended: bool

    def edges(self) -> np.ndarray:
        """The marks between which its chunks lie, (chunks + 1, 3)."""
        last = len(self.marks) - 1
        return self.marks[np.unique(np.linspace(0, last, min(last, _MOST_CHUNKS) + 1).round().astype(int))]

    def weight(self) -> float:
        """For how many rows of the part one row that was read stands."""
        return 1.0 if self.ended or self.size is None or not self.marks[-1, 0] else self.size / self.marks[-1, 0]


def totals(stretches: Sequence[Stretch], all_size: float, n_parts: int) -> tuple[Estimate, Estimate] | None:
    """Rows, and bytes of text, of a source; None where the size of what was not read is unknown.

    Args:
        stretches: of those parts that were read from, drawn at random where they are not all.
        all_size: of all parts.
        n_parts: how many there are.
    """
    if any(not stretch.ended and stretch.size is None for stretch in stretches):
        return None
    found = [_part(stretch) for stretch in stretches]
    sums, variances = (np.array([part[column] for part in found]).reshape(-1, 2) for column in (0, 1))
    value, variance, freedom = sums.sum(0), variances.sum(0), sum(part[2] for part in found)
    n = len(stretches)
    if n < n_parts:
        sizes = np.array([stretch.size or 0.0 for stretch in stretches])
        ratio, scale = value / sizes.sum(), all_size / sizes.sum()
        between = (1 - n / n_parts) * n / max(1, n - 1) * ((sums - sizes[:, None] * ratio) ** 2).sum(0)
        value, variance, freedom = value * scale, scale**2 * (variance + between), freedom + n - 1
    seen = np.sum([stretch.marks[-1, 1:] for stretch in stretches], axis=0)
    rows, n_bytes = (interval(value[i], variance[i], freedom).within(seen[i]) for i in (0, 1))
    return rows, n_bytes


def _part(stretch: Stretch) -> tuple[np.ndarray, np.ndarray, int]:
    """Rows and bytes of a part, (2,), their variances, (2,), and the degrees of freedom of these."""
    if stretch.ended or not stretch.marks[-1, 0]:
        return stretch.marks[-1, 1:], np.zeros(2), 0
    chunks = np.diff(stretch.edges(), axis=0)
    sizes, found = chunks[:, 0], chunks[:, 1:]
    ratio, n, scale = found.sum(0) / sizes.sum(), len(chunks), stretch.weight()
    if n < 2:
        return found.sum(0) * scale, (found.sum(0) * scale) ** 2, 1  # one chunk says nothing about how much they differ
    unread = max(0.0, 1 - 1 / scale)
    variance = unread * n / (n - 1) * ((found - sizes[:, None] * ratio) ** 2).sum(0)
    return found.sum(0) * scale, variance * scale**2, n - 1


def ratio(above: np.ndarray, below: np.ndarray, clusters: np.ndarray, unseen: float) -> Estimate:
    """The sum of ``above`` over that of ``below``, both (rows,) and weighted.

    Args:
        above: what is wanted, of each row of the sample.
        below: what is known of the whole.
        clusters: (rows,) int; rows of one chunk are alike, so chunks are compared and not rows.
        unseen: share of all rows that are not in the sample; 0 makes the ratio exact.
    """
    if not below.sum():
        return Estimate.exactly(0.0)
    _, numbers = np.unique(clusters, return_inverse=True)
    tops, bases = np.bincount(numbers, weights=above), np.bincount(numbers, weights=below)
    value, n = float(tops.sum() / bases.sum()), len(bases)
    others = bases.sum() - bases
    if n < 2 or not others.all():
        return Estimate(value, 0.0, 2 * value) if unseen else Estimate.exactly(value)
    # The jackknife: how much it matters to leave out each chunk. Of few rows a linear error would be too small.
    without = (tops.sum() - tops) / others
    return interval(value, unseen * (n - 1) / n * ((without - value) ** 2).sum(), n - 1)
