"""Minutes of it (`pytest -m faults -s tests/scale`): 100 steps in every layout, 40 kills and signals at random steps."""

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import DictConfig

from lumi.callbacks import list_checkpoints
from lumi.manifest import sha256_file
from lumi.run import train
from tests.faults.ledger import Report
from tests.scale.conftest import InRanks, after_step, curve, largest_difference, signal_after
from tests.scale.test_launch import are_gone

pytestmark = pytest.mark.faults

Config = Callable[..., DictConfig]

LENGTH = ("trainer.val_every_steps=20", "callbacks.checkpoint.every_steps=5", "arch.dropout=0.0", "data.val_windows=40")
ONE = (*LENGTH, "trainer.accumulate=2", "budget.steps=100")
TWO = (*LENGTH, "trainer=ddp", "trainer.accelerator=cpu", "trainer.threads=1", "budget.steps=100")
PARTS = (*LENGTH, "trainer=fsdp", "trainer.accelerator=cpu", "trainer.threads=1", "budget.steps=100")


@pytest.mark.matrix("T6")
def test_a_hundred_steps_are_the_same_in_every_layout(
    run_config: Config, in_ranks: InRanks, tmp_path: Path, row: Report
) -> None:
    train(run_config(*ONE, "name=one"))
    larger = [one if "accumulate" not in one else "data.batch_size=4" for one in ONE]
    layouts = {"one larger batch": (1, larger), "two": (2, TWO), "two parts": (2, PARTS)}
    for name, (n_ranks, overrides) in layouts.items():
        assert in_ranks(run_config(*overrides, f"name={name.replace(' ', '-')}"), n_ranks=n_ranks) == [0] * n_ranks
    for name, way in {"1-2-1": (ONE, TWO, ONE), "2-parts-1": (TWO, PARTS, ONE)}.items():
        for overrides, stop in zip(way, (33, 66, 0), strict=True):
            n_ranks = 1 if overrides is ONE else 2
            codes = in_ranks(run_config(*overrides, f"name={name}"), n_ranks, signal_after(stop, signal.SIGTERM, 0))
            assert codes == [143 if stop else 0] * n_ranks
    names = [*(name.replace(" ", "-") for name in layouts), "1-2-1", "2-parts-1"]
    found = {name: largest_difference(tmp_path / "one", tmp_path / name) for name in names}
    failures = sum(value >= 1e-5 for value in found.values())
    said = ", ".join(f"{name} {value:.0e}" for name, value in found.items())
    row(trials=len(found), failures=failures, note=f"largest relative difference over 100 steps: {said}")


@pytest.mark.matrix("T3")
@pytest.mark.parametrize("layout", [TWO, PARTS], ids=["whole", "parts"])
def test_twenty_kills_and_twenty_signals_leave_the_run_as_it_would_have_been(
    run_config: Config, in_ranks: InRanks, tmp_path: Path, row: Report, layout: tuple[str, ...]
) -> None:
    assert in_ranks(run_config(*layout, "name=whole")) == [0, 0]
    dice, cut = random.Random(0), run_config(*layout, "name=cut")
    seconds, done = [], 0
    for trial in range(40):
        number = signal.SIGKILL if trial % 2 else signal.SIGTERM
        victim, step = dice.randrange(2), done + dice.randint(1, 4)
        killed = tmp_path / f"{trial}"

        def act(number: int = number, killed: Path = killed) -> None:
            killed.write_text(str(time.time()))
            os.kill(os.getpid(), number)

        codes = in_ranks(cut, 2, lambda rank, v=victim, s=step, a=act: after_step(s, a) if rank == v else None)
        seconds.append(time.time() - float(killed.read_text()))
        assert codes == ([143, 143] if number == signal.SIGTERM else [1 if rank != victim else -9 for rank in (0, 1)])
        done = list_checkpoints(tmp_path / "cut" / "checkpoints")[0][0] if trial else step
        assert number == signal.SIGKILL or done == step
    assert in_ranks(cut) == [0, 0]
    assert curve(tmp_path / "cut") == curve(tmp_path / "whole")
    newest = [list_checkpoints(tmp_path / run / "checkpoints")[0][1] for run in ("cut", "whole")]
    same = sha256_file(newest[0] / "model.safetensors") == sha256_file(newest[1] / "model.safetensors")
    row(
        trials=40,
        failures=int(not same),
        seed=0,
        note=f"{layout[4]}: 20 kills, 20 signals, longest end {max(seconds):.1f} s",
    )


def test_a_killed_launcher_takes_its_ranks_with_it(started) -> None:
    launcher, children = started
    os.kill(launcher.pid, signal.SIGKILL)
    launcher.wait()
    assert are_gone(children)
