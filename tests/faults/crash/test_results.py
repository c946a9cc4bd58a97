"""K6: exports, merged models, evaluations and sweeps, killed at any moment, are not there or complete."""

import json
import os
import random
import shutil
import signal
import time
from pathlib import Path

import pytest

from tests.faults.conftest import Work
from tests.faults.crash.trials import Kills, forked, hashes, is_whole_or_absent, leftovers, seconds_of
from tests.faults.ledger import Report
from tests.sweep.conftest import Place

SEED = 6
RESULTS = {"merge": "merged", "export": "export", "evaluation": "eval"}
LONG = [pytest.param(stage, 50, marks=pytest.mark.faults) for stage in RESULTS]


def content(folder: Path) -> dict[str, str]:
    """What must be the same every time: hashes, or the figures of an evaluation."""
    if (folder / "results.json").exists():
        found = json.loads((folder / "results.json").read_bytes())
        return {name: json.dumps(found[name]) for name in ("sources", "chat")}
    names = ("model.safetensors", "tokenizer.model", "config.json")
    return {name: value for name, value in hashes(folder).items() if name in names}


def is_torn(folder: Path) -> bool:
    """Whether something visible is not whole; an evaluation says that it is done by its key, last."""
    if folder.name != "eval":
        return not is_whole_or_absent(folder)
    if (folder / "results.json").exists():
        json.loads((folder / "results.json").read_bytes())
    return (folder / ".key").exists() and not (folder / "report.md").exists()


@pytest.mark.matrix("K6")
@pytest.mark.parametrize(("stage", "n_kills"), [("merge", 3), *LONG])
def test_a_result_killed_at_any_moment_is_absent_or_whole(
    works: dict[str, Work], tmp_path: Path, row: Report, stage: str, n_kills: int
) -> None:
    work, folder, name = works[stage], tmp_path / "here", RESULTS[stage]
    kills = Kills(SEED, seconds_of(lambda: work(tmp_path / "first")))
    expected, done, failures = content(tmp_path / "first" / name), 0, 0
    while done < n_kills:
        shutil.rmtree(folder, ignore_errors=True)
        if not kills.kill(lambda: work(folder)):
            continue
        torn = is_torn(folder / name)
        assert forked(lambda: work(folder)) == 0, "it cannot be done again"
        left = [one for one in leftovers(folder) if name != "eval"]
        failures += torn or content(folder / name) != expected or bool(left)
        done += 1
    row(trials=done, failures=failures, seed=SEED)


@pytest.mark.matrix("K6")
@pytest.mark.faults
def test_a_killed_sweep_runs_only_what_was_not_finished(tmp_path: Path, row: Report) -> None:
    words, n_kills, failures, kept, rng = ("budget.steps=8", "seed=0,1,2"), 50, 0, 0, random.Random(SEED)
    begin = time.monotonic()
    assert a_place(tmp_path / "whole").run(*words)[0] == 0, "the undisturbed study fails"
    seconds = time.monotonic() - begin
    for trial in range(n_kills):
        place = a_place(tmp_path / str(trial))
        process = place.start(*words)
        time.sleep(seconds * rng.uniform(0.2, 1.0))
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        finished = finished_runs(place.folder)
        code, _ = place.run(*words)
        after = finished_runs(place.folder)
        again = [run for run, when in finished.items() if after.get(run) != when]
        kept += len(finished)
        failures += code != 0 or len(after) != 3 or bool(again) or set(place.states()) != {"finished"}
        shutil.rmtree(place.folder)
    row(trials=n_kills, failures=failures, seed=SEED, note=f"{kept} finished jobs were left as they were")


def a_place(folder: Path) -> Place:
    """A new one."""
    folder.mkdir()
    return Place(folder)


def finished_runs(folder: Path) -> dict[str, int]:
    """Of a study, with the time of their last write."""
    states = {path: json.loads(path.read_bytes()) for path in folder.glob("runs/*/run.json")}
    return {str(path): path.stat().st_mtime_ns for path, state in states.items() if state["status"] == "finished"}
