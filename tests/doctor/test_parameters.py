"""Planted in the weights and their groups: an untied copy, decay on norms, weights left out, rows that are dead."""

import math

import pytest
import torch
from torch import nn

from lumi.doctor.parameters import embeddings, groups, unused_pieces
from lumi.stage import Stage

STAGES = ["pretrain", "sft", "dpo"]


@pytest.mark.parametrize("subject", STAGES, indirect=True)
def test_a_tied_head_that_is_a_copy_is_caught(subject):
    subject.decoder.lm_head.weight = nn.Parameter(subject.decoder.lm_head.weight.detach().clone())
    finding = groups(subject)
    assert (finding.status, "head and embedding are two" in finding.found) == ("error", True)


def one_group(weight_decay):
    """All trained weights together."""

    def configure(self):
        trained = [p for _, p in self.trained_parameters()]
        return torch.optim.AdamW([{"params": trained, "weight_decay": weight_decay, "peak_lr": 1e-3}])

    return configure


def test_decay_on_norms_and_embeddings_is_caught(subject, monkeypatch):
    monkeypatch.setattr(Stage, "configure_optimizers", one_group(0.1))
    finding = groups(subject)
    assert (finding.status, "embed_tokens" in finding.found) == ("error", True)


@pytest.mark.parametrize("subject", ["sft", "dpo"], indirect=True)
def test_decay_on_rows_that_an_adapter_spares_is_caught(subject, monkeypatch):
    monkeypatch.setattr(Stage, "configure_optimizers", one_group(0.1))
    assert groups(subject).status == "error"


@pytest.mark.parametrize("subject", STAGES, indirect=True)
def test_a_weight_in_no_group_is_caught(subject, monkeypatch):
    configure = lambda self: torch.optim.SGD([p for _, p in self.trained_parameters()][1:], lr=1.0)  # noqa: E731
    monkeypatch.setattr(Stage, "configure_optimizers", configure)
    assert "1 trained weights in no group" in groups(subject).found


@pytest.mark.parametrize("subject", ["sft", "dpo"], indirect=True)
def test_a_frozen_weight_in_a_group_is_caught(subject, monkeypatch):
    monkeypatch.setattr(Stage, "trained_parameters", lambda self: list(self.decoder.named_parameters()))
    assert "frozen weights in a group" in groups(subject).found


def test_an_optimizer_of_other_tensors_is_caught(subject, monkeypatch):
    right = Stage.configure_optimizers

    def and_a_stranger(self):
        optimizer = right(self)
        optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(3))], "weight_decay": 0.0})
        return optimizer

    monkeypatch.setattr(Stage, "configure_optimizers", and_a_stranger)
    assert "1 tensors in the optimizer are not the model's" in groups(subject).found


def test_a_matrix_without_the_decay_of_others_is_named(subject, monkeypatch):
    right = Stage.configure_optimizers

    def without_one(self):
        optimizer = right(self)
        moved = optimizer.param_groups[0]["params"].pop()
        optimizer.param_groups[1]["params"].append(moved)
        return optimizer

    monkeypatch.setattr(Stage, "configure_optimizers", without_one)
    assert groups(subject).status == "warning"


@pytest.mark.parametrize("optim", ["muon", "mup_adamw"])
def test_other_optimizers_have_the_right_groups_too(prepare, optim):
    assert groups(prepare("pretrain", f"optim={optim}")).status == "ok"


@pytest.mark.parametrize("subject", STAGES, indirect=True)
def test_a_weight_that_is_not_a_number_is_caught(subject):
    with torch.no_grad():
        subject.decoder.model.embed_tokens.weight[5, 3] = math.nan
    finding = embeddings(subject)
    assert (finding.status, finding.kind.exit_code) == ("error", 6)


def test_a_row_of_zeros_is_named(subject):
    with torch.no_grad():
        subject.decoder.model.embed_tokens.weight[300] = 0.0
    finding = embeddings(subject)
    assert (finding.status, subject.tokenizer.piece(300) in finding.found) == ("warning", True)


@pytest.mark.parametrize(("rows", "status"), [(690, "error"), (710, "warning")])
def test_a_vocabulary_of_another_size_than_the_tokenizer_is_caught(subject, rows, status):
    subject.decoder.model.embed_tokens.weight = nn.Parameter(torch.randn(rows, 32))
    assert embeddings(subject).status == status


def test_markers_that_no_adapter_can_read_are_named(prepare):
    finding = embeddings(prepare("sft", "stage.lora.control_rows=false"))
    assert (finding.status, "<|im_start|>" in finding.found) == ("warning", True)


def test_pieces_that_the_data_never_use_are_named(subject):
    for stream in subject.data.train_streams:
        right = stream.tokens
        stream.tokens = lambda start, stop, right=right: right(start, stop) % 300
    finding = unused_pieces(subject)
    assert (finding.status, "never trained" in finding.why) == ("warning", True)
