"""What can be read from outside of a run that is being trained: its length, and one metric of its ``metrics.csv``."""

import csv
import json
from pathlib import Path


class Curve:
    """A metric of a run, read again only when the file has changed.

    Args:
        run: folder of the run.
        metric: column of ``metrics.csv``.
    """

    def __init__(self, run: Path, metric: str) -> None:
        self.run, self.metric = run, metric
        self.step = 0
        self.total_steps: int | None = None
        self.values: dict[int, float] = {}
        self._seen = (0, 0)

    def update(self) -> bool:
        """Read what is new; whether there was something."""
        try:
            facts = (self.run / "metrics.csv").stat()
        except FileNotFoundError:
            return False
        if (facts.st_mtime_ns, facts.st_size) == self._seen:
            return False
        self._seen = (facts.st_mtime_ns, facts.st_size)
        self.step, self.values = read_metric(self.run / "metrics.csv", self.metric)
        if self.total_steps is None:
            self.total_steps = _total_steps(self.run)
        return True

    @property
    def last(self) -> float | None:
        """The newest value."""
        return self.values[max(self.values)] if self.values else None


def read_metric(path: Path, metric: str) -> tuple[int, dict[int, float]]:
    """The last step of the file, and step -> value of one column; a line that is being written is left out."""
    values: dict[int, float] = {}
    last = 0
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            if None in row.values() or None in row:
                continue
            last = int(row["step"])
            if row.get(metric):
                values[last] = float(row[metric])
    return last, values


def _total_steps(run: Path) -> int | None:
    try:
        return json.loads((run / "run.json").read_bytes())["plan"]["total_steps"]
    except (FileNotFoundError, ValueError, KeyError):
        return None
