"""Runs that are disturbed in a forked process, and compared with one that was not."""

import functools
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig

from lumi.callbacks import read_metrics
from lumi.errors import LumiError
from lumi.run import train
from tests.scale.conftest import in_ranks  # noqa: F401  # pyright: ignore[reportUnusedImport]  # a fixture of these tests too

Config = Callable[..., DictConfig]
Ended = tuple[int, str, float]
LENGTH = ("budget.steps=8", "trainer.val_every_steps=4", "callbacks.checkpoint.every_steps=2")


def ends(action: Callable[[], Any]) -> Ended:
    """Exit code, message and seconds of something that is done in a forked process; -9 for what was killed."""
    read, write = os.pipe()
    began, child = time.monotonic(), os.fork()
    if not child:
        code, text = 70, ""
        try:
            action()
            code = 0
        except LumiError as error:
            code, text = error.exit_code, str(error)
        except BaseException as error:  # noqa: BLE001  # whatever it was, this process must not become a second pytest
            text = f"{type(error).__name__}: {error}"
        finally:
            os.write(write, text.encode()[-60_000:])
            sys.stderr.flush()
            os._exit(code)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        text = pipe.read().decode()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), text, time.monotonic() - began


@pytest.fixture(scope="session")
def whole_run(
    composed: Config, tiny_run: tuple[str, ...], data_folder: Path, tmp_path_factory: Any
) -> Callable[..., Path]:
    """``whole_run("data.num_workers=2")``: the folder of an undisturbed run with these overrides, trained once a session."""

    @functools.cache
    def folder(*overrides: str) -> Path:
        runs = tmp_path_factory.mktemp("undisturbed")
        places = (f"paths.data='{data_folder}'", f"paths.runs='{runs}'", "name=run")
        assert ends(lambda: train(composed("train", *tiny_run, *places, *LENGTH, *overrides)))[0] == 0
        return runs / "run"

    return folder


def losses(run: Path) -> dict[int, str]:
    """Step → loss and norm, in hexadecimal: every bit of them."""
    rows = read_metrics(run / "metrics.csv")
    return {
        step: f"{row['train/loss'].hex()} {row['optim/grad_norm'].hex()}"
        for step, row in rows.items()
        if "train/loss" in row
    }
