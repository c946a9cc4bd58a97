"""Training time, and what of it a resumed run continues."""

import itertools
import time

import pytest

from lumi.callbacks import Progress
from lumi.callbacks.progress import Stopwatch


@pytest.fixture
def progress() -> Progress:
    return Progress(
        total_steps=10,
        tokens=int,
        taken=lambda step: [3, 4],
        epoch_tokens=1,
        flops_per_token=1,
        peak_flops=1.0,
        sources=["a", "b"],
    )


def test_all_laps_count_and_a_pause_does_not(monkeypatch):
    ticks = itertools.chain(
        [0, 0, 3, 10, 14, 14, 20], itertools.repeat(20)
    )  # made, begun, paused, resumed, lap, lap, asked
    monkeypatch.setattr(time, "monotonic", lambda: float(next(ticks)))
    clock = Stopwatch()
    clock.start(0)
    clock.pause()
    clock.resume()
    assert clock.lap(14) == 14 / 7
    assert clock.total() == 7 + 6


def test_a_resumed_run_goes_on_with_its_time(progress):
    progress.load_state_dict({"seconds": 100.0})
    assert 100.0 <= progress.state_dict()["seconds"] < 101.0


def test_a_checkpoint_from_before_the_time_was_kept_can_be_continued(progress):
    progress.load_state_dict({"windows_seen": [3, 4]})
    assert progress.state_dict()["seconds"] < 1.0
