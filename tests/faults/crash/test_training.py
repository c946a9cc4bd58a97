"""K4 and K7: a run that was killed anywhere, once or ten times, is the run that was not."""

import dataclasses
import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig

from lumi.callbacks import list_checkpoints, read_metrics
from lumi.manifest import sha256_bytes, sha256_file
from lumi.run import train
from tests.faults.crash.trials import forked, is_whole_or_absent, leftovers
from tests.faults.ledger import Report

SEED = 4
STEPS, EVERY = 12, 2
LENGTH = (f"budget.steps={STEPS}", "trainer.val_every_steps=3", f"callbacks.checkpoint.every_steps={EVERY}")
OF_THE_PACE = ("perf/", "time/")
KINDS = {
    "plain": ("pretrain", ()),
    "2 workers": ("pretrain", ("data.num_workers=2",)),
    "accumulation of 4": ("pretrain", ("trainer.accumulate=4",)),
    "2 workers, accumulation of 4": ("pretrain", ("data.num_workers=2", "trainer.accumulate=4")),
    "muon": ("pretrain", ("optim=muon",)),
    "sft": ("sft", ("stage.lora=null", "budget.epochs=null")),
    "sft with an adapter, 2 workers": ("sft", ("stage.lora.dropout=0.1", "budget.epochs=null", "data.num_workers=2")),
    "dpo": ("dpo", ("stage.lora=null", "budget.epochs=null")),
}
"""All with dropout; pretraining reads a mixture of two sources."""
LONG = [pytest.param(kind, 25, marks=pytest.mark.faults) for kind in KINDS]


def stream(run: Path) -> dict[int, dict[str, str]]:
    """Everything in metrics.csv but the pace, as hexadecimal numbers: equal means every bit."""
    rows = read_metrics(run / "metrics.csv")
    return {
        step: {name: value.hex() for name, value in row.items() if not name.startswith(OF_THE_PACE)}
        for step, row in rows.items()
    }


def logged_steps(run: Path) -> int:
    """Complete rows of metrics.csv after its head."""
    file = run / "metrics.csv"
    return max(0, file.read_bytes().count(b"\n") - 1) if file.exists() else 0


def weights(run: Path) -> dict[str, str]:
    """Hashes of the weights of the newest checkpoint, and of what its optimizer remembers."""
    step, newest = list_checkpoints(run / "checkpoints")[0]
    state = torch.load(newest / "training.pt", weights_only=True)  # which also has the seconds so far, of the pace
    moments = b"".join(leaves(state["optimizer_states"]))
    hashes = {path.name: sha256_file(path) for path in newest.glob("*.safetensors")}
    return {**hashes, "step": str(step), "optimizer": sha256_bytes(moments)}


def leaves(tree: Any) -> Iterator[bytes]:
    """The bytes of every tensor and plain value, in their order."""
    if isinstance(tree, dict):
        tree = list(tree.values())
    if isinstance(tree, list | tuple):
        for part in tree:
            yield from leaves(part)
    else:
        yield tree.numpy().tobytes() if isinstance(tree, torch.Tensor) else repr(tree).encode()


@dataclasses.dataclass
class Runs:
    """Runs of one kind in folders of their own; the undisturbed one is trained first.

    Args:
        config: makes the config of a run from the folder of all runs.
        root: of all of them.
    """

    config: DictConfig
    root: Path

    def __post_init__(self) -> None:
        self.train(self.root / "first")  # also makes the data
        assert forked(lambda: self.train(self.root / "whole")) == 0, "the undisturbed run fails"
        self.expected = self.result("whole")

    def train(self, runs: Path) -> None:
        """Train or continue the run in a folder."""
        cfg = self.config.copy()
        cfg.paths.runs = str(runs)
        train(cfg)

    def result(self, name: str) -> tuple[dict[int, dict[str, str]], dict[str, str]]:
        """Every logged bit and the final weights."""
        return stream(self.root / name / "run"), weights(self.root / name / "run")

    def kill(self, name: str, rng: random.Random, within: int = STEPS) -> bool:
        """Train and kill within one of the next steps; False if the run had ended. A step or a save takes 0.1 s."""
        run = self.root / name / "run"
        step = logged_steps(run) + rng.randint(0, within)
        return forked(lambda: self.train(run.parent), rng.uniform(0, 0.1), lambda: logged_steps(run) >= step) != 0

    def lost_steps(self, name: str) -> int:
        """Steps that were logged and are after the newest checkpoint."""
        run = self.root / name / "run"
        logged = logged_steps(run)
        listed = list_checkpoints(run / "checkpoints")
        return logged - (listed[0][0] if listed else 0)

    def is_torn(self, name: str) -> bool:
        """Whether something visible is not whole."""
        return any(not is_whole_or_absent(path) for _, path in list_checkpoints(self.root / name / "run/checkpoints"))


@pytest.fixture
def runs(
    composed: Callable[..., DictConfig], stages: dict[str, tuple[str, ...]], data_folder: Path, tmp_path: Path
) -> Callable[[str], Runs]:
    """``runs("sft")``: runs of that kind."""

    def of(kind: str) -> Runs:
        stage, overrides = KINDS[kind]
        places = (f"paths.data='{data_folder}'", "executor.workers=1", "name=run")
        return Runs(composed("train", *stages[stage], *overrides, *places, *LENGTH), tmp_path)

    return of


@pytest.mark.matrix("K4")
@pytest.mark.parametrize(("kind", "n_cuts"), [("plain", 1), *LONG])
def test_a_run_killed_at_any_moment_continues_bit_for_bit(
    runs: Callable[[str], Runs], row: Report, kind: str, n_cuts: int
) -> None:
    some, wrong = runs(kind), []
    rng, done, most_lost, n_before = random.Random(SEED), 0, 0, 0
    while done < n_cuts:
        shutil.rmtree(some.root / "cut", ignore_errors=True)
        if not some.kill("cut", rng):
            continue
        torn, lost = some.is_torn("cut"), some.lost_steps("cut")
        n_before += not (some.root / "cut/run/metrics.csv").exists()
        assert forked(lambda: some.train(some.root / "cut")) == 0, "the run does not continue"
        faults = {
            "torn": torn,
            f"{lost} steps lost": lost > EVERY,
            "other losses": some.result("cut")[0] != some.expected[0],
            "other weights": some.result("cut")[1] != some.expected[1],
            f"left behind {leftovers(some.root / 'cut')}": bool(leftovers(some.root / "cut")),
        }
        wrong += [f"cut {done}: {fault}" for fault, is_so in faults.items() if is_so]
        most_lost = max(most_lost, lost)
        done += 1
    n_values = done * sum(len(values) for values in some.expected[0].values())
    note = (
        f"{n_values:,} logged values compared; at most {most_lost} steps redone; {n_before} cuts before the first step"
    )
    row(trials=done, failures=len(wrong), seed=SEED, note="; ".join([note, *wrong]))


@pytest.mark.matrix("K7")
@pytest.mark.parametrize(("n_kills", "n_seeds"), [(2, 1), pytest.param(10, 5, marks=pytest.mark.faults)])
def test_a_run_killed_again_and_again_is_the_same_run(
    runs: Callable[[str], Runs], row: Report, n_kills: int, n_seeds: int
) -> None:
    some, failures = runs("plain"), 0
    for seed in range(n_seeds):
        name, rng = f"cut {seed}", random.Random(seed)
        for _ in range(n_kills):
            some.kill(name, rng, within=2)
        assert forked(lambda name=name: some.train(some.root / name)) == 0, "the run does not continue"
        failures += some.result(name) != some.expected or bool(leftovers(some.root / name))
    row(trials=n_seeds * n_kills, failures=failures, seed=0, note=f"{n_seeds} runs, {n_kills} kills each")


def test_the_streams_are_compared_to_the_last_bit(tmp_path: Path) -> None:
    for name, value in (("a", "0.1"), ("b", "0.10000000000000002")):
        os.makedirs(tmp_path / name, exist_ok=True)  # noqa: PTH103
        (tmp_path / name / "metrics.csv").write_text(f"step,train/loss,perf/seconds\n1,{value},{len(name)}\n")
    assert stream(tmp_path / "a") != stream(tmp_path / "b")
    assert stream(tmp_path / "a") == {1: {"train/loss": (0.1).hex()}}
