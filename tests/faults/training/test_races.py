"""T8: two runs want the same folder at the same moment: one trains, the other is told so; a crashed one holds nothing."""

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from lumi.callbacks import read_metrics
from lumi.errors import LockedError
from lumi.run import train
from tests.faults.ledger import Report
from tests.faults.training.conftest import LENGTH, Config, ends
from tests.scale.conftest import after_step

pytestmark = pytest.mark.matrix("T8")


def one_of_two(cfg: Any, start: Path, lost: Path) -> None:
    """Begin when ``start`` is there; who wins trains on until the other one has lost, which takes seconds at most."""
    while not start.exists():
        time.sleep(0.001)

    def wait() -> None:
        deadline = time.monotonic() + 30
        while not lost.exists() and time.monotonic() < deadline:
            time.sleep(0.01)

    after_step(2, wait)
    began = time.monotonic()
    try:
        train(cfg)
    except LockedError:
        lost.write_text(str(time.monotonic() - began))
        raise


def race(cfg: Any, folder: Path) -> tuple[list[int], float]:
    """Exit codes of two at once, and the seconds after which the loser knew."""
    start, lost = folder.with_suffix(".start"), folder.with_suffix(".lost")
    children = []
    for _ in range(2):
        child = os.fork()
        if not child:
            os._exit(ends(lambda: one_of_two(cfg, start, lost))[0])
        children.append(child)
    start.touch()
    codes = sorted(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children)
    return codes, float(lost.read_text()) if lost.exists() else float("inf")


@pytest.mark.parametrize("n_races", [3, pytest.param(100, marks=pytest.mark.faults)])
def test_of_two_runs_in_one_folder_exactly_one_trains(
    run_config: Config, whole_run: Any, row: Report, tmp_path: Path, n_races: int
) -> None:
    whole_run()  # its data are there
    failures, longest = 0, 0.0
    for number in range(n_races):
        codes, seconds = race(run_config(*LENGTH, f"name=race{number}"), tmp_path / f"race{number}")
        longest = max(longest, seconds)
        steps = [
            step
            for step, row in read_metrics(tmp_path / f"race{number}" / "metrics.csv").items()
            if "train/loss" in row
        ]
        failures += not (codes == [0, 4] and seconds < 5 and steps == list(range(1, 9)))
    row(trials=n_races, failures=failures, note=f"the loser knew after at most {longest:.2f} s")


@pytest.mark.parametrize("n_crashes", [1, pytest.param(20, marks=pytest.mark.faults)])
def test_a_crashed_run_leaves_its_folder_free(
    run_config: Config, whole_run: Any, row: Report, tmp_path: Path, n_crashes: int
) -> None:
    whole_run()
    failures = 0
    for number in range(n_crashes):
        cfg = run_config(*LENGTH, f"name=crash{number}", "data.num_workers=1")
        killed = lambda: after_step(3, lambda: os.kill(os.getpid(), signal.SIGKILL))  # noqa: E731
        crashed = ends(lambda cfg=cfg, act=killed: (act(), train(cfg)))[0]
        failures += (crashed, ends(lambda cfg=cfg: train(cfg))[0]) != (-signal.SIGKILL, 0)
    row(trials=n_crashes, failures=failures, note="with a data worker that outlives it")
