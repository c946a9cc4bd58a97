"""What plan=true says, what hours mean, and what became of the expectations."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig

from lumi.arch import Decoder, next_token_loss
from lumi.architectures import architecture, architecture_names
from lumi.energy import energy_meter
from lumi.errors import ConfigError
from lumi.eval.scaling import Law
from lumi.eval.scaling_runs import Fitted
from lumi.optim import AdamW, Constant
from lumi.plan import Budget, Plan
from lumi.planning import Question, answer, compare_plan, kept_steps, prediction_words
from lumi.profile import Cost, Work, measure, micro_batches, steps_in, try_sizes
from lumi.trainer import TrainerConfig

Config = Callable[..., DictConfig]
FITS = Cost(batch_size=4, accumulate=1, memory_bytes=1, seconds=2.0, validation_seconds=0.5)


class OneStage(torch.nn.Module):
    """The part of a stage that is measured."""

    def __init__(self, decoder: Decoder) -> None:
        super().__init__()
        self.decoder, self.recipe = decoder, AdamW(lr=1.0, schedule=Constant(), weight_decay=0.5)

    def loss(self, batch: Any) -> tuple[torch.Tensor, torch.Tensor]:
        hidden = self.decoder(batch["tokens"])
        return next_token_loss(hidden, self.decoder.lm_weight, batch["tokens"], batch["loss_mask"])

    def trained_parameters(self) -> list[tuple[str, torch.nn.Parameter]]:
        return list(self.decoder.named_parameters())


@pytest.fixture
def work(tiny_decoder: Decoder) -> Work:
    """Four windows of sixteen tokens a step."""
    tokens = torch.arange(16).repeat(4, 1)
    windows = {"tokens": tokens, "loss_mask": torch.ones_like(tokens, dtype=torch.bool)}
    return Work(stage=OneStage(tiny_decoder), windows=windows, setup=TrainerConfig(accelerator="cpu"))


def question(work: Work, **changes: Any) -> Question:
    known = {"work": work, "budget": Budget(steps=100), "steps": 100, "tokens_per_step": 60.0, "flops_per_token": 1000}
    known |= {"n_params": 5000, "seq_len": 16, "vocab_size": 64, "n_validation_windows": 8, "val_every_steps": None}
    return Question(**{**known, **changes})


def test_measuring_real_steps_leaves_every_weight_as_it_was(work):
    before = {name: value.clone() for name, value in work.stage.state_dict().items()}
    cost = measure(work, 2, seconds=0)
    assert cost.seconds is not None
    assert cost.seconds > 0
    assert (cost.batch_size, cost.accumulate) == (2, 2)
    assert all(torch.equal(value, before[name]) for name, value in work.stage.state_dict().items())
    assert all(parameter.grad is None for parameter in work.stage.parameters())


def test_what_does_not_fit_is_not_run(work):
    cost = measure(work, 4, seconds=0, free=1000.0)
    assert cost.seconds is None
    assert cost.memory_bytes > 1000


def test_every_divisor_of_a_steps_windows_is_tried_largest_first():
    assert micro_batches(16) == [16, 8, 4, 2, 1]
    assert micro_batches(60) == [60, 30, 20, 15, 12, 10]
    assert micro_batches(1) == [1]


def test_each_size_makes_the_same_step(work):
    assert [cost.batch_size * cost.accumulate for cost in try_sizes(work, seconds=0)] == [4, 4, 4]


@pytest.mark.parametrize(
    ("every", "expected"),
    [
        (None, 1795),  # 3,600 s less ten validations of 2 batches of 0.5 s, in steps of 2 s
        (10, 1714),  # a step and a tenth of a validation: 2.1 s
    ],
)
def test_an_hour_has_so_many_steps(every, expected):
    assert steps_in(1.0, FITS, n_validation_batches=2, val_every_steps=every) == expected


def test_hours_that_ten_validations_would_fill_validate_after_every_step():
    assert steps_in(12 / 3600, FITS, n_validation_batches=2, val_every_steps=None) == 4  # of 2 s and 1 s each


def test_hours_too_short_for_a_step_have_one():
    assert steps_in(1e-6, FITS, n_validation_batches=2, val_every_steps=None) == 1


def test_the_plan_says_size_length_time_memory_and_energy(work):
    text = "\n".join(answer(question(work), seconds=0))
    for word in (
        "micro-batch 4",
        "micro-batch 1",
        "data.batch_size=",
        "trainer.accumulate=",
        "100 steps",
        "0.01 M tokens",
    ):
        assert word in text
    for word in ("expected time", "peak memory", "energy", "nano", "nearest to optimal"):
        assert word in text
    assert "loss" not in text  # nothing is predicted without a law


def test_a_plan_in_hours_takes_the_hours(work):
    text = "\n".join(answer(question(work, budget=Budget(hours=2.0)), seconds=0))
    assert "expected time   2.0 hours" in text


def test_a_law_adds_the_losses_to_expect(work):
    law = Law(E=2.0, A=0.0, B=0.0, alpha=1.0, beta=1.0)
    text = "\n".join(answer(question(work, law=Fitted(law=law, resamples=[law], points=[], seq_len=16)), seconds=0))
    assert "expected loss   2.000 nats per token (2.000 to 2.000)" in text


def test_the_named_architectures_are_those_that_a_user_types():
    assert architecture_names() == ["base", "medium", "micro", "nano", "small", "tiny"]
    assert architecture("nano", 2048).n_params() == 1_311_872
    with pytest.raises(ConfigError, match=r"predict=nan · is not a named architecture · did you mean 'nano'\?"):
        architecture("nan", 2048, "predict")


def counter(folder: Path, name: str, energy: int, most: int = 1_000_000) -> Path:
    package = folder / name
    package.mkdir()
    (package / "energy_uj").write_text(f"{energy}\n")
    (package / "max_energy_range_uj").write_text(f"{most}\n")
    return package


def test_energy_is_the_sum_of_the_packages_without_their_parts(tmp_path):
    packages = [counter(tmp_path, name, 100) for name in ("intel-rapl:0", "intel-rapl:1", "intel-rapl:0:0")]
    meter, words = energy_meter(torch.device("cpu"), tmp_path)
    assert meter is not None
    for package in packages:
        (package / "energy_uj").write_text("300100")
    assert meter() == pytest.approx(0.6)
    assert "RAPL" in words


def test_a_counter_that_began_again_is_continued(tmp_path):
    package = counter(tmp_path, "intel-rapl:0", 900_000)
    meter, _ = energy_meter(torch.device("cpu"), tmp_path)
    assert meter is not None
    (package / "energy_uj").write_text("100000")  # up to a million, and a tenth of one more
    assert meter() == pytest.approx(0.2)


def test_where_there_is_no_counter_the_reason_is_said(tmp_path):
    meter, words = energy_meter(torch.device("cpu"), tmp_path)
    assert meter is None
    assert words == f"not readable: there is no counter in {tmp_path}"


def plan(seconds: float | None) -> Plan:
    figures: dict[str, Any] = dict.fromkeys(("parameters", "non_embedding", "flops_per_token", "optimal_tokens"), 1)
    figures |= {"total_steps": 4, "tokens_per_step": 1, "tokens": 4, "epochs": 1.0, "peak_flops": 1.0}
    return Plan(**figures, memory_bytes=2000, seconds=seconds)


def test_the_expectation_stands_beside_what_was_measured_since_the_run_went_on(tmp_path):
    (tmp_path / "metrics.csv").write_text("step,perf/seconds\r\n1,10\r\n2,30\r\n4,70\r\n")
    found = compare_plan(plan(50.0), tmp_path, start_step=2, memory_before=0)
    assert found["seconds"] == {"expected": 50.0, "measured": 40.0, "error": pytest.approx(0.25)}
    assert found["memory_bytes"]["expected"] == 2000


def test_memory_that_an_earlier_run_of_the_process_took_is_not_called_this_ones(tmp_path):
    found = compare_plan(plan(None), tmp_path, start_step=0, memory_before=10**15)
    assert found["memory_bytes"]["measured"] is None
    assert found["seconds"]["error"] is None


def test_plan_measures_and_makes_no_run(run_config: Config, tmp_path, caplog, monkeypatch):
    from lumi.run import train  # late: seconds of import that the other tests do not need

    monkeypatch.setattr("lumi.planning.PROFILE_SECONDS", 0.0)
    with caplog.at_level(logging.INFO):
        assert train(run_config("plan=true", "budget.hours=0.1")) == {}
    assert "trainer.accumulate=" in caplog.text
    assert "expected time   6.0 minutes" in caplog.text
    assert list(tmp_path.iterdir()) == []


def test_a_run_of_hours_keeps_its_number_of_steps_and_says_how_right_the_plan_was(
    run_config: Config, tmp_path, monkeypatch
):
    from lumi.run import train

    monkeypatch.setattr("lumi.planning.HOURS_SECONDS", 0.0)
    cfg = run_config("budget.hours=2e-4", "trainer.val_every_steps=1000")
    train(cfg)
    state = json.loads((tmp_path / "run" / "run.json").read_text())
    assert kept_steps(tmp_path / "run", state["settings"]["budget"]) == state["plan"]["total_steps"]
    assert kept_steps(tmp_path / "run", {**state["settings"]["budget"], "hours": 1.0}) is None
    assert set(state["prediction"]) == {"seconds", "memory_bytes"}
    words = prediction_words(tmp_path / "run")
    assert words is not None
    assert "expected" in words


def test_an_interrupted_run_of_hours_goes_on_to_the_length_it_began_with(run_config: Config, tmp_path, monkeypatch):
    from lumi.run import train

    lengths = iter([6, 99])
    monkeypatch.setattr("lumi.run.measure_hours", lambda *_: next(lengths))
    cfg = run_config("budget.hours=1.0", "callbacks.checkpoint.every_steps=1")
    train(cfg)
    state = json.loads((tmp_path / "run" / "run.json").read_text())
    (tmp_path / "run" / "run.json").write_text(json.dumps({**state, "status": "running"}))  # as a kill leaves it
    train(cfg)
    assert json.loads((tmp_path / "run" / "run.json").read_text())["plan"]["total_steps"] == 6
    assert next(lengths) == 99  # nothing was measured again


def test_plan_that_is_not_true_or_false_is_refused(run_config: Config):
    from lumi.settings import check

    settings: Any = run_config()
    with pytest.raises(ConfigError, match=r"plan=maybe · must be true or false"):
        check({**settings, "plan": "maybe"})


def test_without_a_run_there_is_nothing_to_say():
    assert prediction_words(None) is None
