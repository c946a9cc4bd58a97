"""``logger=tensorboard``: the metrics under their own names, settings to compare runs by, samples as text."""

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning_utilities.core.rank_zero import rank_zero_only
from pytorch_lightning.loggers import TensorBoardLogger

from lumi.callbacks.metrics import need
from lumi.callbacks.tracking import RunCard, State, best_validation
from lumi.secret import public

_LAYOUT = {
    "Loss": {
        "training and validation": ["Multiline", ["^train/loss$", "^val/loss$"]],
        "by source": ["Multiline", ["^val/loss/"]],
    },
    "Mixture": {"observed shares": ["Multiline", ["^mix/"]]},
    "Preference": {"rewards": ["Multiline", ["margin$", "accuracy$"]]},
}


class TensorBoard(TensorBoardLogger):
    """Event files in ``<run>/tensorboard``.

    Args:
        run_folder: of the run.
        card: what the run is.
    """

    def __init__(self, *, run_folder: Path, card: RunCard) -> None:
        need("tensorboard")
        # What was logged after the step that a run continues from belonged to work that was lost.
        purge: dict[str, Any] = {"purge_step": card.start_step + 1} if card.start_step else {}
        super().__init__(save_dir=run_folder, name="", version="tensorboard", **purge)
        self.card, self.run_folder = card, run_folder

    @rank_zero_only
    def log_samples(self, rows: Sequence[tuple[str, str]], step: int) -> None:
        """As Markdown under *Text*."""
        text = "\n\n".join(f"**{prompt}**{continuation}" for prompt, continuation in rows)
        self.experiment.add_text("samples", text, step)

    @rank_zero_only
    def close(self, state: State) -> None:
        """Settings and the best validation loss under *HParams*, the layout of *Custom Scalars*."""
        from torch.utils.tensorboard import SummaryWriter
        from torch.utils.tensorboard.summary import hparams

        best = best_validation(self.run_folder / "metrics.csv").get("best/val/loss", math.nan)
        settings = flat(public(dict(self.card.settings), os.environ, Path.home()))
        # A writer of its own: Lightning has closed the other one. Not add_hparams, which makes a folder for each call, and
        # not Lightning's way, which invents a metric.
        with SummaryWriter(self.log_dir) as writer:
            for summary in hparams({**settings, "state": state}, {"val/loss": best}):
                assert writer.file_writer is not None, "a new writer is open"
                writer.file_writer.add_summary(summary)
            writer.add_custom_scalars(_LAYOUT)


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, str | int | float | bool]:
    """``{"optim": {"lr": 1}}`` as ``{"optim.lr": 1}``: what is null is left out, lists are text."""
    found: dict[str, str | int | float | bool] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{name}.")
        elif value is not None:
            found[f"{prefix}{name}"] = value if isinstance(value, str | int | float | bool) else str(value)
    return found
