"""``metrics.csv``, which every run has."""

import csv
import importlib.util
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning_utilities.core.rank_zero import rank_zero_only
from pytorch_lightning.loggers import Logger

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


def need(package: str, extra: str | None = None) -> None:
    """Complain if an optional package is not installed.

    Args:
        package: as it is imported.
        extra: of Lumi's, that installs it; None where it is named like the package.

    Raises:
        ConfigError: with the command that installs it.
    """
    if importlib.util.find_spec(package) is None:
        name = extra or package
        raise ConfigError(f"the package {package}", f"is needed for {name}", f"pip install 'lumi[{name}]'")
