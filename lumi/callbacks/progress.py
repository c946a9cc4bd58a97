"""What a person sees of a run, and the metrics about its pace."""

import logging
import math
import resource
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol, cast

import pytorch_lightning as pl
import torch
from lightning_utilities.core.rank_zero import rank_zero_only
from tqdm import tqdm

log = logging.getLogger(__name__)

_QUIET_SECONDS = 30.0
"""Where there is no terminal for a bar, a line is printed at least this often."""

_LOOK_SECONDS = 0.5
"""How often the bar shows another loss."""

_VAL_FIGURES = {
    "val/perplexity": "perplexity {:,.2f}",
    "val/bits_per_byte": "{:.4f} bits/byte",
    "val/accuracy": "accuracy {:.3f}",
    "val/margin": "margin {:.3f}",
}
"""Shown in brackets after the validation loss, where the stage measures them."""


class Reports(Protocol):
    """What a stage offers to be logged."""

    step_metrics: dict[str, float]
    val_metrics: dict[str, float]


class Progress(pl.Callback):
    """Progress bar, a full line at every validation, and one row of metrics every ``every_steps``.

    Args:
        total_steps: optimizer steps of the run.
        tokens: that all ranks together have read after so many of them.
        taken: samples of each source after so many of them.
        epoch_tokens: training tokens of all sources.
        flops_per_token: of the model, forward and backward.
        peak_flops: operations per second that this device reaches on a large matrix product; MFU is relative to it.
        sources: names, in the order of a batch's ``source`` numbers.
        every_steps: optimizer steps between two rows.
    """

    def __init__(
        self,
        *,
        total_steps: int,
        tokens: Callable[[int], int],
        taken: Callable[[int], Sequence[int]],
        epoch_tokens: int,
        flops_per_token: int,
        peak_flops: float,
        sources: Sequence[str],
        every_steps: int = 10,
    ) -> None:
        self.total_steps, self.tokens, self.taken, self.epoch_tokens = total_steps, tokens, taken, epoch_tokens
        self.flops_per_token, self.peak_flops = flops_per_token, peak_flops
        self.sources, self.every_steps = list(sources), every_steps
        self._clock = Stopwatch()
        self._bar: tqdm[Any] | None = None
        self._last_line = self._last_look = 0.0
        self._speed = 0.0

    def state_dict(self) -> dict[str, Any]:
        """The time so far, so that it stays that of the whole run after a resume."""
        return {"seconds": self._clock.total()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue it."""
        self._clock.before = state_dict.get("seconds", 0.0)  # the first checkpoints did not say

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Open the bar where the run stands."""
        self._clock.start(self.tokens(trainer.global_step))
        self._last_line = time.monotonic()
        if trainer.is_global_zero:
            self._bar = tqdm(
                total=self.total_steps,
                initial=trainer.global_step,
                desc="training",
                unit="step",
                disable=None,
                leave=False,
            )

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """After an optimizer step: move the bar, log a row when it is time."""
        if (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        step, stage = trainer.global_step, cast(Reports, pl_module)
        if step == 1 or step % self.every_steps == 0 or step == self.total_steps:
            self._speed = self._clock.lap(self.tokens(step))
            self._log(trainer, {**stage.step_metrics, **self._pace(step)}, step)
        if self._bar is not None:
            # A look waits for a GPU to finish the step.
            if not self._bar.disable and time.monotonic() - self._last_look > _LOOK_SECONDS:
                loss = stage.step_metrics["train/loss"]
                self._bar.set_postfix_str(f"loss {loss:.3f}, {self._speed:,.0f} tokens/s", refresh=False)
                self._last_look = time.monotonic()
            self._bar.update(step - self._bar.n)
        if (self._bar is None or self._bar.disable) and time.monotonic() - self._last_line > _QUIET_SECONDS:
            self._say(self._line(step, stage.step_metrics))

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Validation is not training time."""
        self._clock.pause()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The full line: where the run stands, how good it is, how fast, how long still."""
        stage = cast(Reports, pl_module)
        step = trainer.global_step
        self._log(trainer, {**stage.val_metrics, **self._pace(step)}, step)
        self._say(self._line(step, {**stage.step_metrics, **stage.val_metrics}))
        self._clock.resume()

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Close the bar."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _pace(self, step: int) -> dict[str, float]:
        tokens = self.tokens(step)
        row = {
            "progress/tokens": tokens,
            "progress/flops": tokens * self.flops_per_token,
            "progress/percent": 100.0 * step / self.total_steps,
            "progress/epochs": tokens / self.epoch_tokens,
            "perf/tokens_per_second": self._speed,
            "perf/seconds": self._clock.total(),
            "perf/mfu": self._speed * self.flops_per_token / self.peak_flops,
            "perf/memory_gb": peak_memory_bytes() / 1e9,
        }
        if len(self.sources) > 1:
            taken = self.taken(step)
            row |= {f"mix/{name}": n / max(1, sum(taken)) for name, n in zip(self.sources, taken, strict=True)}
        return row

    def _line(self, step: int, metrics: dict[str, float]) -> str:
        pace = self._pace(step)
        left = (self.tokens(self.total_steps) - self.tokens(step)) / self._speed if self._speed else float("nan")
        parts = [
            f"step {step:,}/{self.total_steps:,} ({pace['progress/percent']:.0f} %)",
            f"{pace['progress/tokens'] / 1e6:,.2f} M tokens, {pace['progress/epochs']:.2f} epochs",
        ]
        if "train/loss" in metrics:
            parts.append(f"loss {metrics['train/loss']:.3f}")
        if "val/loss" in metrics:
            shown = [text.format(metrics[name]) for name, text in _VAL_FIGURES.items() if name in metrics]
            parts.append(f"val {metrics['val/loss']:.3f} ({', '.join(shown)})")
        parts += [
            f"{self._speed:,.0f} tokens/s, MFU {100 * pace['perf/mfu']:.0f} %, {pace['perf/memory_gb']:.2f} GB",
            f"{clock_text(left)} left",
        ]
        return " · ".join(parts)

    @rank_zero_only
    def _say(self, line: str) -> None:
        self._last_line = time.monotonic()
        log.info("%s", line)

    def _log(self, trainer: pl.Trainer, row: dict[str, float], step: int) -> None:
        for logger in trainer.loggers:
            logger.log_metrics(row, step=step)


class Stopwatch:
    """Tokens per second of training time, validation left out; by the monotonic clock, because wall clocks jump.

    Attributes:
        before: seconds of all laps that are over.
    """

    def __init__(self) -> None:
        self.before = 0.0
        self._since, self._elapsed, self._count, self._is_running = time.monotonic(), 0.0, 0, True

    def start(self, count: int) -> None:
        """Begin a lap at ``count``."""
        self._since, self._elapsed, self._count, self._is_running = time.monotonic(), 0.0, count, True

    def pause(self) -> None:
        """Stop counting time."""
        self._elapsed, self._is_running = self.elapsed(), False

    def resume(self) -> None:
        """Count again."""
        self._since, self._is_running = time.monotonic(), True

    def elapsed(self) -> float:
        """Seconds of this lap so far."""
        return self._elapsed + (time.monotonic() - self._since if self._is_running else 0.0)

    def total(self) -> float:
        """Seconds of all laps so far."""
        return self.before + self.elapsed()

    def lap(self, count: int) -> float:
        """So much was counted a second since the last lap; begins the next one."""
        elapsed = self.elapsed()
        self.before += elapsed
        speed = (count - self._count) / max(elapsed, 1e-9)
        self.start(count)
        return speed


def peak_memory_bytes() -> int:
    """Most memory held at once: of the GPU where there is one, of the process otherwise."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # kilobytes on Linux, bytes on macOS


def clock_text(seconds: float) -> str:
    """``3:07`` or ``1:02:07``; ``?`` for what is not known yet."""
    if math.isnan(seconds):
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
