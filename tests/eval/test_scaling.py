"""A scaling law is recovered from losses that were made by one, and says how little it knows from others."""

import json
import math
from pathlib import Path

import pytest
import torch

from lumi.errors import CheckpointError, ConfigError, DataError
from lumi.eval import scaling
from lumi.eval.scaling import Law, Point, Target, bootstrap, exponents, fit_law, interval, parabolas
from lumi.eval.scaling_runs import fit_runs, read_law, read_run, write_scaling

CHINCHILLA = Law(E=1.69, A=406.4, B=410.7, alpha=0.34, beta=0.28)  # arXiv:2203.15556, equation 10
SIZES, COSTS = (4e6, 1e7, 3e7, 8e7, 2e8), (1e16, 1e17, 1e18, 1e19)


def runs(noise: float = 0.0, seed: int = 0) -> list[Point]:
    """Twenty runs of Chinchilla's law, their losses with a relative noise."""
    draw = torch.Generator().manual_seed(seed)
    return [
        Point(
            n_params=n,
            n_tokens=c / 6 / n,
            flops=c,
            loss=CHINCHILLA.loss(n, c / 6 / n) * math.exp(noise * z),
            name=f"{n}",
        )
        for n in SIZES
        for c in COSTS
        for z in torch.randn(1, generator=draw).tolist()
    ]


def test_a_law_gives_the_loss_of_its_formula():
    law = Law(E=1.0, A=8.0, B=27.0, alpha=0.5, beta=1.0)
    assert law.loss(16, 9) == pytest.approx(1 + 8 / 4 + 27 / 9, rel=1e-12)


def test_the_constants_of_exact_losses_are_recovered():
    found = fit_law(runs())
    for name in ("E", "A", "B", "alpha", "beta"):
        assert getattr(found, name) == pytest.approx(getattr(CHINCHILLA, name), rel=1e-3), name


def test_one_run_that_went_wrong_hardly_bends_the_law():
    points = runs()
    points[7] = Point(n_params=points[7].n_params, n_tokens=points[7].n_tokens, flops=points[7].flops, loss=9.0)
    found = fit_law(points)
    assert found.loss(1e9, 2e10) == pytest.approx(CHINCHILLA.loss(1e9, 2e10), rel=5e-3)


def test_with_noise_of_a_percent_the_loss_of_a_larger_model_is_within_its_interval():
    points = runs(noise=0.01)
    law = fit_law(points)
    laws = bootstrap(points, law, n_resamples=20)
    low, high = interval([one.loss(1e9, 2e10) for one in laws])
    assert low < CHINCHILLA.loss(1e9, 2e10) < high
    assert law.loss(1e9, 2e10) == pytest.approx(CHINCHILLA.loss(1e9, 2e10), rel=0.03)
    assert law.alpha == pytest.approx(0.34, abs=0.1)
    assert law.beta == pytest.approx(0.28, abs=0.1)


def test_losses_that_depend_on_nothing_give_a_law_that_predicts_their_size():
    draw = torch.Generator().manual_seed(3)
    points = [
        Point(n_params=n, n_tokens=c / 6 / n, flops=c, loss=3.0 + 0.01 * z)
        for n in SIZES
        for c in COSTS
        for z in torch.randn(1, generator=draw).tolist()
    ]
    assert fit_law(points).loss(3e7, 5e9) == pytest.approx(3.0, abs=0.02)


def test_the_constant_part_is_never_below_a_known_entropy():
    assert fit_law(runs(), floor=1.8).E >= 1.8
    assert pytest.approx(1.69, rel=1e-3) == fit_law(runs(), floor=1.5).E


def test_an_entropy_above_a_measured_loss_is_refused():
    with pytest.raises(ConfigError, match=r"entropy=50\.0 · must be from 0 to below every loss"):
        fit_law(runs(), floor=50.0)


def test_too_few_runs_are_refused():
    with pytest.raises(DataError, match=r"5 runs of 1 sizes and 4 lengths · are too few"):
        fit_law([*runs()[:4], runs()[0]])


@pytest.mark.parametrize("flops", [1e18, 1e21])
def test_the_optimum_is_the_lowest_point_along_a_cost(flops):
    sizes = torch.logspace(6, 12, 60_001, dtype=torch.float64)
    losses = (
        CHINCHILLA.E + CHINCHILLA.A * sizes**-CHINCHILLA.alpha + CHINCHILLA.B * (flops / 6 / sizes) ** -CHINCHILLA.beta
    )
    n_params, n_tokens = CHINCHILLA.optimum(flops)
    assert n_params == pytest.approx(float(sizes[losses.argmin()]), rel=1e-3)
    assert 6 * n_params * n_tokens == pytest.approx(flops, rel=1e-9)


def test_a_law_that_rises_with_size_has_no_optimum():
    with pytest.raises(DataError, match="no cost has an optimum"):
        Law(E=1.0, A=1.0, B=1.0, alpha=-0.1, beta=0.3).optimum(1e18)


def parabola_runs(flops: float, bottom: float, curvature: float = 0.1) -> list[Point]:
    """Five sizes around 1e6 with loss 2 + curvature * (ln N - ln bottom)^2; costs differ a little, as whole steps make them."""
    return [
        Point(
            n_params=n,
            n_tokens=flops / 6 / n,
            flops=flops * (1 + 0.01 * k),
            loss=2 + curvature * math.log(n / bottom) ** 2,
        )
        for k, n in enumerate((2e5, 5e5, 1e6, 2e6, 5e6))
    ]


def test_a_parabola_finds_the_best_size_of_a_cost():
    (curve,) = parabolas(parabola_runs(1e15, bottom=8e5))
    assert curve.n_params == pytest.approx(8e5, rel=1e-6)
    assert curve.loss == pytest.approx(2.0, rel=1e-6)
    assert curve.at(8e5 * math.e) == pytest.approx(2.1, rel=1e-6)


@pytest.mark.parametrize(("bottom", "curvature"), [(1e8, 0.1), (8e5, -0.1)])
def test_a_bottom_outside_the_sizes_or_a_hill_is_none(bottom, curvature):
    (curve,) = parabolas(parabola_runs(1e15, bottom, curvature))
    assert curve.n_params is None
    assert curve.loss is None


def test_the_bottoms_of_several_costs_give_the_exponents():
    points = parabola_runs(1e14, 4e5) + parabola_runs(1e16, 4e6)  # a hundred times the cost, ten times the size
    found = exponents(parabolas(points))
    assert found is not None
    assert found == pytest.approx((0.5, 0.5), abs=0.01)
    assert exponents(parabolas(points[:5])) is None


def test_the_middle_nine_tenths():
    assert interval(list(range(101))) == pytest.approx((5.0, 95.0))


@pytest.fixture
def run_folders(tmp_path: Path) -> list[Path]:
    """Folders as training leaves them, one for each exact run."""
    folders = []
    for number, point in enumerate(runs()):
        folder = tmp_path / f"scaling-{number}"
        folder.mkdir()
        steps = max(1, round(point.n_tokens / 1000))
        plan = {"parameters": point.n_params, "total_steps": steps, "tokens_per_step": 1000}
        plan |= {"flops_per_token": 6 * point.n_params}
        settings = {"name": folder.name, "data": {"seq_len": 128}, "tokenizer": {"vocab_size": 2048}}
        settings |= {"optim": {"lr": 1}, "stage": {}}
        state = {"status": "finished", "settings": settings, "plan": plan, "metrics": {"val/loss": point.loss}}
        (folder / "run.json").write_text(json.dumps(state))
        folders.append(folder)
    return folders


def change(folder: Path, **values: object) -> None:
    state = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps({**state, **values}))


def test_a_run_is_read_as_its_size_length_cost_and_loss(run_folders):
    change(run_folders[0], metrics={"val/loss": 2.5})
    found = read_run(run_folders[0])
    assert found is not None
    assert (found[0].n_params, found[0].n_tokens, found[0].loss) == (4e6, 416_667_000, 2.5)
    assert found[0].flops == pytest.approx(1e16, rel=1e-5)


def test_a_run_that_is_not_finished_is_left_out_with_a_warning(run_folders, caplog):
    change(run_folders[0], status="running")
    assert read_run(run_folders[0]) is None
    assert "scaling-0 is not finished and is left out" in caplog.text


def test_a_folder_without_a_validation_loss_is_named(run_folders):
    change(run_folders[0], metrics={})
    with pytest.raises(CheckpointError, match=r"scaling-0 · is not a run with a validation loss"):
        read_run(run_folders[0])


def test_runs_with_different_recipes_are_not_fitted_together(run_folders):
    settings = json.loads((run_folders[3] / "run.json").read_text())["settings"]
    change(run_folders[3], settings={**settings, "optim": {"lr": 2}})
    with pytest.raises(DataError, match=r"optim of scaling-3 is not that of scaling-0"):
        fit_runs(run_folders)


def test_what_is_written_says_predicted_beside_measured_and_can_be_read_again(run_folders, tmp_path, monkeypatch):
    monkeypatch.setattr("lumi.eval.scaling_runs.RESAMPLES", 3)
    monkeypatch.setattr(scaling, "_STARTS", 2)
    fitted = fit_runs(run_folders)
    text = write_scaling(tmp_path / "fit", fitted, [Target(name="larger", n_params=1e9, n_tokens=2e10, measured=2.5)])
    (row,) = json.loads((tmp_path / "fit" / "law.json").read_text())["predictions"]
    assert row["predicted"] == pytest.approx(1.69 + 406.4 / 1e9**0.34 + 410.7 / 2e10**0.28, rel=2e-3)
    assert row["error"] == pytest.approx(row["predicted"] / 2.5 - 1, rel=1e-9)
    assert f"{row['predicted']:.3f} |" in text
    assert f"{100 * row['error']:+.1f} %" in text
    assert (tmp_path / "fit" / "scaling.png").read_bytes()[:4] == b"\x89PNG"
    assert read_law(tmp_path / "fit") == fitted


def test_a_path_without_a_law_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"law=.*none\.json · is not a fitted law"):
        read_law(tmp_path / "none.json")


def test_the_command_predicts_a_named_architecture_and_holds_out_a_run(run_folders, tmp_path, composed, monkeypatch):
    from lumi.evaluate import evaluate

    monkeypatch.setattr("lumi.eval.scaling_runs.RESAMPLES", 2)
    monkeypatch.setattr(scaling, "_STARTS", 2)
    held = run_folders[-1]
    places = (f"scaling='{tmp_path}/scaling-*'", f"predict=[nano,'{held}']", f"out='{tmp_path}/fit'")
    evaluate(composed("evaluate", *places, "predict_tokens=1e6"))
    found = json.loads((tmp_path / "fit" / "law.json").read_text())
    assert [(row["name"], row["n_params"]) for row in found["predictions"]] == [("nano", 1_311_872), (held.name, 2e8)]
    assert len(found["points"]) == 19
    assert found["predictions"][1]["error"] == pytest.approx(0.0, abs=1e-3)


def test_an_architecture_that_does_not_exist_is_named_with_the_nearest(run_folders, tmp_path, composed, monkeypatch):
    from lumi.evaluate import evaluate

    monkeypatch.setattr("lumi.eval.scaling_runs.RESAMPLES", 1)
    monkeypatch.setattr(scaling, "_STARTS", 1)
    with pytest.raises(ConfigError, match=r"predict=nanoo · is not a named architecture · did you mean 'nano'\?"):
        evaluate(composed("evaluate", f"scaling='{tmp_path}/scaling-*'", "predict=nanoo", f"out='{tmp_path}/fit'"))


def test_a_pattern_without_runs_is_named(tmp_path, composed):
    from lumi.evaluate import evaluate

    with pytest.raises(DataError, match=r"names no run"):
        evaluate(composed("evaluate", f"scaling='{tmp_path}/none-*'"))
