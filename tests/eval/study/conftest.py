"""Studies of a few runs, written by `runs`."""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from lumi.eval.study.reading import Study, read_study
from lumi.eval.study.report import report_study

from .runs import write_run, write_study

ARCHS = {"nano": {"n_layers": 4, "d_model": 128}, "micro": {"n_layers": 6, "d_model": 192}}
Losses = dict[tuple[str, float], Sequence[float]]


def write_grid(root: Path, losses: Losses, **study: Any) -> Path:
    """A study of architectures and rates: the losses of seed 0, of seed 1, …"""
    jobs = []
    for (arch, lr), of_seeds in losses.items():
        for seed, loss in enumerate(of_seeds):
            run, n_layers = f"runs/{arch}-{lr}-{seed}", ARCHS[arch]["n_layers"]
            settings = {"arch": ARCHS[arch], "optim": {"_target_": "lumi.optim.AdamW", "lr": lr}}
            plan = {"parameters": 100 * n_layers, "flops_per_token": 600 * n_layers}
            write_run(root / run, loss, seed=seed, settings=settings, plan=plan, seconds=float(n_layers))
            jobs.append({"overrides": [f"arch={arch}", f"optim.lr={lr}", f"seed={seed}"], "run": run})
    return write_study(root, jobs, **study)


TWO_BY_TWO: Losses = {
    ("nano", 1e-3): (3.0, 3.1, 3.2),
    ("nano", 3e-3): (2.9, 2.9, 2.9),
    ("micro", 1e-3): (2.5, 2.6, 2.7),
    ("micro", 3e-3): (2.7, 2.8, 2.9),
}
"""Two architectures, two rates, three seeds; the seed moves three of them alike, and the other pair by 0.1, 0.2, 0.3."""


@pytest.fixture
def grid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """``grid({("nano", 1e-3): [3.0, 3.1]})``: such a study in the folder that the test then works in."""
    monkeypatch.chdir(tmp_path)
    return functools.partial(write_grid, tmp_path)


@pytest.fixture
def two_by_two(grid: Callable[..., Path]) -> Study:
    return read_study([str(grid(TWO_BY_TWO))])


@pytest.fixture(scope="session")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its report, against the larger architecture at the higher rate; drawing takes a second."""
    study = write_grid(tmp_path_factory.mktemp("report"), TWO_BY_TWO)
    return report_study([str(study)], baseline="arch=micro,optim.lr=3e-3")
