"""Planted in the step: means of means, a graph that is cut, rates of another world; and a reference that is not the start."""

import copy
import dataclasses

import pytest
import torch

from lumi.doctor import Check, examine
from lumi.doctor.cost import cost
from lumi.doctor.preference import dpo_step_0
from lumi.doctor.training import accumulation, learning_rate, overfit
from lumi.errors import NumericError
from lumi.stage import DPO, SFT, Objective, Pretrain


@pytest.mark.parametrize("subject", ["pretrain", "sft"], indirect=True)
def test_a_mean_of_means_is_caught(subject, monkeypatch):
    right = type(subject.stage).loss

    def mean(self, batch):
        nll, targets = right(self, batch)
        return nll / targets, torch.ones_like(targets)

    monkeypatch.setattr(type(subject.stage), "loss", mean)
    finding = accumulation(subject)
    assert (finding.status, "trainer.accumulate" in finding.why) == ("error", True)


@pytest.mark.parametrize("subject", ["pretrain", "sft", "dpo"], indirect=True)
def test_a_loss_with_the_wrong_sign_learns_nothing_by_heart(subject, monkeypatch):
    kind = {Pretrain: Pretrain, SFT: SFT, DPO: DPO}[type(subject.stage)]
    right = kind.loss
    monkeypatch.setattr(kind, "loss", lambda self, batch: (flipped(right(self, batch)[0]), right(self, batch)[1]))
    assert overfit(subject).status == "error"


def flipped(loss):
    """The same value, the opposite gradient."""
    return 2 * loss.detach() - loss


def test_a_graph_that_is_cut_learns_nothing_by_heart(subject, monkeypatch):
    right = Pretrain.loss

    def cut(self, batch):
        nll, targets = right(self, batch)
        return nll.detach() + 0.0 * self.decoder.model.norm.weight.sum(), targets

    monkeypatch.setattr(Pretrain, "loss", cut)
    assert "whole" in overfit(subject).fix


@pytest.mark.parametrize(("lr", "says"), [(100.0, "too large"), (1e-9, "far too small")])
def test_a_rate_of_another_world_is_named(prepare, lr, says):
    (finding,) = examine(prepare("pretrain", f"optim.lr={lr}"), [Check(name="rate", ask=learning_rate)]).values()
    assert (finding.status in ("warning", "error"), says in finding.why) == (True, True)


@pytest.mark.parametrize("stage", ["sft", "dpo"])
def test_a_rate_that_changes_nothing_in_a_whole_run_is_named(prepare, stage):
    subject = prepare(stage, "optim.lr=1e-9")
    assert examine(subject, [Check(name="rate", ask=learning_rate)])["rate"].status == "warning"


@pytest.mark.parametrize("subject", ["dpo"], indirect=True)
def test_a_policy_that_is_not_the_reference_is_caught(subject):
    with torch.no_grad():
        for name, parameter in subject.stage.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.5)
    finding = dpo_step_0(subject)
    assert (finding.status, "not the same model" in finding.why) == ("error", True)


@pytest.mark.parametrize("subject", ["dpo"], indirect=True)
def test_a_reference_of_other_pairs_is_caught(subject):
    few = subject.few
    few["reference"] = few["reference"].flip(-1)
    assert dpo_step_0(subject).status == "error"


@pytest.mark.parametrize("subject", ["dpo"], indirect=True)
def test_another_loss_than_the_one_that_is_named_is_caught(subject, monkeypatch):
    monkeypatch.setattr(Objective, "per_pair", lambda self, answers: (1 - answers.log_ratios.sum(dim=1)) ** 2)
    assert "is not the one that stage.objective.kind names" in dpo_step_0(subject).why


@pytest.mark.parametrize("kind", ["sigmoid", "hinge", "ipo", "kto"])
def test_every_objective_with_a_reference_begins_at_its_own_value(prepare, kind):
    subject = prepare("dpo", f"stage.objective.kind={kind}", "stage.objective.nll_weight=0.5", "stage.lora=null")
    assert examine(subject, [Check(name="first", ask=dpo_step_0)])["first"].status == "ok"


def test_a_run_that_does_not_fit_is_caught(subject, monkeypatch):
    monkeypatch.setattr("lumi.doctor.cost.free_bytes", lambda device: 10**8)
    finding = cost(subject)
    assert (finding.status, finding.kind.exit_code) == ("error", 5)


def test_what_a_part_refuses_by_itself_is_a_finding_as_well(subject):
    def refuses(subject):
        raise NumericError("x=nan", "is not a number", "another x")

    finding = examine(subject, [Check(name="it", ask=refuses)])["it"]
    assert (finding.status, finding.found, finding.kind) == ("error", "x=nan", NumericError)


def test_copies_are_trained_and_the_model_is_not(subject):
    before = copy.deepcopy(subject.stage.state_dict())
    learning_rate(dataclasses.replace(subject))
    assert all(torch.equal(value, before[name]) for name, value in subject.stage.state_dict().items())
