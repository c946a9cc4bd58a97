"""The doctor in a run: all checks train nothing; the quick ones stop what is ill, and change no bit of what is well."""

import logging

import pytest
import torch

from lumi.arch import next_token_loss
from lumi.config import resolve
from lumi.errors import ConfigError, LumiError
from lumi.identity import run_folder
from lumi.run import train
from lumi.stage import Pretrain
from lumi.trained import load_trained


def shifts_twice(self, batch):
    hidden = self.decoder(batch["tokens"], batch["doc_ids"])
    return next_token_loss(hidden, self.decoder.lm_weight, batch["tokens"].roll(-1, dims=1), batch["loss_mask"])


def test_all_checks_are_reported_and_nothing_is_trained(run_config, tmp_path, caplog):
    with caplog.at_level(logging.INFO, logger="lumi"):
        assert train(run_config("budget.steps=4", "doctor=true")) == {}
    assert "15 checks: 0 errors" in caplog.messages[-1]
    assert list(tmp_path.iterdir()) == []


def test_an_ill_run_ends_the_examination_with_the_exit_code_of_what_was_found(
    run_config, tmp_path, monkeypatch, caplog
):
    monkeypatch.setattr(Pretrain, "loss", shifts_twice)
    with caplog.at_level(logging.INFO, logger="lumi"), pytest.raises(ConfigError, match="shifted 2 times") as caught:
        train(run_config("budget.steps=4", "doctor=true"))
    assert caught.value.exit_code == 2
    assert any("fix: only lumi.arch.loss shifts" in line for line in caplog.messages)


def test_an_ill_run_is_stopped_before_its_first_step_and_leaves_no_state(run_config, tmp_path, monkeypatch):
    monkeypatch.setattr(Pretrain, "loss", shifts_twice)
    with pytest.raises(LumiError, match="doctor: next token: position t learns token t"):
        train(run_config("budget.steps=4"))
    assert not (tmp_path / "run" / "run.json").exists()
    assert not (tmp_path / "run" / "metrics.csv").exists()


def test_without_the_doctor_an_ill_run_is_trained(run_config, tmp_path, monkeypatch):
    monkeypatch.setattr(Pretrain, "loss", shifts_twice)
    train(run_config("budget.steps=1", "doctor=off"))
    assert (tmp_path / "run" / "checkpoints").exists()


def test_a_fresh_run_says_once_that_it_was_examined_and_a_warning_stops_nothing(run_config, caplog):
    with caplog.at_level(logging.INFO, logger="lumi"):
        train(run_config("budget.steps=1", "arch.init_std=0.3"))
    assert sum(line.startswith("doctor   ") for line in caplog.messages) == 1
    assert any(line.startswith("doctor: first loss: ") and "arch.init_std" in line for line in caplog.messages)


def test_a_run_that_is_continued_is_not_examined_again(run_config, caplog, tmp_path):
    train(run_config("budget.steps=2"))
    caplog.clear()
    with caplog.at_level(logging.INFO, logger="lumi"):
        train(run_config("budget.steps=4", f"resume='{tmp_path / 'run'}'"))
    assert not any(line.startswith("doctor") for line in caplog.messages)


@pytest.mark.parametrize("stage", ["pretrain", "sft", "dpo"])
def test_the_quick_form_changes_no_bit_of_a_run(composed, stages, data_folder, tmp_path, stage):
    weights = []
    for doctor in ("quick", "off"):
        places = (f"paths.data='{data_folder}'", f"paths.runs='{tmp_path}'", f"name={doctor}", f"doctor={doctor}")
        train(composed("train", *stages[stage], *places, "budget.epochs=null", "budget.steps=3"))
        weights.append(load_trained(tmp_path / doctor).decoder.state_dict())
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


def test_the_doctor_does_not_decide_which_run_a_command_means(run_config):
    settings = [resolve(run_config("name=null", f"doctor={doctor}")) for doctor in ("quick", "off", "true")]
    assert len({run_folder(one) for one in settings}) == 1


def test_another_word_is_refused(run_config):
    with pytest.raises(ConfigError, match="doctor=often · must be quick, true"):
        train(run_config("doctor=often"))
