"""A sample of a source that is spread over it: some of every file, and of what is read there a random part.

Reading is ten times as fast as what is done to a text, and packed files have no middle to begin at. So local files are read
from their beginnings, ten times as much as is wanted together, and the sample is drawn at random from these rows. A stream and
a source of a kind that is not known here are read up to the size of the sample, and all of that is taken.
"""

import dataclasses
import functools
import heapq
import math
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lumi.corpus.document import Document, Rejected, Source
from lumi.corpus.existing import Existing
from lumi.corpus.files import Files
from lumi.corpus.hub import hub_count
from lumi.corpus.hub_source import Hub
from lumi.corpus.paths import find_files
from lumi.corpus.planning.extrapolate import Stretch
from lumi.corpus.pydocs import PyDocs
from lumi.corpus.readers import file_format, known_formats, parquet_rows
from lumi.corpus.streams import Meter, metered
from lumi.corpus.world import World
from lumi.manifest import read_manifest

_READ_PER_SAMPLED = 10
_LONGEST_STRETCH = 4e6
"""Bytes that are wanted of a file: of many files, so many are drawn that each can give as much."""
_FEWEST_PARTS = 8
_FEWEST_MARKS = 3
"""Pieces that are read of a part at least: their differences give the error."""
_MARKS = 200
"""So many, about, are kept of a part."""
_SEED = 20261

Position = Callable[[int, int, Meter], float]
"""Rows, bytes of text, and bytes on disk that were read → how much of the part's size that is."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Part:
    """What of a source can be read by itself.

    Attributes:
        source: that gives this part only.
        size: in any unit; None where nobody knows.
        position: how much of it has been read, in the same unit.
        is_file: whether `size` is that of a file on disk.
        is_metered: whether the position is known where a piece of the file ends, and not at every row.
    """

    source: Source
    size: float | None = None
    position: Position = lambda rows, _, __: float(rows)
    is_file: bool = False
    is_metered: bool = False


class Drawn(NamedTuple):
    """A row of the sample.

    Attributes:
        row: as the source gave it.
        part: number of its part among all parts of the source.
        number: of the row in its part.
    """

    row: Document | Rejected
    part: int
    number: int

    @property
    def n_bytes(self) -> int:
        """Of its text."""
        return len(self.row.text.encode("utf-8", "replace")) if isinstance(self.row, Document) else 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sample:
    """Rows of a source, and what was learnt of its size on the way.

    Attributes:
        rows: in the order of the source.
        stretches: number of a part → what was read of it.
        all_size: of all parts, read or not; 0 where nobody knows.
        n_parts: how many there are.
        are_files: whether the parts are files.
        seconds: that reading took.
    """

    rows: list[Drawn]
    stretches: dict[int, Stretch]
    all_size: float
    n_parts: int
    are_files: bool
    seconds: float

    @property
    def read_rows(self) -> int:
        """Rows that were read, in the sample or not."""
        return int(sum(stretch.marks[-1, 1] for stretch in self.stretches.values()))

    @property
    def read_bytes(self) -> int:
        """Bytes of text that were read, in the sample or not."""
        return int(sum(stretch.marks[-1, 2] for stretch in self.stretches.values()))

    @property
    def is_whole(self) -> bool:
        """Whether the source was read to its end."""
        return len(self.stretches) == self.n_parts and all(stretch.ended for stretch in self.stretches.values())

    @property
    def unseen(self) -> float:
        """Share of the rows that are not in the sample; 1 where only the beginning was read."""
        return 1 - len(self.rows) / max(1, self.read_rows) if self.is_whole else 1.0

    def weights(self) -> np.ndarray:
        """For how many rows each one stands, up to a factor, (rows,): stretches are not always in proportion."""
        weights = {part: stretch.weight() for part, stretch in self.stretches.items()}
        return np.array([weights[drawn.part] for drawn in self.rows])

    def clusters(self) -> np.ndarray:
        """Which rows stood near each other, (rows,) int: in the same file of many, else in the same chunk of a file."""
        if self.is_whole:
            return np.arange(len(self.rows))  # drawn one by one from all there are
        parts = np.array([drawn.part for drawn in self.rows], dtype=np.int64)
        if len(self.stretches) >= _FEWEST_PARTS:
            return parts
        chunks = np.zeros(len(parts), dtype=np.int64)
        for part, stretch in self.stretches.items():
            here = parts == part
            rows = [drawn.number for drawn in self.rows if drawn.part == part]
            chunks[here] = np.searchsorted(stretch.edges()[:, 1], rows, side="right")
        return parts * 1000 + chunks


def draw_sample(source: Source, sample_bytes: float) -> Sample:
    """At most so much text of a source.

    Raises:
        DataError: the source cannot be read.
    """
    parts, generator = parts_of(source), random.Random(_SEED)
    are_files = parts[0].is_file
    wanted = math.inf if isinstance(source, PyDocs) else sample_bytes * (_READ_PER_SAMPLED if are_files else 1)
    chosen = _chosen(parts, wanted, generator)
    chosen_size = sum(parts[number].size or 0.0 for number in chosen) or 1.0
    rows, stretches, read_bytes = _Draw(sample_bytes, generator), dict[int, Stretch](), 0.0
    begin = time.perf_counter()
    for number in chosen:
        size = parts[number].size
        stretches[number] = _read(parts[number], number, wanted if size is None else wanted * size / chosen_size, rows)
        read_bytes += stretches[number].marks[-1, 2]
        if read_bytes > 1.5 * wanted and len(stretches) >= _FEWEST_PARTS:
            break  # they are in no order: those that are left are like these
    return Sample(
        rows=rows.kept(),
        stretches=stretches,
        all_size=sum(part.size or 0.0 for part in parts),
        n_parts=len(parts),
        are_files=are_files,
        seconds=time.perf_counter() - begin,
    )


def parts_of(source: Source) -> list[Part]:
    """The files of a source, or what else it is made of, with their sizes.

    Raises:
        DataError: there is no file, or it cannot be read.
    """
    match source:
        case Files() | Hub(path=str() | list()):
            return _files(source)
        case Hub(dataset=str() as dataset):
            return [Part(source=source, size=hub_count(dataset, source.subset, source.split, source.revision))]
        case World():
            return [Part(source=source, size=source.megabytes * 1e6, position=lambda _, n_bytes, __: n_bytes)]
        case Existing():
            known = read_manifest(Path(source.path), kind="corpus").info["sources"]
            names = [name for name, _ in source.settings()["sources"]]
            return [
                Part(source=dataclasses.replace(source, sources=[name]), size=known[name]["documents"] * source.share)
                for name in names
            ]
        case _:
            return [Part(source=source)]


def _files(source: Files | Hub) -> list[Part]:
    formats = ("jsonl", "json", "parquet", *(("txt",) if isinstance(source, Files) else ()))
    patterns = [source.path] if isinstance(source.path, str) else list(source.path or ())
    found = find_files(patterns, lambda path: file_format(path) in formats, known_formats())
    return [_file(source, path) for path in found.values()]


def _file(source: Files | Hub, path: Path) -> Part:
    # Whether too many rows are faulty is a question about all files, not about each.
    alone, size = dataclasses.replace(source, path=[str(path)], max_rejected_ratio=1.0), float(path.stat().st_size)
    if file_format(path) == "parquet":
        count = functools.cache(parquet_rows)  # when it is read, which not every file is
        return Part(
            source=alone, size=size, position=lambda rows, _, __: rows * size / max(1, count(path)), is_file=True
        )
    return Part(
        source=alone, size=size, position=lambda _, __, meter: float(meter.n_bytes), is_file=True, is_metered=True
    )


def _chosen(parts: list[Part], wanted: float, generator: random.Random) -> list[int]:
    """Numbers of parts in a random order: all, or of too many for a stretch of each, some."""
    chosen, n_bytes = [], 0.0
    for number in generator.sample(range(len(parts)), len(parts)):
        if parts[number].is_file and n_bytes >= wanted and len(chosen) >= _FEWEST_PARTS:
            break
        chosen.append(number)
        n_bytes += min(parts[number].size or 0.0, _LONGEST_STRETCH)
    return chosen


def _read(part: Part, number: int, limit: float, rows: "_Draw") -> Stretch:
    """Read from the beginning up to a mark at or beyond ``limit`` bytes of text."""
    marks, n_rows, n_bytes, squares, last = [(0.0, 0, 0)], 0, 0, 0.0, 0.0
    with metered() as meter:
        for row in part.source.documents():
            drawn = Drawn(row, number, n_rows)
            size = drawn.n_bytes
            position = part.position(n_rows + 1, n_bytes + size, meter)
            if position != last:
                # The rows before this one took up the pieces before: it is the first that needed another.
                if n_rows and (n_bytes >= limit or n_bytes - marks[-1][2] >= limit / _MARKS):
                    marks.append((last, n_rows, n_bytes))
                if n_bytes >= limit and len(marks) > _FEWEST_MARKS:
                    break
                last = position
            n_rows, n_bytes, squares = n_rows + 1, n_bytes + size, squares + size**2
            rows.offer(drawn, size)
        else:
            marks.append((part.size or last, n_rows, n_bytes))
            return Stretch(np.array(marks, dtype=np.float64), part.size, ended=True)
    table = np.array(marks, dtype=np.float64)
    if part.is_metered:
        # The last piece ends within a row that is not counted: half of a row, and long ones are met more often.
        table[:, 0] *= 1 - squares / n_bytes**2 / 2
    return Stretch(table, part.size, ended=False)


class _Draw:
    """Keeps rows at random: of all that were offered those with the smallest lots, as many as fit."""

    def __init__(self, most_bytes: float, generator: random.Random) -> None:
        self.most_bytes, self.generator = most_bytes, generator
        self._heap: list[tuple[float, Drawn, int]] = []
        self._n_bytes, self._first_refused = 0, 1.0

    def offer(self, drawn: Drawn, size: int) -> None:
        """Take a row, and give others back if need be."""
        lot = self.generator.random()
        if lot >= self._first_refused:
            return  # also where it would fit: else short rows would be preferred
        heapq.heappush(self._heap, (-lot, drawn, size))
        self._n_bytes += size
        while self._n_bytes > self.most_bytes and len(self._heap) > 1:
            lot, _, size = heapq.heappop(self._heap)
            self._first_refused = -lot
            self._n_bytes -= size

    def kept(self) -> list[Drawn]:
        """In the order in which they stood."""
        return sorted((drawn for _, drawn, _ in self._heap), key=lambda drawn: (drawn.part, drawn.number))
