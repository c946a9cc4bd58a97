"""The limit: the time that the matrix products of a step take by themselves, with nothing between them.

``python -m benchmarks.training.limit …`` is a worker. Every product runs through ``torch.mm(out=…)`` on contiguous operands
of exactly its shape. At the start all ways (chunks of the head, products apart or as one, the product or its transpose) are
tried, and the fastest is what a turn measures: no program made of plain matrix products can be faster. On a GPU a fused kernel
need not write the square of the scores, so there attention counts at the rate of a large product.
"""

import argparse
import math
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.training.products import Part, Product, step_parts
from benchmarks.training.work import Work, load_work
from benchmarks.training.worker import Channel, imported, serve, wait

_LOGITS_BYTES = 2 * 2**30
"""A larger matrix of logits is not tried."""
_SMALLEST_CHUNK = 256
_TRIALS = 3
_MOST_CALLS = 4
"""Of one product in a turn: a model has many layers of the same shape."""


class Call:
    """One product or its transpose, ready to run.

    Args:
        product: shape.
        swapped: compute ``B^T A^T``: the same operations, another walk through memory.
    """

    def __init__(self, product: Product, swapped: bool, device: torch.device, dtype: torch.dtype) -> None:
        self.product, self.swapped = product, swapped
        m, n = (product.n, product.m) if swapped else (product.m, product.n)
        batch = (product.batch,) if product.batch > 1 else ()
        self.left = torch.randn(*batch, m, product.k, device=device, dtype=dtype)
        self.right = torch.randn(*batch, product.k, n, device=device, dtype=dtype)
        self.out = torch.empty(*batch, m, n, device=device, dtype=dtype)

    def __call__(self) -> Tensor:
        """Run it once."""
        run = torch.bmm if self.product.batch > 1 else torch.mm
        return run(self.left, self.right, out=self.out)

    def seconds(self, repeats: int) -> float:
        """Of one run, the mean."""
        wait(self.out.device)
        begin = time.perf_counter()
        for _ in range(repeats):
            self()
        wait(self.out.device)
        return (time.perf_counter() - begin) / repeats


class Limit:
    """All products of a step, each in its fastest way.

    Args:
        work: shape of the step.
        device: where.
        half: in bf16 instead of float32.
    """

    def __init__(self, work: Work, device: torch.device, *, half: bool) -> None:
        self.work, self.device = work, device
        self.dtype = torch.bfloat16 if half else torch.float32
        self.chosen: dict[str, str] = {}
        self.calls: list[Call] = []
        self.peak_flops = large_product_flops(device, self.dtype)
        for part in step_parts(work, head_rows(work, self.dtype.itemsize)):
            if part.name != "attention" or device.type != "cuda":
                self._choose(part)

    def _choose(self, part: Part) -> None:
        seconds: dict[str, float] = {}
        calls: dict[str, list[Call]] = {}
        for way, products in part.ways.items():
            fastest = [self._fastest(product) for product in products]
            seconds[way] = sum(call.product.count * taken for call, taken in fastest)
            calls[way] = [call for call, _ in fastest]
        best = min(seconds, key=lambda way: seconds[way])
        self.chosen[part.name] = best
        self.calls += calls[best]

    def _fastest(self, product: Product) -> tuple[Call, float]:
        """The product or its transpose, tried a few times each in turns, and its seconds."""
        both = [Call(product, swapped, self.device, self.dtype) for swapped in (False, True)]
        times = [[call.seconds(1) for call in both] for _ in range(_TRIALS + 1)][1:]
        medians = [statistics.median(column) for column in zip(*times, strict=True)]
        best = medians.index(min(medians))
        return both[best], medians[best]

    def step_seconds(self) -> float:
        """Of one step, measured now."""
        total = 0.0
        for call in self.calls:
            repeats = min(_MOST_CALLS, math.ceil(call.product.count))
            total += call.seconds(repeats) * call.product.count
        if "attention" not in self.chosen:
            total += (
                6 * self.work.n_layers * self.work.d_model * self.work.seq_len * self.work.n_tokens / self.peak_flops
            )
        return total

    def take(self, n: int) -> dict[str, Any]:
        """The time of ``n`` steps; a few are measured."""
        seconds = statistics.mean(self.step_seconds() for _ in range(min(n, _MOST_CALLS)))
        return {"seconds": n * seconds, "amount": n * self.work.n_tokens, "loss": None}


def head_rows(work: Work, itemsize: int) -> tuple[int, ...]:
    """Rows of logits to try: all of them if memory allows, halves of that down to a few hundred."""
    rows, found = work.n_tokens, []
    while rows >= _SMALLEST_CHUNK and len(found) < 5:
        if rows * work.vocab_size * itemsize <= _LOGITS_BYTES:
            found.append(rows)
        if rows % 2:
            break
        rows //= 2
    return tuple(found) or (rows,)


def large_product_flops(device: torch.device, dtype: torch.dtype) -> float:
    """Operations per second of a large square product: what MFU is relative to."""
    size = 8192 if device.type == "cuda" else 1024
    call = Call(Product(size, size, size, 1), False, device, dtype)
    call.seconds(2)
    return call.product.flops / min(call.seconds(5) for _ in range(3))


def main() -> None:
    """A worker."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--half", action="store_true")
    options = parser.parse_args()
    channel = Channel()
    facts, device = imported(), torch.device(options.device)
    limit = Limit(load_work(options.work), device, half=options.half)
    facts |= {"peak_flops": limit.peak_flops, "chosen": limit.chosen}
    serve(channel, limit.take, device=device, warmup=2, facts=facts)


if __name__ == "__main__":
    main()
