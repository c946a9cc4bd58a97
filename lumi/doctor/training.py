"""Training in small, on copies: one gradient however a batch is cut, a batch learnt by heart, rates beside the run's."""

import dataclasses
import math
import warnings
from collections.abc import Iterable
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lumi.doctor.finding import Finding, error, not_applicable, ok, warning
from lumi.doctor.subject import Subject
from lumi.errors import NumericError
from lumi.optim import Constant, Schedule
from lumi.stage import Stage

OVERFIT_STEPS = 20
RATE_STEPS = 10
RATE_FACTORS = (0.01, 0.1, 1.0, 10.0, 100.0)
_WARMUP = 3


class _Recorder(torch.optim.SGD):
    """Keeps the gradient of its only step, and changes no weight."""

    gradient: Tensor

    def step(self, closure: Any = None) -> None:
        """The closure makes the gradient, as in every run."""
        closure()
        flat = [p.grad.flatten() for group in self.param_groups for p in group["params"] if p.grad is not None]
        self.gradient = torch.cat(flat)


@dataclasses.dataclass
class _Record:
    """A recipe that makes a `_Recorder`."""

    clip_norm: float | None = None
    schedule: Schedule = dataclasses.field(default_factory=lambda: Constant(warmup_steps=0))

    def optimizer(self, parameters: Iterable[tuple[str, nn.Parameter]]) -> _Recorder:
        self.made = _Recorder([{"params": [p for _, p in parameters], "peak_lr": 1.0}], lr=1.0)
        return self.made


def accumulation(subject: Subject) -> Finding:
    """Micro-batches of unequal numbers of targets give the gradient of the batch that they make together."""
    objective = getattr(subject.stage, "objective", None)
    if objective is not None and objective.kind == "kto":
        return not_applicable("kto compares with a mean over the micro-batch")
    windows = subject.windows(4)
    if len(windows["tokens"]) < 2:
        return not_applicable("one window is all there is")
    _make_unequal(windows)
    half = len(windows["tokens"]) // 2
    parts = [{key: value[rows] for key, value in windows.items()} for rows in (slice(0, half), slice(half, None))]
    whole, cut = _gradient(subject, [windows]), _gradient(subject, parts)
    off = float((whole - cut).norm() / whole.norm().clamp(min=1e-30))
    counts = [int(part["loss_mask"][:, 1:].sum()) for part in parts]
    seen = f"micro-batches of {counts[0]} and {counts[1]} targets and both together differ by {off:.1e} of the gradient"
    if off > 1e-3:
        return error(
            seen,
            "trainer.accumulate and the number of devices then change what is learnt: few targets count as much as many",
            "loss() returns a sum and a count; leave the division to Stage",
        )
    return ok(seen)


def _make_unequal(windows: Any) -> None:
    """Take most of the supervision from the first window, in place."""
    if "pairs" in windows:
        chosen = windows["pairs"][0] >= 0
        if int(chosen.sum()) > 1:
            windows["pairs"][0, 1:] = -1
            windows["loss_mask"][0] &= windows["doc_ids"][0] < 2
        return
    targets = windows["loss_mask"][0].nonzero().flatten()
    windows["loss_mask"][0, targets[: 3 * len(targets) // 4]] = False


def _gradient(subject: Subject, parts: list[Any]) -> Tensor:
    """Of an optimizer step over these micro-batches, as Lightning and the stage make it."""
    stage = subject.copy_stage()
    record = _Record()
    stage.recipe = record  # pyright: ignore[reportAttributeAccessIssue]  # a recipe needs no more for one step
    stage.total_steps, stage.accumulate = 1, len(parts)
    one = dataclasses.replace(subject.setup, devices=1, num_nodes=1, strategy="auto", accumulate=len(parts))
    arguments = {**one.lightning_arguments(), "precision": "32-true", "deterministic": None}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a loader without workers, of a validation that is not there
        trainer = pl.Trainer(**arguments, max_steps=1, logger=False)
        trainer.fit(stage, DataLoader(parts, batch_size=None))  # pyright: ignore[reportArgumentType]  # a list is a dataset
    return record.made.gradient


def overfit(subject: Subject) -> Finding:
    """A copy of the model learns two windows by heart; at other rates if it does not at the run's own."""
    few = subject.few
    for factor in (1.0, 10.0, 0.1, 100.0, 0.01, 0.001):
        losses = train_copy(subject, few, factor=factor, steps=OVERFIT_STEPS).losses
        first, last = losses[0], losses[-1]
        seen = f"loss of two windows from {first:.3f} to {last:.3f} in {OVERFIT_STEPS} steps"
        at = "" if factor == 1 else f", at {factor:g} times the run's rate"
        if last < 0.95 * first:
            return ok(seen + at)
    return error(
        f"{seen}{at}",
        "what cannot learn two windows learns nothing from a million",
        "see optimizer groups and next token; is the loss's sign right, and its graph whole (no detach, no no_grad)?",
    )


def learning_rate(subject: Subject) -> Finding:
    """Ten steps on copies at a hundredth to a hundred times the peak rate: is the run's own among those that learn?"""
    batch = subject.windows(4)
    trials = {factor: train_copy(subject, batch, factor=factor, steps=RATE_STEPS) for factor in RATE_FACTORS}
    own, peak = trials[1.0], getattr(subject.stage.recipe, "lr", math.nan)
    first = own.losses[0]
    falls = {factor: first - trial.last if math.isfinite(trial.last) else -math.inf for factor, trial in trials.items()}
    best = max(falls, key=lambda factor: falls[factor])
    table = ", ".join(f"{peak * factor:.0e}: {trial.last:.3f}" for factor, trial in trials.items())
    seen = f"optim.lr={peak:g}: loss {first:.3f} to {own.last:.3f} in {RATE_STEPS} steps ({table})"
    fix = f"optim.lr={peak * best:.0e} did best of these; a sweep tells more: -m optim.lr=…"
    if not max(own.losses) <= max(1.5 * first, first + 1.0):
        why = "far too large: the run would diverge in its first steps"
        return error(
            seen, why, "optim.lr a tenth or a hundredth of it; a sweep tells more: -m optim.lr=…", NumericError
        )
    if own.last > 1.02 * first:
        return warning(seen, "too large: the loss rises", fix)
    if best >= 1.0 and _is_too_small(subject, falls[1.0], falls[best], first):
        return warning(seen, "far too small: so the loss hardly falls in the whole run", fix)
    return ok(seen)


def _is_too_small(subject: Subject, own: float, best: float, first: float) -> bool:
    """A fresh model is to move at once. One that has learnt already is changed gently, over the whole run."""
    if subject.initial is None and own < 0.1 * best:
        return True
    return own / RATE_STEPS * max(100, subject.stage.total_steps) < 0.02 * first


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trial:
    """The losses on one batch, before each step and after the last; a NaN ends it."""

    losses: list[float]

    @property
    def last(self) -> float:
        """After the last step."""
        return self.losses[-1]


def train_copy(subject: Subject, batch: Any, *, factor: float, steps: int) -> Trial:
    """Train a copy on one batch, at so many times the peak rates, after a short warm-up."""
    stage: Stage = subject.copy_stage()
    optimizer: Any = stage.configure_optimizers()
    peaks = [group["peak_lr"] for group in optimizer.param_groups]
    losses: list[float] = []
    for step in range(steps):
        for group, peak in zip(optimizer.param_groups, peaks, strict=True):
            group["lr"] = peak * factor * min(1.0, (step + 1) / _WARMUP)
        with torch.enable_grad(), subject.precision():
            total, targets = stage.loss(batch)
        losses.append(float(total.detach()) / max(1, int(targets)))
        if not math.isfinite(losses[-1]):
            return Trial(losses=losses)
        (total / targets).backward()
        trained = [p for group in optimizer.param_groups for p in group["params"]]
        torch.nn.utils.clip_grad_norm_(trained, stage.recipe.clip_norm or math.inf)
        optimizer.step()
        optimizer.zero_grad()
    return Trial(losses=[*losses, subject.mean_loss(batch, stage)])
