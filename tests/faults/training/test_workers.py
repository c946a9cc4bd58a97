"""T4: a process that reads data is killed, fails or hangs: the run ends with its error, soon, and goes on bit for bit."""

import multiprocessing
import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch.utils.data import get_worker_info

from lumi.data import mixed
from lumi.data.loading import TrainBatches
from lumi.errors import DataError
from lumi.run import train
from tests.faults.ledger import Report
from tests.faults.training.conftest import LENGTH, Config, ends, losses
from tests.scale.conftest import after_step

pytestmark = pytest.mark.matrix("T4")

WORKERS = (*LENGTH, "data.num_workers=2")
LIMIT_SECONDS = 60


def kill(number: int) -> None:
    victims = sorted(multiprocessing.active_children(), key=lambda child: child.pid or 0)
    os.kill(victims[number % len(victims)].pid or 0, signal.SIGKILL)


def at_batch(wanted: int, act: Callable[[], None]) -> None:
    """In this process and the workers it forks: do something when a micro-batch of training is read."""
    plain = TrainBatches.__getitem__

    def read(self: TrainBatches, number: int) -> Any:
        if number == wanted and get_worker_info() is not None:
            act()
        return plain(self, number)

    TrainBatches.__getitem__ = read


def fail(error: Exception) -> None:
    raise error


def disturb(how: str, trial: int) -> None:
    """Arrange for a fault at the batch or the step of this trial."""
    if how == "killed":
        after_step(1 + trial % 5, lambda: kill(trial))
    elif how == "fails":
        errors = (DataError("shard 7", "is damaged", "make it again"), OSError(5, "Input/output error: shard 7"))
        at_batch(2 + trial % 6, lambda: fail(errors[trial % 2]))
    else:
        mixed.WORKER_SECONDS = 1
        at_batch(2 + trial % 6, lambda: time.sleep(1000))


SAID = {
    "killed": r"is killed by signal: Killed|exited unexpectedly|went away",  # by where in a step it is noticed
    "fails": "shard 7",
    "hangs": "gave nothing",
}


@pytest.mark.parametrize("n_trials", [1, pytest.param(20, marks=pytest.mark.faults)])
@pytest.mark.parametrize("how", SAID)
def test_a_worker_that_fails_ends_the_run_with_its_error_and_the_run_goes_on_bit_for_bit(
    run_config: Config, whole_run: Callable[..., Path], row: Report, tmp_path: Path, how: str, n_trials: int
) -> None:
    expected, failures, longest = losses(whole_run()), 0, 0.0
    for trial in range(n_trials):
        cfg = run_config(*WORKERS, f"name={trial}")
        code, text, seconds = ends(lambda cfg=cfg, trial=trial: (disturb(how, trial), train(cfg)))
        good = code == 3 and re.search(SAID[how], text) and "Traceback" not in text and seconds < LIMIT_SECONDS
        longest = max(longest, seconds)
        again = ends(lambda cfg=cfg: train(cfg))[0]
        failures += not (good and again == 0 and losses(tmp_path / str(trial)) == expected)
    row(trials=n_trials, failures=failures, note=f"{how}: the longest run to its end took {longest:.0f} s")


@pytest.mark.faults
def test_a_worker_that_hangs_is_given_a_minute(run_config: Config, row: Report) -> None:
    hangs = run_config(*WORKERS)
    code, text, seconds = ends(lambda: (at_batch(3, lambda: time.sleep(1000)), train(hangs)))
    row(
        trials=1,
        failures=int(not (code == 3 and "gave nothing" in text and 60 <= seconds < 75)),
        note=f"{seconds:.0f} s",
    )
