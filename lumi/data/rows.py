"""Whole examples packed into windows: no example is cut, no window mixes what attention may not mix.

Examples are placed first-fit into rows of ``seq_len`` tokens after a seeded shuffle, longest first within a block, which
fills rows to about 98 % for examples that are short beside a row. The rows of a run never change; their order is the
mixture's.
"""

from collections.abc import Sequence

import numpy as np

_BLOCK = 4096
"""Examples sorted by length together. Sorting all would put equal lengths into the same rows; none would waste space."""


def pack_rows(lengths: np.ndarray, capacity: int, seed: int, *, most: int | None = None) -> list[list[int]]:
    """Which examples share a row.

    Args:
        lengths: (n,) tokens of each example, none above ``capacity``.
        capacity: tokens of a row.
        seed: of the shuffle.
        most: examples in a row at most; null is no limit.

    Returns:
        Rows of indices; every index is in exactly one.
    """
    order = np.random.default_rng([seed, len(lengths)]).permutation(len(lengths))
    rows: list[list[int]] = []
    for start in range(0, len(order), _BLOCK):
        block = order[start : start + _BLOCK]
        block = block[np.argsort(-lengths[block], kind="stable")]
        rows += _first_fit(block, lengths, capacity, most)
    return rows


def _first_fit(block: np.ndarray, lengths: np.ndarray, capacity: int, most: int | None) -> list[list[int]]:
    rows: list[list[int]] = []
    by_room: list[list[int]] = [[] for _ in range(capacity + 1)]  # rows with exactly so much room
    for index in block.tolist():
        length = int(lengths[index])
        room = next((r for r in range(length, capacity + 1) if by_room[r]), None)
        if room is None:
            rows.append([index])
            row, room = len(rows) - 1, capacity
        else:
            row = by_room[room].pop()
            rows[row].append(index)
        if most is None or len(rows[row]) < most:
            by_room[room - length].append(row)
    return rows


class RowStream:
    """Packed rows as a source of windows.

    Args:
        examples: for each one its documents, as (tokens, loss mask); a conversation is one document, a preference pair two.
        seq_len: tokens in a window.
        seed: of the packing.
        most: examples in a row at most; null is no limit.
        ids: of the examples, so that a batch can be traced back; none where nobody will ask.

    Attributes:
        efficiency: share of the windows' places that hold tokens.
    """

    def __init__(
        self,
        examples: list[list[tuple[np.ndarray, np.ndarray]]],
        seq_len: int,
        seed: int,
        *,
        most: int | None = None,
        ids: Sequence[str] = (),
    ) -> None:
        self.examples, self.seq_len, self.ids = examples, seq_len, ids
        lengths = np.array([sum(len(tokens) for tokens, _ in documents) for documents in examples], dtype=np.int64)
        self.rows = pack_rows(lengths, seq_len, seed, most=most) if len(examples) else []
        self.n_whole = len(self.rows)
        # Nominal, so that budgets in tokens and in epochs agree with the windows that are read.
        self.n_tokens = self.n_whole * (seq_len - 1)
        self.efficiency = float(lengths.sum() / max(1, self.n_whole * seq_len))

    def __len__(self) -> int:
        return self.n_whole

    def windows(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """As `lumi.data.packed.PackedStream.windows`."""
        shape = (len(indices), self.seq_len)
        tokens = np.zeros(shape, dtype=np.int64)
        doc_ids = np.full(shape, -1, dtype=np.int32)
        loss_mask = np.zeros(shape, dtype=bool)
        for row, index in enumerate(np.asarray(indices).tolist()):
            at = number = 0
            for example in self.rows[index]:
                for ids, mask in self.examples[example]:
                    end = at + len(ids)
                    tokens[row, at:end], doc_ids[row, at:end], loss_mask[row, at:end] = ids, number, mask
                    at, number = end, number + 1
        return {"tokens": tokens, "doc_ids": doc_ids, "loss_mask": loss_mask}
