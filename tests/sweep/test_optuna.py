"""A search: what it asks for, what it stops, and that a kill changes nothing. The runs are those of quick.py."""

import pytest

pytest.importorskip("optuna")

from pathlib import Path

import optuna

from lumi.config import build
from lumi.errors import ConfigError
from lumi.sweep import Optuna
from lumi.sweep.optuna import open_search, suggest
from lumi.sweep.space import Dimension

SEARCH = (
    "sweep=optuna",
    "study=s",
    "sweep.trials=4",
    "sweep.prune=median",
    "sweep.prune_after=2",
    "sweep.seed=7",
    "optim.lr=tag(log,interval(1e-4,1e-1))",
    "budget.steps=16",
)


def test_a_search_that_was_killed_goes_on_as_if_nothing_had_happened(place) -> None:
    code, said = place.stop_when(lambda: place.states()[:3] == ["finished", "finished", "running"], *SEARCH)
    assert code == 143, said
    assert place.states() == ["finished", "finished", "stopped"]
    code, said = place.run(*SEARCH)
    assert code == 0, said
    assert sorted(place.states()) == ["finished", "finished", "finished", "pruned"]
    assert [job["number"] for job in place.study()["jobs"]] == [0, 1, 2, 3]
    assert "best            val/loss" in said
    assert [float(job["overrides"][0].partition("=")[2]) for job in place.study()["jobs"]] == undisturbed(4)


def undisturbed(n_trials: int) -> list[float]:
    """The rates of the same search in one go, by Optuna alone: each trial has a seed of its own."""
    search, rates = optuna.create_study(), []
    for number in range(n_trials):
        search.sampler = optuna.samplers.TPESampler(seed=7 * 1_000_003 + number)
        trial = search.ask()
        rates.append(float(f"{trial.suggest_float('optim.lr', 1e-4, 1e-1, log=True):.4g}"))
        search.tell(trial, 1.0)
    return rates


def test_a_search_counts_what_it_has_and_a_rate_that_diverges_as_pruned(place) -> None:
    words = ("sweep=optuna", "study=s", "optim.lr=0.2,1e-3", "budget.steps=2", "sweep.sampler=random", "sweep.seed=2")
    code, said = place.run(*words, "sweep.trials=4")
    assert code == 0, said
    first, second = place.study()["jobs"]  # it drew each twice, and trained each once
    assert (first["number"], first["overrides"], first["state"]) == (0, ["optim.lr=1e-3"], "finished")
    assert (second["number"], second["overrides"], second["state"]) == (2, ["optim.lr=0.2"], "pruned")
    assert second["error"].startswith("NumericError: train/loss=nan")
    code, said = place.run(*words[:2], "optim.lr=0.2,1e-2", *words[3:])
    assert code == 2
    assert "is a search that was begun with" in said


def test_a_value_is_what_a_command_line_takes(tmp_path: Path) -> None:
    search = open_search(Optuna(), tmp_path / "journal", "x")
    search.enqueue_trial({"a": 0.00321749, "b": 7, "c": "'a b'"})
    trial = search.ask()
    assert suggest(trial, Dimension(key="a", low=1e-4, high=1e-2, log=True)) == "3.217e-3"
    assert suggest(trial, Dimension(key="b", low=4, high=32)) == "7"
    assert suggest(trial, Dimension(key="c", choices=("x", "'a b'"))) == "'a b'"


def test_a_search_keeps_its_command(tmp_path: Path) -> None:
    open_search(Optuna(), tmp_path / "s" / "journal", "optim.lr=1,2")
    open_search(Optuna(trials=50), tmp_path / "s" / "journal", "optim.lr=1,2")
    with pytest.raises(ConfigError, match=r"study=s · is a search that was begun with optim\.lr=1,2 · study=…"):
        open_search(Optuna(), tmp_path / "s" / "journal", "optim.lr=1,3")


def test_each_way_of_pruning_is_optunas() -> None:
    assert isinstance(Optuna().pruner(), optuna.pruners.SuccessiveHalvingPruner)
    assert isinstance(Optuna(prune="median").pruner(), optuna.pruners.MedianPruner)
    assert isinstance(Optuna(prune=None).pruner(), optuna.pruners.NopPruner)


@pytest.mark.parametrize("key", ["trials", "startup_trials", "prune_after"])
def test_a_count_of_nothing_is_refused(key: str) -> None:
    with pytest.raises(ConfigError, match=rf"sweep\.{key}=0 · must be at least 1"):
        build({"_target_": "lumi.sweep.Optuna", key: 0}, "sweep")
