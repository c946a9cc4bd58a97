"""Training steps of a model on this device, measured: how long, how much memory and energy, at several micro-batch sizes.

Steps are real ones, forward, backward, clipping and optimizer, at a rate of zero: they take as long as any and leave every
weight as it was, bit for bit.
"""

import dataclasses
import logging
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch

from lumi.energy import Meter
from lumi.memory import estimate_memory
from lumi.trainer import TrainerConfig, release_memory

log = logging.getLogger(__name__)

PROFILE_SECONDS = 25.0
HOURS_SECONDS = 5.0
"""How long ``plan=true`` measures, and how long a run with ``budget.hours`` does before its first step."""

_USABLE = 0.9
"""Share of the free memory that may be filled: the estimate is right within about a tenth (docs/results.md)."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Work:
    """What is measured.

    Attributes:
        stage: on the device.
        windows: of one optimizer step on this device, as a batch on the device.
        setup: of the trainer. compiled: whether the run compiles its blocks; what is measured here is not.
    """

    stage: Any
    windows: Any
    setup: TrainerConfig
    compiled: bool = False

    @property
    def n_windows(self) -> int:
        """Of an optimizer step."""
        return len(self.windows["tokens"])

    @property
    def device(self) -> torch.device:
        """Where it is measured."""
        return self.windows["tokens"].device


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cost:
    """One optimizer step at one micro-batch size.

    Attributes:
        batch_size: windows of a micro-batch. accumulate: micro-batches of the step.
        memory_bytes: at the highest point of training, estimated.
        seconds: of the step, the median; None if it would not fit and was not tried.
        validation_seconds: forward pass of one micro-batch. joules: of the step; None if they cannot be read.
    """

    batch_size: int
    accumulate: int
    memory_bytes: int
    seconds: float | None = None
    validation_seconds: float = 0.0
    joules: float | None = None


def gather(stage: Any, example: Any, setup: TrainerConfig, *, compiled: bool = False) -> Work:
    """The stage on its device, with the windows of an optimizer step made from one micro-batch."""
    device = setup.device()
    windows = {key: torch.cat([value] * setup.accumulate).to(device) for key, value in example.items()}
    return Work(stage=stage.to(device), windows=windows, setup=setup, compiled=compiled)


def micro_batches(n_windows: int) -> list[int]:
    """Sizes to try: the divisors of a step's windows, largest first, at most six."""
    divisors = [size for size in range(n_windows, 0, -1) if n_windows % size == 0]
    return divisors[:6]


def try_sizes(work: Work, *, seconds: float, meter: Meter | None = None) -> list[Cost]:
    """The cost of a step with every micro-batch size; those that do not fit into memory are not run."""
    sizes = micro_batches(work.n_windows)
    free = free_bytes(work.device)
    return [measure(work, size, seconds=seconds / len(sizes), free=free, meter=meter) for size in sizes]


def measure(work: Work, size: int, *, seconds: float, free: float | None = None, meter: Meter | None = None) -> Cost:
    """The cost of an optimizer step in micro-batches of ``size`` windows."""
    stage, accumulate = work.stage, work.n_windows // size
    batch = {key: value[:size] for key, value in work.windows.items()}
    with _precision(work):
        memory_bytes = estimate_memory(
            stage,
            stage.loss,
            batch,
            optimizer_bytes=stage.recipe.state_bytes(stage.trained_parameters()),
            compiled=work.compiled,
            accumulates=accumulate > 1,
        )
    cost = Cost(batch_size=size, accumulate=accumulate, memory_bytes=memory_bytes)
    if free is not None and memory_bytes > _USABLE * free:
        return cost
    try:
        return _timed(work, batch, cost, seconds, meter)
    except torch.cuda.OutOfMemoryError:
        return cost
    finally:
        stage.zero_grad(set_to_none=True)
        release_memory()


def _timed(work: Work, batch: Any, cost: Cost, seconds: float, meter: Meter | None) -> Cost:
    stage = work.stage
    optimizer = stage.recipe.optimizer(stage.trained_parameters())
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    micro, updates = [], []
    _micro_batch(work, batch)  # loads kernels
    _update(work, optimizer)  # makes the optimizer's state
    drawn = meter() if meter else 0.0
    deadline = time.perf_counter() + seconds
    while len(micro) < 2 or (time.perf_counter() < deadline and len(micro) < 200):
        micro.append(_micro_batch(work, batch))
        updates.append(_update(work, optimizer))
    joules = meter() - drawn if meter else None
    step = cost.accumulate * statistics.median(micro) + statistics.median(updates)
    return dataclasses.replace(
        cost,
        seconds=step,
        validation_seconds=_validation(work, batch),
        joules=None if joules is None else joules * step / (sum(micro) + sum(updates)),
    )


def _micro_batch(work: Work, batch: Any) -> float:
    begin = time.perf_counter()
    with _precision(work):
        nll, targets = work.stage.loss(batch)
    (nll / targets).backward()
    wait(work.device)
    return time.perf_counter() - begin


def _update(work: Work, optimizer: torch.optim.Optimizer) -> float:
    begin = time.perf_counter()
    gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    torch.nn.utils.get_total_norm(gradients).item()
    optimizer.step()
    optimizer.zero_grad()
    wait(work.device)
    return time.perf_counter() - begin


def _validation(work: Work, batch: Any) -> float:
    begin = time.perf_counter()
    with torch.no_grad(), _precision(work):
        work.stage.loss(batch)
    wait(work.device)
    return time.perf_counter() - begin


def _precision(work: Work) -> torch.autocast:
    half = work.setup.resolved_precision() != "32-true"
    return torch.autocast(work.device.type, torch.bfloat16, enabled=half)


def steps_in(hours: float, cost: Cost, *, n_validation_batches: int, val_every_steps: int | None) -> int:
    """Optimizer steps that fit into so many hours with their validations: every ``val_every_steps``, or ten in all.

    A run of fewer than ten steps validates after each.
    """
    assert cost.seconds is not None, "measured"
    seconds, validation = 3600 * hours, n_validation_batches * cost.validation_seconds
    if val_every_steps is None:
        steps = max((seconds - 10 * validation) / cost.seconds, min(10, seconds / (cost.seconds + validation)))
    else:
        steps = seconds / (cost.seconds + validation / val_every_steps)
    return max(1, int(steps))


def free_bytes(device: torch.device) -> float | None:
    """What training may use: all of a GPU that no other process holds; of a machine what is there for the process.

    None where it cannot be told.
    """
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device)
    if not sys.platform.startswith("linux"):
        return None
    lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    free = int(lines["MemAvailable"].split()[0]) * 1024
    limit = Path("/sys/fs/cgroup/memory.max")
    if limit.exists() and (text := limit.read_text().strip()) != "max":
        free = min(free, int(text) - int(limit.with_name("memory.current").read_text()))
    return free


def wait(device: torch.device) -> None:
    """Until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
