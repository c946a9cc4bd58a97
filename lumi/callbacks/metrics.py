"""Where metrics go: a CSV file always, TensorBoard and W&B when asked for (``logger=…``)."""

import csv
import importlib.util
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning_utilities.core.rank_zero import rank_zero_only
from pytorch_lightning.loggers import Logger, TensorBoardLogger, WandbLogger

from lumi.errors import ConfigError
from lumi.manifest import write_atomic


class MetricsCsv(Logger):
    """``metrics.csv``: one row a step that has something to say, a column a metric, empty where it was not measured.

    A resumed run continues the file: rows after the step it continues from belonged to work that was lost, and go.

    Args:
        path: of the file.
        from_step: the run continues after this optimizer step; 0 starts a new file.
    """

    def __init__(self, path: Path, from_step: int = 0) -> None:
        super().__init__()
        self.path = path
        self._rows: dict[int, dict[str, float]] = {}
        self._columns: list[str] = ["step"]
        self._on_disk: list[str] = []
        if from_step and path.exists():
            self._rows = {step: row for step, row in read_metrics(path).items() if step <= from_step}
            for row in self._rows.values():
                self._add_columns(row)

    @property
    def name(self) -> str:
        """Of the logger, for Lightning."""
        return "csv"

    @property
    def version(self) -> str:
        """There is one file a run."""
        return ""

    @rank_zero_only
    def log_hyperparams(self, params: Any) -> None:
        """Nothing: the run's folder has its config."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Add to the row of ``step``; written at once, so that a kill loses nothing that was shown."""
        assert step is not None, "every metric belongs to a step"
        newest = not self._rows or step > max(self._rows)
        self._rows.setdefault(step, {}).update(metrics)
        self._add_columns(metrics)
        if newest and self._columns == self._on_disk:
            with self.path.open("a", newline="") as file:
                file.write(self._as_text([step]))
        else:
            write_atomic(self.path, ",".join(self._columns) + "\r\n" + self._as_text(sorted(self._rows)))
            self._on_disk = list(self._columns)

    def _add_columns(self, row: Mapping[str, float]) -> None:
        self._columns.extend(name for name in row if name not in self._columns)

    def _as_text(self, steps: list[int]) -> str:
        text = io.StringIO()
        writer = csv.DictWriter(text, self._columns)
        for step in steps:
            writer.writerow({"step": step, **self._rows[step]})
        return text.getvalue()


def read_metrics(path: Path) -> dict[int, dict[str, float]]:
    """Step -> metric -> value of a ``metrics.csv``; a last line that a kill cut short is left out."""
    rows: dict[int, dict[str, float]] = {}
    with path.open(newline="") as file:
        reader = csv.DictReader(file)
        for row in reader:
            if None in row.values() or None in row:
                continue
            rows[int(row["step"])] = {key: float(value) for key, value in row.items() if value and key != "step"}
    return rows


class TensorBoard(TensorBoardLogger):
    """Event files in ``<run>/tensorboard`` (``logger=tensorboard``).

    Args:
        run_folder: of the run.
    """

    def __init__(self, *, run_folder: Path) -> None:
        _need("tensorboard")
        super().__init__(save_dir=run_folder, name="", version="tensorboard")


class WandB(WandbLogger):
    """Weights & Biases (``logger=wandb``).

    Args:
        run_folder: of the run; files go to ``<run>/wandb``, its name is the run's.
        run_id: the same when the run is resumed, so that W&B continues its curves.
        settings: resolved config of the run, shown beside its curves.
        project: on the server.
        entity: team or user; null is the default one.
        offline: write files only; ``wandb sync`` sends them later.
        group: of runs.
        tags: of the run.
    """

    def __init__(
        self,
        *,
        run_folder: Path,
        run_id: str,
        settings: dict[str, Any],
        project: str = "lumi",
        entity: str | None = None,
        offline: bool = False,
        group: str | None = None,
        tags: list[str] | None = None,
    ) -> None:
        _need("wandb")
        super().__init__(
            name=run_folder.name,
            save_dir=run_folder,
            id=run_id,
            project=project,
            entity=entity,
            offline=offline,
            group=group,
            tags=tags,
            config=settings,
            resume="allow",
        )

    def close(self, exit_code: int) -> None:
        """End the W&B run: the next one of this process (a job of a multirun) is another."""
        self.experiment.finish(exit_code=exit_code)


def _need(package: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise ConfigError(f"logger={package}", f"needs the package {package}", f"pip install 'lumi[{package}]'")
