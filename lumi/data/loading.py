"""Batches by their number: datasets without state, for loaders with any number of workers."""

import signal
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol, cast

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

from lumi.batch import REPEATED, PackedBatch
from lumi.data.curriculum import Curriculum
from lumi.data.mixture import Mixture
from lumi.data.packed import Windows

_ORDER_CHUNK = 8192
"""Samples whose place is computed at once; one by one would cost more than reading them."""

WORKER_SECONDS = 60
"""How long a run waits for a batch from a worker before it takes it as hanging."""


class WindowSource(Protocol):
    """One source's windows, by number: `lumi.data.packed.PackedStream` and what the chat stages pack.

    Attributes:
        seq_len: tokens in a window.
        n_tokens: of all windows.
        n_whole: windows that training may read.
    """

    seq_len: int
    n_tokens: int
    n_whole: int

    def __len__(self) -> int: ...

    def windows(self, indices: np.ndarray) -> Windows:
        """The windows with these indices; a source may give more arrays than `Windows` names, all with a row a window."""
        ...


class TrainBatches(Dataset[PackedBatch]):
    """Micro-batch ``m`` of one rank, as a pure function of ``m``.

    The run is one sequence of samples. Micro-batch m of all ranks together is the samples after those of the micro-batches
    before it, and rank r of W takes the r-th slice of it: ranks are disjoint, and the global order is the same for any W that
    keeps the samples of an optimizer step.

    Args:
        streams: one for each source of the mixture.
        mixture: the order.
        curriculum: windows in a micro-batch, and how long they are.
        rank: of this process. world_size: of the run.
    """

    def __init__(
        self,
        streams: Sequence[WindowSource],
        mixture: Mixture,
        curriculum: Curriculum,
        *,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.streams, self.mixture, self.curriculum = streams, mixture, curriculum
        self.rank, self.world_size = rank, world_size
        self.accumulate = curriculum.micro_batches // world_size
        self._chunk, self._places = -1, (np.empty(0), np.empty(0), np.empty(0))

    def __len__(self) -> int:
        return self.curriculum.total_steps * self.accumulate

    def __getitem__(self, number: int) -> PackedBatch:
        """Micro-batch ``number`` of this rank."""
        step, part = divmod(number, self.accumulate)
        here = self.curriculum.at(step)
        first = self.curriculum.samples(step) + (part * self.world_size + self.rank) * here.batch_size
        places = np.array([self._place(sample) for sample in range(first, first + here.batch_size)])
        is_cut = here.seq_len < self.streams[0].seq_len
        return _read(self.streams, places[:, :2], here.seq_len if is_cut else None, places[:, 2])

    def _place(self, sample: int) -> tuple[int, int, int]:
        chunk, index = divmod(sample, _ORDER_CHUNK)
        if chunk != self._chunk:  # samples are read in order, so that one chunk at a time is enough
            self._chunk, first = chunk, chunk * _ORDER_CHUNK
            self._places = self.mixture.place(np.arange(first, first + _ORDER_CHUNK))
        source, window, piece = self._places
        return int(source[index]), int(window[index]), int(piece[index])


class ValBatches(Dataset[PackedBatch]):
    """Evenly spaced windows of each source's validation split; a batch holds one source.

    Every rank has as many batches: where they do not come out even, the last ranks read one again that says so (`REPEATED`),
    because ranks that share a model have to take every step together.

    Args:
        streams: one for each source.
        batch_size: windows in a batch.
        max_windows: at most so many of each source; null takes all.
        rank: of this process. world_size: ranks take turns by batch.
    """

    def __init__(
        self,
        streams: Sequence[WindowSource],
        *,
        batch_size: int,
        max_windows: int | None,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.streams = streams
        batches = []
        for source, stream in enumerate(streams):
            n_windows = len(stream) if max_windows is None else min(max_windows, len(stream))
            chosen = np.linspace(0, len(stream) - 1, n_windows).round().astype(np.int64)
            for start in range(0, n_windows, batch_size):
                windows = chosen[start : start + batch_size]
                batches.append(np.stack((np.full_like(windows, source), windows), axis=1))
        self._batches = batches[rank::world_size]
        self._repeats = len(batches[::world_size]) - len(self._batches)
        if self._repeats:
            self._batches.append(batches[0])

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, number: int) -> PackedBatch:
        """Batch ``number`` of this rank."""
        batch = _read(self.streams, self._batches[number])
        if self._repeats and number == len(self) - 1:
            batch["source"] = torch.full_like(batch["source"], REPEATED)
        return batch


class FromStep(Sampler[int]):
    """Counts from where the run stands to its end.

    Its length is that of the whole run even when it begins later: Lightning compares the two to know the last batch.
    """

    def __init__(self, start: int, total: int) -> None:
        self.start, self.total = start, total

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.start, self.total))

    def __len__(self) -> int:
        return self.total


def leave_stopping_to_the_run(_: int) -> None:
    """In a worker: Ctrl-C reaches every process of a terminal, and the run still needs the batches of its last step."""
    for number in (signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)


def _read(
    streams: Sequence[WindowSource], places: np.ndarray, cut_to: int | None = None, piece: np.ndarray | None = None
) -> PackedBatch:
    """Read windows at places (n, 2): source and window; of each only the piece (n,) of so many tokens, where they are cut."""
    source, window = places[:, 0], places[:, 1]
    arrays: dict[str, np.ndarray] = {}
    for number in np.unique(source):
        of_source = source == number
        part = cast(Mapping[str, np.ndarray], streams[number].windows(window[of_source]))
        for name, values in part.items():
            if name not in arrays:
                arrays[name] = np.empty((len(places), *values.shape[1:]), dtype=values.dtype)
            arrays[name][of_source] = values
    if cut_to is not None and piece is not None:
        columns = piece[:, None] * (cut_to - 1) + np.arange(cut_to)  # the next piece begins with this one's last token
        arrays = {name: np.take_along_axis(values, columns, axis=1) for name, values in arrays.items()}
        arrays["loss_mask"][:, 0] = False  # its predecessor is in the piece before
    batch: Any = {name: torch.from_numpy(values) for name, values in arrays.items()}
    batch |= {"source": torch.from_numpy(source.copy()), "sample": torch.from_numpy(window.copy())}
    return batch
