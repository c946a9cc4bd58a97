"""The numbers of a study of two factors and three seeds, worked out by hand."""

import math

import pytest

from lumi.errors import ConfigError, DataError
from lumi.eval.study.analysis import analyse
from lumi.eval.study.reading import read_study
from lumi.eval.study.remarks import remarks

from .runs import write_run


def by_name(analysis):
    return {one.name: one for one in analysis.configurations}


def said(analysis):
    return " ".join(str(piece) for remark in remarks(analysis) for piece in remark)


def test_configurations_are_means_over_seeds_the_best_first(two_by_two):
    analysis = analyse(two_by_two)
    assert analysis.configurations[0].name == "arch=micro, optim.lr=0.001"
    found = by_name(analysis)["arch=nano, optim.lr=0.001"].score
    assert (found.n, found.mean, found.sd) == (3, pytest.approx(3.1), pytest.approx(0.1))
    assert found.high == pytest.approx(3.1 + 4.302653 * 0.1 / math.sqrt(3), abs=1e-6)


def test_the_baseline_is_where_the_study_began(two_by_two):
    analysis = analyse(two_by_two)
    names = {analysis.configurations[one.baseline].name for one in analysis.comparisons}
    assert names == {"arch=nano, optim.lr=0.001"}
    assert len(analysis.comparisons) == 3


def test_a_baseline_of_one_factor_holds_the_other_one(two_by_two):
    analysis = analyse(two_by_two, baseline={"optim.lr": 1e-3})
    names = {
        (analysis.configurations[one.configuration].name, analysis.configurations[one.baseline].name)
        for one in analysis.comparisons
    }
    assert names == {(f"arch={arch}, optim.lr=0.003", f"arch={arch}, optim.lr=0.001") for arch in ("nano", "micro")}


def test_pairs_are_compared_seed_by_seed_and_adjusted_together(two_by_two):
    analysis = analyse(two_by_two, baseline={"optim.lr": 1e-3})
    nano = next(one for one in analysis.comparisons if "nano" in analysis.configurations[one.configuration].name)
    p = 1 - math.sqrt(12 / 14)  # differences 0.1, 0.2, 0.3: see test_statistics
    assert nano.paired.difference.mean == pytest.approx(-0.2)
    assert nano.paired.p == pytest.approx(p, abs=1e-9)
    micro = next(one for one in analysis.comparisons if one is not nano)
    assert micro.paired.difference.mean == pytest.approx(0.2)
    assert micro.paired.p is None or micro.paired.p < 1e-6  # 0.2 each time
    assert nano.p_holm == pytest.approx(p, abs=1e-9)  # the larger of the two, or the only one


def test_higher_is_better_where_the_metric_says_so(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for lr, accuracy in ((0.1, 0.5), (0.2, 0.9)):
        write_run(tmp_path / "runs" / f"{lr}", 2.0, settings={"optim": {"lr": lr}}, metrics={"val/accuracy": accuracy})
    assert analyse(read_study(["runs"]), "val/accuracy").configurations[0].score.mean == 0.9


def test_the_front_has_the_cheap_and_the_good(two_by_two):
    analysis = analyse(two_by_two)
    names = [analysis.configurations[place].name for place in analysis.fronts["plan/flops"]]
    assert names == ["arch=nano, optim.lr=0.003", "arch=micro, optim.lr=0.001"]


def test_a_study_that_goes_on_says_what_is_missing(grid, tmp_path):
    folder = grid({("nano", 1e-3): [3.0, 3.1], ("nano", 3e-3): [2.9, math.nan]})
    write_run(tmp_path / "runs" / "more", 2.0, status="running")
    analysis = analyse(read_study([str(folder), "runs/more"]))
    assert [run.state for run in analysis.left_out] == ["diverged", "running"]
    assert by_name(analysis)["optim.lr=0.003"].score.n == 1
    assert analysis.comparisons[0].seeds == [0]
    assert "Unequal seeds" in said(analysis)
    assert "1 diverged, 1 running" in said(analysis)


def test_one_seed_is_said_to_tell_nothing(grid):
    analysis = analyse(read_study([str(grid({("nano", 1e-3): [3.0], ("nano", 3e-3): [2.9]}))]))
    assert analysis.comparisons[0].p_holm is None
    assert "One seed each" in said(analysis)


def test_selection_is_said_to_flatter(grid):
    losses = {("nano", 1e-3): [1.0, 4.0], ("nano", 3e-3): [5.0, 2.0], ("nano", 1e-2): [9.0, 9.5]}
    analysis = analyse(read_study([str(grid(losses))]))  # chosen by seed 0: 4; by seed 1: 5
    assert analysis.held_out == 4.5
    assert "worth 4.5000 instead of 2.5000" in said(analysis)


def test_the_best_at_the_end_of_a_range_is_pointed_out(grid):
    analysis = analyse(read_study([str(grid({("nano", lr): [lr] for lr in (0.1, 0.2, 0.3)}))]))
    assert "best optim.lr=0.1 is the lowest that was tried" in said(analysis)


def test_a_later_run_with_the_same_settings_and_seed_counts(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, loss in (("a", 2.0), ("b", 3.0)):
        write_run(tmp_path / "runs" / name, loss)
    analysis = analyse(read_study(["runs"]))
    assert analysis.configurations[0].score.mean == 3.0
    assert [run.name for run in analysis.replaced] == ["a"]


def test_losses_per_token_of_two_tokenizers_come_with_a_warning(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for size in (500, 700):
        write_run(tmp_path / "runs" / f"{size}", 2.0, settings={"tokenizer": {"vocab_size": size}})
    assert "Tokenizers differ" in said(analyse(read_study(["runs"])))


def test_a_metric_that_no_run_has_is_refused_with_the_nearest(two_by_two):
    with pytest.raises(ConfigError, match="metric=val/los · no finished run has this metric · did you mean 'val/loss'"):
        analyse(two_by_two, "val/los")


def test_without_a_finished_run_there_is_nothing_to_compare(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "runs" / "a", 2.0, status="running")
    with pytest.raises(DataError, match=r"1 runs \(running\) · none is finished"):
        analyse(read_study(["runs"]))
