"""Finding duplicates: which documents agree in a hash, for more documents than fit into memory.

A task takes one band of the signatures, or the hashes of the texts, of all blocks. It sorts them, a range of hashes at a
time, and compares within each run of equal ones. Documents are numbered through all blocks in their order.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lumi.corpus.duplicates.settings import Duplicates
from lumi.corpus.duplicates.signature import similarities
from lumi.corpus.engine.blocks import BlockId, read_array, write_array
from lumi.corpus.engine.executor import Task

_MOST_SORTED = 16_000_000
"""Hashes that are sorted at a time: half a gigabyte."""
_MOST_COMPARED = 200_000
"""Documents whose minima are in memory at a time: 50 MB."""

PAIRS = "pairs"


class MatchDocuments(Task):
    """One task for the exact hashes, and one for each band of the near ones.

    Args:
        folder: of the stage.
        processed: of the stage before.
        blocks: in their order.
        sizes: documents in each block.
        duplicates: which ones count.
    """

    name = "match"

    def __init__(
        self, folder: Path, processed: Path, blocks: Sequence[BlockId], sizes: Sequence[int], duplicates: Duplicates
    ) -> None:
        super().__init__(folder)
        self.processed, self.blocks, self.duplicates = processed, blocks, duplicates
        self.starts = np.concatenate(([0], np.cumsum(sizes))).astype(np.int64)

    @property
    def n_tasks(self) -> int:
        """The exact hashes, then the bands."""
        return 1 + (self.duplicates.bands if self.duplicates.near else 0)

    def result(self, rank: int) -> Path:
        """Where a task leaves its pairs, (n, 2) int64: the earlier document, and one that duplicates it."""
        return self.folder / PAIRS / f"{rank:03d}.npy"

    def work(self, data: Any, rank: int) -> None:
        """All pairs of one kind of hash."""
        found = self._exact() if rank == 0 else self._near(rank - 1)
        pairs = [np.stack(pair, axis=1) for pair in found]
        write_array(self.result(rank), np.concatenate([np.empty((0, 2), dtype=np.int64), *pairs]))

    def _exact(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        if not self.duplicates.exact:
            return

        def half(number: int) -> Callable[[BlockId], np.ndarray]:
            return lambda block: read_array(block.path(self.processed, ".facts.npy"))["hash"][:, number]

        for sorted_keys, sorted_ids in self._ranges(half(0)):
            repeated = _members(*_runs(sorted_keys))
            keys, ids = sorted_keys[repeated], sorted_ids[repeated]
            # Equal in 64 bits may be chance among a billion documents; the other 64 decide.
            rest = self._rows(ids, half(1))
            order = np.lexsort((ids, rest, keys))
            both, ids = np.stack((keys, rest))[:, order], ids[order]
            is_first = np.ones(len(ids), dtype=bool)
            is_first[1:] = (both[:, 1:] != both[:, :-1]).any(axis=0)
            first = ids[is_first][np.cumsum(is_first) - 1]
            yield first[~is_first], ids[~is_first]

    def _near(self, band: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        def minima_of(block: BlockId) -> np.ndarray:
            return read_array(block.path(self.processed, ".minima.npy"), mapped=True)

        def band_of(block: BlockId) -> np.ndarray:
            return read_array(block.path(self.processed, ".bands.npy"), mapped=True)[band]

        for keys, ids in self._ranges(band_of):
            for starts, sizes in _portions(*_runs(keys)):
                members = ids[_members(starts, sizes)]
                minima = self._rows(members, minima_of)
                begins = np.cumsum(sizes) - sizes
                pair = begins[sizes == 2]  # most runs: compared all at once
                alike = similarities(minima[pair], minima[pair + 1]) >= self.duplicates.threshold
                yield members[pair][alike], members[pair + 1][alike]
                for begin, size in zip(begins[sizes > 2], sizes[sizes > 2], strict=True):
                    yield from self._linked(members[begin : begin + size], minima[begin : begin + size])

    def _linked(self, ids: np.ndarray, minima: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Each document with the first one that it is similar to, among those that began a group of this run."""
        while len(ids) > 1:
            similar = similarities(minima[0], minima[1:]) >= self.duplicates.threshold
            yield np.full(int(similar.sum()), ids[0]), ids[1:][similar]
            ids, minima = ids[1:][~similar], minima[1:][~similar]

    def _ranges(self, read: Callable[[BlockId], np.ndarray]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Sorted hashes and their documents, a part of all hashes at a time; 0 is that of documents like nothing."""
        n_passes = int(-(-int(self.starts[-1]) // _MOST_SORTED))
        for number in range(n_passes):
            keys, ids = [], []
            for block, start in zip(self.blocks, self.starts, strict=False):
                hashes = np.asarray(read(block))
                chosen = (hashes != 0) & (hashes % np.uint64(n_passes) == number)
                keys.append(hashes[chosen])
                ids.append(np.flatnonzero(chosen) + start)
            joined = np.concatenate(keys)
            order = np.argsort(joined, kind="stable")
            yield joined[order], np.concatenate(ids)[order]

    def _rows(self, documents: np.ndarray, read: Callable[[BlockId], np.ndarray]) -> np.ndarray:
        """The rows that ``read`` gives of a block, for these documents, read block by block."""
        blocks = np.searchsorted(self.starts, documents, side="right") - 1
        rows = np.empty(0, dtype=np.uint64)
        for number, block in enumerate(np.unique(blocks)):
            here = blocks == block
            found = read(self.blocks[block])[documents[here] - self.starts[block]]
            if number == 0:
                rows = np.empty((len(documents), *found.shape[1:]), dtype=found.dtype)
            rows[here] = found
        return rows


def groups(pairs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Documents that belong together, and the first of each one's group, (n,) int64 both, those that are first left out.

    Args:
        pairs: (n, 2) int64, documents that are similar.
    """
    members, flat = np.unique(pairs, return_inverse=True)
    ends = flat.reshape(-1, 2)
    label = np.arange(len(members))
    while True:  # the smallest number in reach spreads along the pairs, and each round doubles how far
        least = np.minimum(label[ends[:, 0]], label[ends[:, 1]])
        new = label.copy()
        np.minimum.at(new, ends[:, 0], least)
        np.minimum.at(new, ends[:, 1], least)
        new = new[new]
        if np.array_equal(new, label):
            break
        label = new
    later = label != np.arange(len(members))
    return members[later], members[label[later]]


def _runs(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where sorted keys are equal, two or more of them: starts and sizes, (n_runs,) int64 both."""
    edges = np.flatnonzero(np.concatenate(([True], keys[1:] != keys[:-1], [True]))) if len(keys) else np.zeros(1, int)
    sizes = np.diff(edges)
    return edges[:-1][sizes > 1], sizes[sizes > 1]


def _members(starts: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """The positions in all runs, one run after the other."""
    begins = np.cumsum(sizes) - sizes
    return np.arange(int(sizes.sum())) + np.repeat(starts - begins, sizes)


def _portions(starts: np.ndarray, sizes: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Runs of about `_MOST_COMPARED` documents together; a longer run is cut, as its parts meet in other bands."""
    if not len(starts):
        return
    n_parts = -(-sizes // _MOST_COMPARED)
    if (n_parts > 1).any():
        part = np.arange(int(n_parts.sum())) - np.repeat(np.cumsum(n_parts) - n_parts, n_parts)
        rest = np.repeat(sizes, n_parts) - part * _MOST_COMPARED
        starts, sizes = np.repeat(starts, n_parts) + part * _MOST_COMPARED, np.minimum(rest, _MOST_COMPARED)
    portion = np.cumsum(sizes) // _MOST_COMPARED
    cuts = np.flatnonzero(portion[1:] != portion[:-1]) + 1
    yield from zip(np.split(starts, cuts), np.split(sizes, cuts), strict=True)
