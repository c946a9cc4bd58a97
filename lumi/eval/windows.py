"""What is scored, cut into windows: the common form of packed data and of one long text."""

import itertools
from typing import Protocol, TypedDict

import numpy as np

from lumi.manifest import Manifest


class Windows(TypedDict):
    """``n`` windows of ``T`` tokens; the fields of `lumi.batch.PackedBatch`."""

    tokens: np.ndarray  # (n, T) int64
    doc_ids: np.ndarray  # (n, T) int32: -1 where there is only padding
    loss_mask: np.ndarray  # (n, T) bool: True where the token itself is a target


class WindowStream(Protocol):
    """Windows that together mark every target exactly once; `lumi.data.packed.PackedStream` is one."""

    def __len__(self) -> int: ...

    def windows(self, indices: np.ndarray) -> Windows:
        """The windows with these indices."""
        ...


class PackedSplit(WindowStream, Protocol):
    """One split of a packed dataset, as windows and as a plain stream; `lumi.data.packed.PackedStream`.

    Attributes:
        manifest: of the packed dataset.
        n_tokens: N, tokens of the split.
        offsets: (documents + 1,) int64, where each document begins, and N.
    """

    manifest: Manifest
    n_tokens: int

    @property
    def offsets(self) -> np.ndarray:
        """Where documents begin, and the end."""
        ...

    def tokens(self, start: int, stop: int) -> np.ndarray:
        """Tokens ``start … stop - 1`` of the stream."""
        ...


class SlidingWindows:
    """One long sequence cut into overlapping windows, each token a target in exactly one of them.

    Window k begins at ``k * stride``; its targets are what the windows before it did not reach, so from the second
    window on each target has at least ``window - stride`` tokens of context (the ``stride`` of Hugging Face's
    perplexity guide). The first token is context only.

    Args:
        ids: (N,) the sequence, bos first.
        window: tokens that the model sees at a time.
        stride: tokens from one window to the next; smaller is more context and more work.
    """

    def __init__(self, ids: np.ndarray, *, window: int, stride: int) -> None:
        self.ids, self.window, self.stride = ids, window, stride

    def __len__(self) -> int:
        return 1 + max(0, -(-(len(self.ids) - self.window) // self.stride))

    def windows(self, indices: np.ndarray) -> Windows:
        """The windows with these indices; what lies behind the end of the sequence is padding and no target."""
        begins = np.asarray(indices, dtype=np.int64)[:, None] * self.stride  # (n, 1)
        at = begins + np.arange(min(self.window, len(self.ids)))  # (n, T) positions in the sequence
        reached = np.where(begins > 0, begins - self.stride + self.window, 1)
        inside = at < len(self.ids)
        tokens = np.where(inside, self.ids[np.minimum(at, len(self.ids) - 1)], 0)
        doc_ids = np.where(inside, 0, -1).astype(np.int32)
        return {"tokens": tokens, "doc_ids": doc_ids, "loss_mask": inside & (at >= reached)}


class WholeDocuments:
    """The documents of a packed split, each scored from its own beginning.

    Training reads the stream in windows that cut through documents, and what follows a cut is predicted without what
    went before. Here a window holds as many whole documents as fit, in their order; a document that is longer than a
    window is cut into overlapping ones, as `SlidingWindows` does. Every target is scored exactly once.

    Args:
        split: of a packed dataset.
        window: tokens that the model sees at a time.
        stride: tokens from one window of a long document to the next, at most ``window - 1``.
    """

    def __init__(self, split: PackedSplit, *, window: int, stride: int) -> None:
        self.split, self.window = split, window
        self._rows = _rows(split.offsets, window, stride)

    def __len__(self) -> int:
        return len(self._rows)

    def windows(self, indices: np.ndarray) -> Windows:
        """The windows with these indices, padded with token 0 outside any document."""
        shape = (len(indices), self.window)
        tokens = np.zeros(shape, dtype=np.int64)
        doc_ids = np.full(shape, -1, dtype=np.int32)
        loss_mask = np.zeros(shape, dtype=bool)
        for row, index in enumerate(np.asarray(indices).tolist()):
            at = 0
            for number, (start, stop, target) in enumerate(self._rows[index]):
                end = at + stop - start
                tokens[row, at:end] = self.split.tokens(start, stop)
                doc_ids[row, at:end] = number
                loss_mask[row, at + target - start : end] = True
                at = end
        return {"tokens": tokens, "doc_ids": doc_ids, "loss_mask": loss_mask}


def _rows(offsets: np.ndarray, window: int, stride: int) -> list[list[tuple[int, int, int]]]:
    """Each row's parts, as (first token, end, first target) in the stream."""
    rows: list[list[tuple[int, int, int]]] = []
    free = 0
    edges = np.asarray(offsets).tolist()
    for begin, end in itertools.pairwise(edges):
        if end - begin > free:
            rows.append([])
            free = window
        start, target = begin, begin + 1  # bos is context
        while end - start > free:  # only a document that is longer than a window
            rows[-1].append((start, start + free, target))
            target, start = start + free, start + stride
            rows.append([])
        rows[-1].append((start, end, target))
        free -= end - start
    return rows
