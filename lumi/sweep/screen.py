"""A study on the terminal: a line for every job that runs, above them those that have ended.

Where there is no terminal, a line is written when something changes.
"""

import shutil
import sys
from collections.abc import Sequence
from typing import TextIO

from lumi.sweep.curve import Curve
from lumi.sweep.study import Job, Study, count_states

_UP_AND_CLEAR = "\x1b[{}F\x1b[J"
_MARKS = {"finished": "✓", "planned": "✓", "failed": "✗", "pruned": "✂", "stopped": "◦"}


class Screen:
    """Writes to stderr.

    Args:
        study: whose jobs are shown.
        total: how many there will be, None where a search decides.
        out: where to write, for tests.
    """

    def __init__(self, study: Study, total: int | None = None, out: TextIO | None = None) -> None:
        self.study, self.total = study, total
        self.out = out or sys.stderr
        self._is_live = self.out.isatty()
        self._height = 0

    def say(self, text: str) -> None:
        """A line that stays."""
        self._clear()
        self.out.write(text + "\n")
        self.out.flush()

    def tell(self, job: Job, last: float | None = None) -> None:
        """That a job has begun or ended."""
        if job.state == "running":
            if not self._is_live:
                self.say(f"▸ {job.label} begins: {self.study.log_file(job)}")
            return
        self.say(ended_line(job, last))

    def show(self, running: Sequence[tuple[Job, Curve, float]]) -> None:
        """Draw the running jobs anew."""
        if not self._is_live:
            return
        self._clear()
        lines = [running_line(*one) for one in running]
        if running:
            states = count_states(job.state for job in self.study.jobs)
            lines.append(f"  {states}" + (f" of {self.total}" if self.total else ""))
        width = shutil.get_terminal_size().columns - 1  # a line that wraps would be two to clear
        self.out.write("".join(f"{line[:width]}\n" for line in lines))
        self.out.flush()
        self._height = len(lines)

    def close(self) -> None:
        """Remove what is live."""
        self._clear()
        self.out.flush()

    def _clear(self) -> None:
        if self._height:
            self.out.write(_UP_AND_CLEAR.format(self._height))
            self._height = 0


def running_line(job: Job, curve: Curve, seconds: float) -> str:
    """``▸ 00-lr_1e-3  step 40 of 120  val/loss 5.432  1:05``."""
    total = f" of {curve.total_steps}" if curve.total_steps else ""
    step = f"step {curve.step}{total}" if curve.step else "starting"
    value = "" if curve.last is None else f"  {curve.metric} {curve.last:.4f}"
    return f"▸ {job.label}  {step}{value}  {int(seconds) // 60}:{int(seconds) % 60:02d}"


def ended_line(job: Job, last: float | None = None) -> str:
    """``✗ 01-lr_-1  failed  ConfigError: …``."""
    value = "" if last is None else f"  {last:.4f}"
    seconds = "" if job.seconds is None else f"  {job.seconds:.0f} s"
    error = f"  {job.error.splitlines()[0]}" if job.error else ""
    return f"{_MARKS.get(job.state, ' ')} {job.label}  {job.state}{value}{seconds}{error}"
