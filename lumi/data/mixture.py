"""The order of training samples as a pure function of their index.

Sample ``i`` of a run is always the same window of the same source, whatever the number of workers, ranks or restarts, so
there is no sampler state to save: resuming needs one integer, and seeking costs nothing. Two parts:

- *which source*: a fixed table of 10,000 slots deals the sources out in proportion to their weights, as evenly as possible
  (each source's slots are equally spaced), and repeats. Every 10,000 samples have the exact mix, and any stretch is within a
  few samples of it.
- *which window of it*: a keyed permutation of the source's windows, another one for every epoch. It is a Feistel cipher on
  the index (Black and Rogaway, "Ciphers with arbitrary finite domains", 2002), hence constant memory and O(1).
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from lumi.errors import ConfigError

SLOTS = 10_000
"""Length of the table: weights are exact to 1/10,000."""

_ROUNDS = 6


@dataclasses.dataclass(frozen=True, kw_only=True)
class Phase:
    """A stretch of the run with its own weights (a curriculum has several).

    Attributes:
        first_sample: global index of its first sample.
        weights: share of each source; need not sum to one, and may be 0 here if it is above 0 in another phase.
        pieces: samples that a window is cut into; they follow each other in their source.
    """

    first_sample: int
    weights: Sequence[float]
    pieces: int = 1


class Mixture:
    """Maps global sample indices to (source, window).

    Args:
        sizes: windows of each source.
        phases: in order; the first begins at sample 0.
        seed: another seed, another order.
    """

    def __init__(self, *, sizes: Sequence[int], phases: Sequence[Phase], seed: int) -> None:
        assert [phase.first_sample for phase in phases[:1]] == [0], "the first phase begins at sample 0"
        self.sizes = np.asarray(sizes, dtype=np.int64)
        self.seed = seed
        self._starts = np.array([phase.first_sample for phase in phases], dtype=np.int64)
        self._pieces = [phase.pieces for phase in phases]
        self._tables = [_SlotTable(phase.weights) for phase in phases]
        # How many samples, and windows, of each source all earlier phases took: a source continues with the next window.
        self._taken = [np.zeros(len(sizes), dtype=np.int64)]
        self._bases = [np.zeros(len(sizes), dtype=np.int64)]
        for table, pieces, length in zip(self._tables, self._pieces, np.diff(self._starts), strict=False):
            taken = table.taken(int(length))
            self._taken.append(self._taken[-1] + taken)
            self._bases.append(self._bases[-1] - (-taken // pieces))

    def locate(self, samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Global indices (n,) -> source (n,) and window within the source (n,), int64."""
        return self.place(samples)[:2]

    def place(self, samples: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Likewise, and the piece of the window (n,), 0 where windows are not cut."""
        source, ordinal, piece = self._deal(np.asarray(samples, dtype=np.int64))
        window = np.empty_like(ordinal)
        for name in np.unique(source):
            of_source = source == name
            epoch, position = np.divmod(ordinal[of_source], self.sizes[name])
            key = _mix(_mix(_mix(np.uint64(self.seed)) + np.uint64(name)) + epoch.astype(np.uint64))
            window[of_source] = permute(position, int(self.sizes[name]), key)
        return source, window, piece

    def taken(self, n_samples: int) -> np.ndarray:
        """Samples of each source among the first ``n_samples`` of the run: (number of sources,) int64."""
        phase = int(np.searchsorted(self._starts, max(0, n_samples - 1), side="right")) - 1
        return self._taken[phase] + self._tables[phase].taken(n_samples - int(self._starts[phase]))

    def _deal(self, samples: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Source of each sample, how many windows of that source came before it, and the piece of its window."""
        source, ordinal, piece = (np.empty_like(samples) for _ in range(3))
        phase_of = np.searchsorted(self._starts, samples, side="right") - 1
        for phase in np.unique(phase_of):
            here = phase_of == phase
            table = self._tables[phase]
            turn, slot = np.divmod(samples[here] - self._starts[phase], SLOTS)
            source[here] = table.source[slot]
            windows, piece[here] = np.divmod(turn * table.counts[source[here]] + table.rank[slot], self._pieces[phase])
            ordinal[here] = self._bases[phase][source[here]] + windows
        return source, ordinal, piece


class _SlotTable:
    """10,000 slots dealt out by weight.

    Attributes:
        counts: slots of each source.
        source: (SLOTS,) source of each slot.
        rank: (SLOTS,) how many slots of the same source come before it.
    """

    def __init__(self, weights: Sequence[float]) -> None:
        self.counts = _apportion(np.asarray(weights, dtype=np.float64))
        # Source k wants its j-th slot at (j + 1/2) / count: sorting all wishes interleaves the sources evenly.
        wishes = np.concatenate([(np.arange(count) + 0.5) / max(1, count) for count in self.counts])
        owners = np.repeat(np.arange(len(self.counts)), self.counts)
        ranks = np.concatenate([np.arange(count) for count in self.counts])
        order = np.argsort(wishes, kind="stable")
        self.source, self.rank = owners[order], ranks[order]

    def taken(self, n_samples: int) -> np.ndarray:
        """Slots of each source among the first ``n_samples``: (number of sources,) int64."""
        turns, rest = divmod(n_samples, SLOTS)
        return turns * self.counts + np.bincount(self.source[:rest], minlength=len(self.counts))


def _apportion(weights: np.ndarray) -> np.ndarray:
    """Whole slots for each weight, summing to SLOTS (largest remainders)."""
    if not np.all(np.isfinite(weights)) or np.any(weights < 0) or weights.sum() <= 0:
        raise ConfigError(f"data weights {weights.tolist()}", "must be finite, 0 or more, and not all 0")
    exact = weights / weights.sum() * SLOTS
    counts = np.floor(exact).astype(np.int64)
    most_short = np.argsort(counts - exact, kind="stable")[: SLOTS - counts.sum()]
    counts[most_short] += 1
    if np.any((counts == 0) & (weights > 0)):
        raise ConfigError(
            f"data weights {weights.tolist()}",
            f"each must be 0 or at least 1/{SLOTS} of the sum",
            "leave the source out",
        )
    return counts


def permute(index: np.ndarray, size: int, key: np.ndarray | np.uint64) -> np.ndarray:
    """A keyed permutation of ``0 … size - 1``, one element at a time.

    Args:
        index: (n,) int64 in [0, size).
        size: length of the permuted range.
        key: (n,) or scalar uint64; another key, another permutation.

    Returns:
        (n,) int64 in [0, size); distinct for distinct indices under one key.
    """
    half = max(1, (int(size - 1).bit_length() + 1) // 2)
    key = np.broadcast_to(key, index.shape)
    result = _feistel(index.astype(np.uint64), half, key)
    # The cipher permutes a power of four; walking on from what falls outside gives a permutation of the range itself.
    while np.any(outside := result >= size):
        result[outside] = _feistel(result[outside], half, key[outside])
    return result.astype(np.int64)


def _feistel(value: np.ndarray, half: int, key: np.ndarray) -> np.ndarray:
    mask = np.uint64((1 << half) - 1)
    left, right = value >> np.uint64(half), value & mask
    for turn in range(_ROUNDS):
        left, right = right, left ^ (_mix(right + _mix(key + np.uint64(turn))) & mask)
    return (left << np.uint64(half)) | right


def _mix(value: np.ndarray | np.uint64) -> np.ndarray:
    """SplitMix64's finaliser (Steele, Lea and Flood 2014): every input bit reaches every output bit."""
    with np.errstate(over="ignore"):  # arithmetic modulo 2^64 is meant
        value = np.asarray(value, dtype=np.uint64) + np.uint64(0x9E3779B97F4A7C15)
        value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return value ^ (value >> np.uint64(31))
