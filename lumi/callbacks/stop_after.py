"""Ends a run before its last step, without making it another run: its schedule and its order stay those of the whole."""

from typing import Any

import pytorch_lightning as pl

from lumi.errors import ConfigError


class StopAfter(pl.Callback):
    """Stops after so many optimizer steps, with a checkpoint; ``reproduce_steps`` of evaluate.py sets it.

    Args:
        steps: counted from the run's first one; null never stops.
    """

    def __init__(self, *, steps: int | None = None) -> None:
        if steps is not None and steps < 1:
            raise ConfigError(f"callbacks.stop_after.steps={steps}", "must be at least 1, or null")
        self.steps = steps

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Ask Lightning to stop; it ends after this step."""
        if self.steps is not None and trainer.global_step >= self.steps:
            trainer.should_stop = True
