"""All matrix products of one training step, by their shapes: what the limit is made of.

A linear layer is three products: ``X W`` forward, and backward the slope of its input and of its weight. Attention is six
batched ones (scores and weighted sum forward, two each backward), of which a causal query needs half.
"""

import dataclasses

from benchmarks.training.work import Work


@dataclasses.dataclass(frozen=True)
class Product:
    """``(m, k) @ (k, n)``, so many times; ``batch`` above 1 is a batched one.

    Attributes:
        m, k, n: of the operands.
        count: how often in a step; a half for what only half is needed of.
        batch: matrices in one call.
    """

    m: int
    k: int
    n: int
    count: float
    batch: int = 1

    @property
    def flops(self) -> float:
        """Operations of all of them, a multiply-add is two."""
        return 2.0 * self.m * self.k * self.n * self.batch * self.count


@dataclasses.dataclass(frozen=True)
class Part:
    """A part of the step, and the ways to compute it, of which the fastest counts.

    Attributes:
        name: for the report.
        ways: name of a way → its products; all have the same operations.
    """

    name: str
    ways: dict[str, tuple[Product, ...]]


def step_parts(work: Work, head_rows: tuple[int, ...]) -> list[Part]:
    """Every product of one step.

    Args:
        head_rows: rows of the logits that the head may compute at once; each is a way.
    """
    tokens, width, layers = work.n_tokens, work.d_model, work.n_layers
    kv_width = work.n_kv_heads * work.d_head

    def linear(inputs: int, outputs: int) -> tuple[Product, ...]:
        return _linear(tokens, inputs, outputs, layers)

    apart = linear(width, width) + linear(width, kv_width) + linear(width, kv_width)
    return [
        Part("queries, keys, values", {"apart": apart, "as one": linear(width, width + 2 * kv_width)}),
        Part("attention", {f"{n} heads at once": _attention(work, n) for n in _head_batches(work)}),
        Part("attention output", {"": linear(width, width)}),
        Part("gate, up", {"apart": 2 * linear(width, work.d_ff), "as one": linear(width, 2 * work.d_ff)}),
        Part("down", {"": linear(work.d_ff, width)}),
        Part("head", {f"{rows} rows": _head(work, rows) for rows in head_rows if tokens % rows == 0}),
    ]


def _linear(rows: int, inputs: int, outputs: int, count: float) -> tuple[Product, ...]:
    """Forward, slope of the input, slope of the weight."""
    return (
        Product(rows, inputs, outputs, count),
        Product(rows, outputs, inputs, count),
        Product(outputs, rows, inputs, count),
    )


def _head(work: Work, rows: int) -> tuple[Product, ...]:
    return _linear(rows, work.d_model, work.vocab_size, work.n_tokens // rows)


def _head_batches(work: Work) -> tuple[int, ...]:
    """Heads of how many windows in one call: one matrix of scores that stays in a cache, or all of them."""
    return tuple(sorted({1, work.n_heads, work.n_heads * work.batch_size}))


def _attention(work: Work, batch: int) -> tuple[Product, ...]:
    """Scores and weighted sum forward; the slopes of weights, values, queries and keys backward."""
    length, size = work.seq_len, work.d_head
    calls = work.n_layers * work.batch_size * work.n_heads / batch
    return (
        Product(length, size, length, 2 * calls / 2, batch),  # Q K^T, and the slope of the weights: dO V^T
        Product(length, length, size, 4 * calls / 2, batch),  # P V, P^T dO, dS K, dS^T Q
    )
