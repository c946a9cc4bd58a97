"""T7: a clock that jumps, a summer time, another time zone: the same checkpoint is chosen, no duration is negative."""

import logging
import os
import re
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from lumi.callbacks import list_checkpoints, newest_checkpoint, read_metrics
from lumi.run import train
from tests.faults.ledger import Report
from tests.faults.training.conftest import LENGTH, Config, ends, losses
from tests.scale.conftest import after_step

DAY = 86_400.0
JUMPS = {
    "a day back": (-DAY, "UTC"),
    "ten years on": (3652 * DAY, "UTC"),
    "summer time ends": (-3600.0, "Europe/Berlin"),
    "summer time begins": (3600.0, "America/New_York"),
    "another zone": (0.0, "Asia/Kathmandu"),
    "a step of NTP": (-2.5, "UTC"),
}


def jump(seconds: float, zone: str) -> None:
    """In this process: the wall clock and the zone are other ones from now on."""
    clock = time.time
    time.time = lambda: clock() + seconds
    os.environ["TZ"] = zone
    time.tzset()


def trained_with(cfg: Any, seconds: float, zone: str) -> None:
    """A run in which the clock jumps after its sixth step; every time that it says it has left is one."""
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    logging.getLogger("lumi").addHandler(handler)
    logging.getLogger("lumi").setLevel(logging.INFO)
    after_step(6, lambda: jump(seconds, zone))
    train(cfg)
    left = [line for line in lines if line.endswith(" left")]
    assert left, lines
    assert all(re.search(r" (\?|[\d:]+) left$", line) for line in left), left


@pytest.mark.matrix("T7")
@pytest.mark.parametrize("n_jumps", [2, pytest.param(len(JUMPS), marks=pytest.mark.faults)])
def test_a_clock_that_jumps_changes_neither_the_checkpoint_nor_a_duration(
    run_config: Config, whole_run: Any, row: Report, tmp_path: Path, n_jumps: int
) -> None:
    expected, failures = losses(whole_run()), 0
    for number, (seconds, zone) in enumerate(list(JUMPS.values())[:n_jumps]):
        cfg, folder = run_config(*LENGTH, f"name=jump{number}"), tmp_path / f"jump{number}"
        after_five = lambda: after_step(5, lambda: os.kill(os.getpid(), signal.SIGKILL))  # noqa: E731
        assert ends(lambda cfg=cfg, act=after_five: (act(), train(cfg)))[0] == -signal.SIGKILL
        (newest, path), (_, older) = list_checkpoints(folder / "checkpoints")
        os.utime(path, (0, 0))  # the clock went back between the two saves
        os.utime(older)
        chosen = newest_checkpoint(folder / "checkpoints")
        code, text, _ = ends(lambda cfg=cfg, s=seconds, z=zone: trained_with(cfg, s, z))
        assert code == 0, text
        took = [row["perf/seconds"] for row in read_metrics(folder / "metrics.csv").values()]
        good = (newest, chosen) == (4, path) and losses(folder) == expected
        failures += not (good and took == sorted(took) and took[0] >= 0)
    row(trials=n_jumps, failures=failures, note=", ".join(list(JUMPS)[:n_jumps]))
