"""Ends a run when validation stops getting better."""

import logging

import pytorch_lightning as pl
from pytorch_lightning import callbacks

from lumi.errors import ConfigError

log = logging.getLogger(__name__)


class EarlyStopping(callbacks.EarlyStopping):
    """Lightning's, on val/loss; its state is part of the checkpoints, so a resumed run stops where it would have.

    Args:
        patience: end after so many validations in a row without a better loss; null never does.
        min_delta: nats by which a loss must be lower to be better.
    """

    def __init__(self, *, patience: int | None = None, min_delta: float = 0.0) -> None:
        if patience is not None and patience < 1:
            raise ConfigError(f"callbacks.early_stopping.patience={patience}", "must be at least 1, or null")
        self.is_on = patience is not None
        super().__init__("val/loss", patience=patience or 1, min_delta=min_delta, check_on_train_epoch_end=False)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Compare with the best so far."""
        if not self.is_on:
            return
        super().on_validation_end(trainer, pl_module)
        if trainer.should_stop:
            log.info(
                "stopping early after step %d: val/loss has not been below %.4f for %d validations",
                trainer.global_step, float(self.best_score), self.patience,
            )  # fmt: skip
