"""What a run will take, before it begins: length, parameters, operations, memory, time."""

import dataclasses
import logging
import math
import time

import torch

from lumi.arch import Decoder, next_token_loss
from lumi.batch import PackedBatch
from lumi.errors import ConfigError

log = logging.getLogger(__name__)

CHINCHILLA = 20
"""Training tokens per parameter at which compute is spent best (arXiv:2203.15556)."""


_LENGTHS = ("steps", "tokens", "epochs", "flops", "hours")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Budget:
    """How long to train: give one of the first five, or none for a share of the compute-optimal length.

    Attributes:
        steps: optimizer steps.
        tokens: tokens read; rounded up to whole steps.
        epochs: passes over the training tokens of all sources together.
        flops: floating point operations of training, forward and backward; with it models of several sizes cost the same.
        hours: of training with its validations, turned into steps by measuring this device for some seconds before the first
            one; the run keeps that number, so that it is the same when the run is resumed.
        tokens_per_parameter: used when none of these is given.
    """

    steps: int | None = None
    tokens: int | None = None
    epochs: float | None = None
    flops: float | None = None
    hours: float | None = None
    tokens_per_parameter: float = CHINCHILLA

    def __post_init__(self) -> None:
        """Raises ConfigError when more than one is given, or one is not positive."""
        given = {name: getattr(self, name) for name in _LENGTHS if getattr(self, name) is not None}
        if len(given) > 1:
            listed = ", ".join(f"budget.{name}={value}" for name, value in given.items())
            raise ConfigError(listed, "at most one may be set", "set the others to null")
        for name, value in {**given, "tokens_per_parameter": self.tokens_per_parameter}.items():
            if value <= 0:
                raise ConfigError(f"budget.{name}={value}", "must be above 0")

    def total_steps(self, *, tokens_per_step: float, epoch_tokens: int, n_params: int, flops_per_token: int) -> int:
        """Optimizer steps of the run, at least one; ``hours`` says nothing here (`lumi.profile` measures)."""
        if self.steps is not None:
            return self.steps
        if self.tokens is not None:
            tokens = float(self.tokens)
        elif self.epochs is not None:
            tokens = self.epochs * epoch_tokens
        elif self.flops is not None:
            tokens = self.flops / flops_per_token
        else:
            tokens = self.tokens_per_parameter * n_params
        return max(1, math.ceil(tokens / tokens_per_step))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """The figures of a run, as printed before it and kept in its folder.

    Attributes:
        parameters: all, a tied matrix once. non_embedding: without embedding and head.
        flops_per_token: forward and backward.
        optimal_tokens: 20 for each parameter.
        total_steps, tokens_per_step, tokens, epochs: length of the run; with a curriculum tokens_per_step is an average.
        memory_bytes: at the highest point of training, see `lumi.memory`.
        seconds: expected training time, from a short measurement; None if it was not measured.
        peak_flops: of this device on a large matrix product, measured.
    """

    parameters: int
    non_embedding: int
    flops_per_token: int
    optimal_tokens: int
    total_steps: int
    tokens_per_step: int
    tokens: int
    epochs: float
    memory_bytes: int
    peak_flops: float
    seconds: float | None = None

    def lines(self) -> list[str]:
        """For people."""
        tokens = self.tokens
        share = 100 * tokens / self.optimal_tokens
        lines = [
            f"parameters      {self.parameters:,} ({self.non_embedding:,} without embeddings)",
            f"operations      {self.flops_per_token / 1e6:,.1f} MFLOP per token, "
            f"{self.flops_per_token * tokens:.2e} in all; this device reaches {self.peak_flops / 1e9:,.0f} GFLOP/s",
            f"memory          about {size_text(self.memory_bytes)} at its highest, with everything that is loaded",
            f"length          {self.total_steps:,} steps of {self.tokens_per_step:,} tokens = {tokens / 1e6:,.2f} M tokens, "
            f"{self.epochs:.2f} epochs",
            f"compute-optimal {self.optimal_tokens / 1e6:,.1f} M tokens (20 per parameter); this run has {share:.0f} % of that",
        ]
        if self.seconds:  # not of a run that only has to be closed
            text = time_text(self.seconds)
            lines.append(
                f"expected time   {text} of training ({tokens / self.seconds:,.0f} tokens/s in a short measurement)"
            )
        return lines


def measure_peak_flops(device: torch.device, dtype: torch.dtype, *, budget_seconds: float = 0.1) -> float:
    """Operations per second of a large matrix product on this device: what MFU is relative to."""
    size = 4096 if device.type == "cuda" else 1024
    left = torch.randn(size, size, device=device, dtype=dtype)
    torch.mm(left, left)  # the first call loads the kernel
    _wait(device)
    times = []
    while len(times) < 5 and sum(times) < budget_seconds:
        begin = time.perf_counter()
        torch.mm(left, left)
        _wait(device)
        times.append(time.perf_counter() - begin)
    return 2 * size**3 / min(times)


def measure_micro_batch(decoder: Decoder, batch: PackedBatch, *, budget_seconds: float = 0.5) -> float:
    """Seconds of one forward and backward pass; the gradients are thrown away and no weight changes.

    A run waits for this, so it is short: as many sequences at once as the budget allows. That is the whole batch on a GPU, and
    part of it on a slow machine, where time goes with their number.
    """
    device, n_rows = decoder.lm_weight.device, len(batch["tokens"])
    tokens, doc_ids, mask = (batch[key].to(device) for key in ("tokens", "doc_ids", "loss_mask"))

    def seconds_per_row(rows: int) -> float:
        begin = time.perf_counter()
        hidden = decoder(tokens[:rows], doc_ids[:rows])
        nll, targets = next_token_loss(hidden, decoder.lm_weight, tokens[:rows], mask[:rows])
        (nll / targets).backward()
        _wait(device)
        return (time.perf_counter() - begin) / rows

    seconds_per_row(1)  # the first pass loads kernels and takes memory
    deadline = time.perf_counter() + budget_seconds
    best = seconds_per_row(1)
    for rows in [*(part for part in (4, 16, 64, 256) if part < n_rows), n_rows, n_rows, n_rows]:
        if time.perf_counter() + rows * best > deadline:
            break
        best = min(best, seconds_per_row(rows))
    decoder.zero_grad(set_to_none=True)
    return n_rows * best


def size_text(n_bytes: float) -> str:
    """Bytes as people read them."""
    return f"{n_bytes / 1e9:.1f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:.0f} MB"


def time_text(seconds: float) -> str:
    """A duration as people read it."""
    for unit, length in (("seconds", 1), ("minutes", 60), ("hours", 3600)):
        if seconds < 120 * length:
            return f"{seconds / length:.{0 if length == 1 else 1}f} {unit}"
    return f"{seconds / 86400:.1f} days"


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
