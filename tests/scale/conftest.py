"""Runs of several processes: forked, because importing what they need takes longer than what they do."""

import os
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
from omegaconf import DictConfig

from lumi.callbacks import Progress, list_checkpoints, read_metrics
from lumi.config import resolve
from lumi.errors import LumiError
from lumi.run import train_rank

HANG_SECONDS = 120.0
OF_THE_MACHINE = ("perf/", "time/")

ROOT = Path(__file__).parent.parent.parent
LONG = ("trainer=ddp", "trainer.accelerator=cpu", "budget.steps=100000", "trainer.val_every_steps=20", "name=run")

Started = tuple["subprocess.Popen[bytes]", list[int]]
Meddle = Callable[[int], None]
InRanks = Callable[..., list[int]]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start_ranks(cfg: DictConfig, n_ranks: int, meddle: Meddle | None) -> list[int]:
    """Process ids of the ranks of a run; ``meddle(rank)`` is called in each before it begins."""
    settings, port, children = resolve(cfg), free_port(), []
    for rank in range(n_ranks):
        child = os.fork()
        if child:
            children.append(child)
            continue
        code = 70
        try:
            place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": n_ranks, "MASTER_PORT": port}
            os.environ.update({"MASTER_ADDR": "127.0.0.1", **{key: str(value) for key, value in place.items()}})
            if meddle is not None:
                meddle(rank)
            train_rank(settings)
            code = 0
        except LumiError as error:
            code = error.exit_code
        except BaseException:  # noqa: BLE001  # whatever it was, this process must not become a second pytest
            traceback.print_exc()
        finally:
            os._exit(code)
    return children


def wait_for(children: list[int], seconds: float = HANG_SECONDS) -> list[int]:
    """Exit codes, -9 for what was killed; what hangs is ended and is a failure."""
    codes: dict[int, int] = {}
    deadline = time.monotonic() + seconds
    while len(codes) < len(children):
        for child in set(children) - codes.keys():
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                codes[child] = os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            for child in set(children) - codes.keys():
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
            pytest.fail(f"{len(children) - len(codes)} of {len(children)} ranks hang")
        time.sleep(0.01)
    return [codes[child] for child in children]


@pytest.fixture
def in_ranks() -> InRanks:
    """``in_ranks(cfg, n_ranks=2, meddle=None)``: exit codes of the ranks of a run."""

    def run(cfg: DictConfig, n_ranks: int = 2, meddle: Meddle | None = None) -> list[int]:
        return wait_for(start_ranks(cfg, n_ranks, meddle))

    return run


@pytest.fixture
def started(tiny_run: tuple[str, ...], data_folder: Path, tmp_path: Path) -> Iterator[Started]:
    """A launcher whose two ranks have saved a checkpoint, and the ranks' process ids."""
    places = (f"paths.data='{data_folder}'", f"paths.runs='{tmp_path}'")
    command = [sys.executable, "train.py", *tiny_run, *LONG, *places]
    launcher = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 120
    while not list_checkpoints(tmp_path / "run" / "checkpoints"):
        assert launcher.poll() is None, launcher.communicate()
        assert time.monotonic() < deadline, "no checkpoint"
        time.sleep(0.05)
    children = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()
    yield launcher, [int(child) for child in children]
    launcher.kill()
    launcher.wait()


def after_step(step: int, act: Callable[[], None]) -> None:
    """In this process: do something when an optimizer step is done."""
    plain = Progress.on_train_batch_end

    def hooked(self: Progress, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        plain(self, trainer, pl_module, outputs, batch, batch_idx)
        if trainer.global_step == step and (batch_idx + 1) % trainer.accumulate_grad_batches == 0:
            act()

    Progress.on_train_batch_end = hooked


def signal_after(step: int, number: signal.Signals, *ranks: int) -> Meddle:
    """These ranks get a signal when they have done a step."""

    def meddle(rank: int) -> None:
        if rank in ranks:
            after_step(step, lambda: os.kill(os.getpid(), number))

    return meddle


def curve(run: Path) -> dict[int, dict[str, float]]:
    """Step → figures of ``metrics.csv`` that do not depend on the machine."""
    rows = read_metrics(run / "metrics.csv")
    return {step: {k: v for k, v in row.items() if not k.startswith(OF_THE_MACHINE)} for step, row in rows.items()}


def largest_difference(one: Path, other: Path, *, without: tuple[str, ...] = ()) -> float:
    """Of any figure at any step, relative; infinite where one has what the other has not.

    Args:
        without: parts of names of figures that are differences of nearly equal numbers, whose own size says nothing.
    """
    left, right = curve(one), curve(other)
    if {s: set(row) for s, row in left.items()} != {s: set(row) for s, row in right.items()}:
        return float("inf")
    names = {name for row in left.values() for name in row if not any(part in name for part in without)}
    pairs = [(row[name], right[step][name]) for step, row in left.items() for name in names & row.keys()]
    return max(abs(a - b) / max(abs(a), abs(b), 1e-12) for a, b in pairs)
