"""DPO in a real run: it begins at ln 2, and the reference is the model that it begins from."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import DictConfig

from lumi.callbacks import read_metrics
from lumi.errors import ConfigError
from lumi.run import train

Config = Callable[..., DictConfig]


@pytest.fixture
def run(
    composed: Config, stages: dict[str, tuple[str, ...]], data_folder: Path, tmp_path: Path
) -> Callable[..., dict[int, dict[str, float]]]:
    """``run("stage.lora=null", …)``: the metrics of a tiny run of DPO, by step."""

    def start(*overrides: str) -> dict[int, dict[str, float]]:
        places = (
            f"paths.data='{data_folder}'",
            f"paths.runs='{tmp_path}/{len(overrides)}'",
            "name=run",
            "budget.epochs=null",
        )
        train(composed("train", *stages["dpo"], *places, "budget.steps=3", "trainer.val_every_steps=1", *overrides))
        return read_metrics(tmp_path / str(len(overrides)) / "run" / "metrics.csv")

    return start


@pytest.mark.parametrize("lora", [("stage.lora=null",), ()])
def test_the_first_loss_is_ln_2(run: Callable[..., dict[int, dict[str, float]]], lora: tuple[str, ...]) -> None:
    # With an adapter the reference is the model without one, so the same must hold; dropout would blur it.
    rows = run("arch.dropout=0", *lora)
    assert rows[1]["train/loss"] == pytest.approx(math.log(2), abs=2e-6)
    assert rows[1]["train/margin"] == pytest.approx(0.0, abs=2e-6)
    assert rows[1]["train/drift_chosen"] == pytest.approx(0.0, abs=2e-6)


def test_another_template_than_the_models_is_refused(run: Callable[..., dict[int, dict[str, float]]]) -> None:
    with pytest.raises(ConfigError, match=r"template=chat · is not the one that .* was trained with · template=chatml"):
        run("template=chat")


@pytest.mark.parametrize("wrong", ["stage.objective.margin=1.0", "stage.lora.r=0", "+data.replay=0.5"])
def test_a_wrong_value_is_found_before_any_work(composed: Config, tmp_path: Path, wrong: str) -> None:
    places = (f"paths.data='{tmp_path}'", f"paths.runs='{tmp_path}'")
    with pytest.raises(ConfigError, match=wrong.lstrip("+").partition("=")[0]):
        train(composed("train", "stage=dpo", *places, wrong))
    assert list(tmp_path.iterdir()) == []


def test_the_margin_grows(run: Callable[..., dict[int, dict[str, float]]]) -> None:
    # The same two windows at every step: four validation pairs after so few steps would be chance.
    rows = run("stage.lora=null", "arch.dropout=0", "optim.lr=3e-3", "data.train_windows=2", "budget.steps=6")
    assert rows[6]["train/margin"] > rows[3]["train/margin"] > rows[1]["train/margin"]
    assert rows[6]["train/accuracy"] == 1.0
    assert rows[6]["train/loss"] < math.log(2)


@pytest.mark.parametrize("kind", ["hinge", "ipo", "simpo", "orpo", "kto"])
def test_every_loss_runs(run: Callable[..., dict[int, dict[str, float]]], kind: str) -> None:
    rows = run(f"stage.objective.kind={kind}", "stage.lora=null")
    assert all(math.isfinite(rows[step]["train/loss"]) for step in (1, 2, 3))


def test_reference_log_probabilities_are_computed_once(
    run: Callable[..., dict[int, dict[str, float]]], data_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"):
        run("stage.objective.beta=0.5")
        run("stage.objective.beta=0.2", "stage.objective.kind=ipo")
    assert caplog.text.count("reference log-probabilities computed") <= 1
    assert caplog.text.count("reference log-probabilities") == 2
    assert any((data_folder / "reference").iterdir())


def test_runs_of_other_seeds_share_the_reference_of_the_model_that_they_begin_from(
    run: Callable[..., dict[int, dict[str, float]]], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"):
        same = ("stage.lora=null", "arch.dropout=0")
        rows = [run("seed=3", *same), run("seed=4", *same, "data.batch_size=2")]  # whose folders differ
    assert caplog.text.count("reference log-probabilities computed") <= 1
    assert caplog.text.count("reference log-probabilities") == 2
    assert [one[1]["train/loss"] for one in rows] == pytest.approx([math.log(2)] * 2, abs=1e-4)
