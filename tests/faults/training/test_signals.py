"""T3: SIGTERM and SIGINT at any moment of training, once and twice: the step is saved, no bit is lost."""

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from lumi.callbacks import list_checkpoints
from lumi.data.mixed import MixedWindows
from lumi.manifest import sha256_file
from lumi.run import train
from lumi.stage import Pretrain
from tests.faults.ledger import Report
from tests.faults.training.conftest import Config, ends, losses
from tests.scale.conftest import after_step

pytestmark = pytest.mark.matrix("T3")

MOMENTS = ("step", "validation", "save", "loader", "twice")
EVERY = ("trainer.val_every_steps=4", "callbacks.checkpoint.every_steps=3", "callbacks.checkpoint.keep_last=null")


def send(number: signal.Signals, times: int = 1) -> None:
    os.kill(os.getpid(), number)
    for _ in range(times - 1):
        time.sleep(1.05)  # what comes within a second is the same request
        os.kill(os.getpid(), number)


def before(owner: type, name: str, act: Callable[[], None], wanted: int = 0) -> None:
    """In this process: do something when a method is called for the time ``wanted``."""
    plain, calls = getattr(owner, name), [0]

    def hooked(*arguments: object, **named: object) -> object:
        calls[0] += 1
        if calls[0] == wanted + 1:
            act()
        return plain(*arguments, **named)

    setattr(owner, name, hooked)


def arrange(moment: str, number: signal.Signals, step: int) -> None:
    """A signal to this process at a moment of its run."""
    if moment == "step":
        after_step(step, lambda: send(number))
    elif moment == "validation":
        before(Pretrain, "validation_step", lambda: send(number), wanted=1)
    elif moment == "save":
        before(torch, "save", lambda: send(number))  # pyright: ignore[reportArgumentType]
    elif moment == "loader":
        before(MixedWindows, "train_dataloader", lambda: send(number))
    else:
        after_step(step, lambda: send(number, times=2))


@pytest.mark.parametrize("n_signals", [5, pytest.param(100, marks=pytest.mark.faults)])
def test_signals_at_any_moment_lose_no_step_and_change_no_bit(
    run_config: Config, row: Report, tmp_path: Path, n_signals: int
) -> None:
    length = (*EVERY, f"budget.steps={3 * n_signals}")
    assert ends(lambda: train(run_config(*length, "name=whole")))[0] == 0
    dice, cut, failures, longest, done = random.Random(0), run_config(*length), 0, 0.0, 0
    for trial in range(n_signals):
        moment, number = MOMENTS[trial % 5], (signal.SIGTERM, signal.SIGINT)[dice.randrange(2)]
        step = done + dice.randint(1, 3)
        code, text, seconds = ends(lambda m=moment, n=number, s=step: (arrange(m, n, s), train(cut)))
        found = list_checkpoints(tmp_path / "run" / "checkpoints")
        reached = found[0][0] if found else 0
        kept = reached >= (step if moment == "step" else done)
        # Before the first step of a process there is nothing to save that the last one has not saved.
        words = {"twice": ("at once",), "loader": ("before its next step", f"after step {reached} of")}
        said = any(one in text for one in words.get(moment, (f"after step {reached} of",)))
        failures += not (code == 128 + number and said and kept)
        longest, done = max(longest, seconds), reached
    again = ends(lambda: train(cut))[0]
    newest = [
        list_checkpoints(tmp_path / name / "checkpoints")[0][1] / "model.safetensors" for name in ("run", "whole")
    ]
    failures += not (again == 0 and losses(tmp_path / "run") == losses(tmp_path / "whole"))
    failures += sha256_file(newest[0]) != sha256_file(newest[1])
    row(
        trials=n_signals,
        failures=failures,
        seed=0,
        note=f"longest from the start of the process to its end: {longest:.1f} s",
    )
