"""What varies, found from settings and from what the study says."""

from pathlib import Path

import pytest

from lumi.errors import ConfigError
from lumi.eval.study.factors import find_factors, wanted_levels
from lumi.eval.study.reading import Run


def runs(*settings, overrides=()):
    overrides = overrides or [{}] * len(settings)
    return [
        Run(folder=Path(f"r{place}"), state="finished", settings=one, overrides=own)
        for place, (one, own) in enumerate(zip(settings, overrides, strict=True))
    ]


def found(*settings, **words):
    return {factor.name: factor.levels for factor in find_factors(runs(*settings, **words))}


def test_what_differs_is_a_factor_but_for_seed_and_name():
    assert found({"optim.lr": 0.01, "seed": 0, "name": "a"}, {"optim.lr": 0.001, "seed": 1, "name": "b"}) == {
        "optim.lr": ("0.001", "0.01")
    }


def test_settings_that_change_together_are_one_factor():
    settings = [{"arch.n_layers": n, "arch.d_model": 32 * n, "arch.d_ff": max(256, 64 * n)} for n in (2, 4, 8)]
    (factor,) = find_factors(runs(*settings))
    assert factor.levels == ("2", "4", "8")
    assert set(factor.keys) == {"arch.n_layers", "arch.d_model", "arch.d_ff"}


def test_in_a_random_search_nothing_follows_from_a_value_that_is_there_once():
    settings = [{"optim.lr": 0.1 * place, "optim.weight_decay": place % 3} for place in range(1, 7)]
    assert set(found(*settings)) == {"optim.lr", "optim.weight_decay"}


def test_a_class_stands_for_its_section():
    adamw = {"optim._target_": "lumi.optim.AdamW", "optim.lr": 0.1}
    muon = {"optim._target_": "lumi.optim.Muon", "optim.lr": 0.2, "optim.momentum": 0.9}
    assert found(adamw, muon) == {"optim": ("AdamW", "Muon")}


def test_the_study_names_its_factors_and_what_follows_from_them_is_none():
    small, large = {"arch.n_layers": 2, "arch.d_ff": 8}, {"arch.n_layers": 4, "arch.d_ff": 8}
    words = [{"arch": "nano", "seed": "0"}, {"arch": "micro", "seed": "0"}]
    assert found(small, large, overrides=words) == {"arch": ("nano", "micro")}


def test_the_same_value_in_other_words_is_no_level_of_its_own():
    words = [{"optim.lr": "1e-3"}, {"optim.lr": "0.001"}, {"optim.lr": "1e-2"}]
    assert found({"optim.lr": 0.001}, {"optim.lr": 0.001}, {"optim.lr": 0.01}, overrides=words) == {
        "optim.lr": ("0.001", "0.01")
    }


def test_another_seed_that_goes_with_the_seed_is_a_replicate_too():
    assert found({"seed": 0, "pack.seed": 5}, {"seed": 1, "pack.seed": 6}) == {}
    assert "pack.seed" in found({"seed": 0, "pack.seed": 5}, {"seed": 0, "pack.seed": 6})


def test_a_rate_that_goes_with_the_seed_is_a_factor_still():
    assert "optim.lr" in found({"seed": 0, "optim.lr": 0.1}, {"seed": 1, "optim.lr": 0.2})


def test_a_setting_that_a_run_lacks_is_a_level():
    assert found({"a.x": 1, "a.y": 2}, {"a.x": 1}) == {"a.y": ("2", "–")}


@pytest.mark.parametrize(
    "wanted", ["optim.lr=1e-3", {"optim.lr": 0.001}, ["optim.lr=0.0010"], "r0"], ids=["words", "mapping", "list", "run"]
)
def test_a_baseline_may_be_said_in_many_ways(wanted):
    some = runs({"optim.lr": 0.001}, {"optim.lr": 0.01})
    assert wanted_levels(wanted, some, find_factors(some)) == {"optim.lr": "0.001"}


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("optim.lr=7", "baseline=optim.lr=7 · no finished run has it · optim.lr is one of 0.001, 0.01"),
        ({"optim.lrr": 1}, "did you mean 'optim.lr'"),
        ("r00", "did you mean 'r0'"),
    ],
)
def test_a_baseline_that_is_not_there_is_refused_with_what_is(wanted, message):
    some = runs({"optim.lr": 0.001}, {"optim.lr": 0.01})
    with pytest.raises(ConfigError, match=message):
        wanted_levels(wanted, some, find_factors(some))
