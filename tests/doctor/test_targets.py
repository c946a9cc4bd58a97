"""Planted in the loss and the masks: targets shifted twice, prompts that are learnt, answers without an end."""

import math
from typing import Any

import numpy as np
import pytest
import torch

from lumi.arch import next_token_loss
from lumi.doctor.targets import first_loss, mask_audit, next_token
from lumi.stage import DPO, Pretrain


def shifted(places):
    """A loss whose tokens are shifted once more before lumi.arch.loss shifts them."""

    def loss(self, batch):
        hidden = self.decoder(batch["tokens"], batch["doc_ids"])
        tokens = torch.roll(batch["tokens"], -places, dims=1)
        return next_token_loss(hidden, self.decoder.lm_weight, tokens, batch["loss_mask"])

    return loss


@pytest.mark.parametrize("subject", ["pretrain", "sft"], indirect=True)
@pytest.mark.parametrize(
    ("places", "says"), [(1, "shifted 2 times"), (-1, "not shifted at all"), (2, "shifted 3 times")]
)
def test_a_stage_that_shifts_once_more_is_caught(subject, monkeypatch, places, says):
    monkeypatch.setattr(type(subject.stage), "loss", shifted(places))
    finding = next_token(subject)
    assert finding.status == "error"
    assert says in finding.found


@pytest.mark.parametrize("subject", ["dpo"], indirect=True)
def test_pairs_that_are_shifted_twice_are_caught(subject, monkeypatch):
    right: Any = DPO.loss
    again = lambda self, batch: right(self, {**batch, "tokens": torch.roll(batch["tokens"], -1, dims=1)})  # noqa: E731
    monkeypatch.setattr(DPO, "loss", again)
    assert "shifted 2 times" in next_token(subject).found


def test_a_loss_that_counts_other_targets_is_caught(subject, monkeypatch):
    right = Pretrain.loss
    monkeypatch.setattr(Pretrain, "loss", lambda self, batch: (right(self, batch)[0], torch.tensor(1)))
    finding = next_token(subject)
    assert (finding.status, "the stage counts 1 targets" in finding.found) == ("error", True)


def test_a_loss_that_is_no_cross_entropy_is_named(subject, monkeypatch):
    right = Pretrain.loss
    monkeypatch.setattr(Pretrain, "loss", lambda self, batch: (0.9 * right(self, batch)[0], right(self, batch)[1]))
    assert next_token(subject).status == "warning"


def test_weights_that_begin_too_large_show_in_the_first_loss(subject):
    with torch.no_grad():
        subject.decoder.lm_head.weight.mul_(100.0)
    finding = first_loss(subject)
    assert (finding.status, "arch.init_std" in finding.fix) == ("warning", True)


def test_a_first_loss_far_below_a_guess_is_an_error(subject, monkeypatch):
    right = Pretrain.loss
    monkeypatch.setattr(Pretrain, "loss", lambda self, batch: (right(self, batch)[0] / 2, right(self, batch)[1]))
    assert first_loss(subject).status == "error"


@pytest.mark.parametrize("subject", ["sft", "dpo"], indirect=True)
def test_a_first_loss_that_is_not_a_number_is_an_error(subject):
    with torch.no_grad():
        subject.decoder.model.norm.weight.fill_(math.nan)
    finding = first_loss(subject)
    assert (finding.status, finding.kind.exit_code) == ("error", 6)


@pytest.mark.parametrize("subject", ["sft"], indirect=True)
def test_a_model_of_another_kind_of_tokens_begins_above_a_guess(subject):
    with torch.no_grad():
        subject.decoder.lm_head.weight.copy_(20 * subject.decoder.lm_head.weight.roll(7, dims=0))
    assert first_loss(subject).status == "warning"


def spoil(subject, change):
    """Let the data give other masks: ``change`` is handed a window's tokens, documents and mask."""
    for stream in subject.data.train_streams:
        right = stream.windows

        def windows(indices, right=right):
            found = right(indices)
            change(found["tokens"], found["doc_ids"], found["loss_mask"])
            return found

        stream.windows = windows


def all_of_it(tokens, documents, mask):
    mask[:, 1:] = (documents[:, 1:] == documents[:, :-1]) & (documents[:, 1:] >= 0)


def one_early(tokens, documents, mask):
    mask[:, :-1] = mask[:, 1:].copy()


@pytest.mark.parametrize("subject", ["sft", "dpo"], indirect=True)
@pytest.mark.parametrize(
    ("change", "says"), [(all_of_it, "does not follow an assistant's opening"), (one_early, "does not follow")]
)
def test_a_mask_that_covers_the_prompt_is_caught(subject, change, says):
    spoil(subject, change)
    finding = mask_audit(subject)
    assert (finding.status, says in finding.found) == ("error", True)


@pytest.mark.parametrize("subject", ["sft", "dpo"], indirect=True)
def test_answers_without_their_end_are_caught(subject):
    stops = subject.template.stop_ids(subject.tokenizer)
    spoil(subject, lambda tokens, documents, mask: mask.__iand__(~np.isin(tokens, stops)))
    assert "without its end" in mask_audit(subject).found


@pytest.mark.parametrize("subject", ["pretrain", "sft", "dpo"], indirect=True)
def test_data_without_supervision_are_caught(subject):
    spoil(subject, lambda tokens, documents, mask: mask.fill(False))
    assert "nothing to learn" in mask_audit(subject).why


def test_a_target_that_is_the_beginning_of_a_document_is_caught(subject):
    spoil(subject, lambda tokens, documents, mask: mask.fill(True))
    assert "beginnings of documents are targets" in mask_audit(subject).found


def test_a_text_whose_ends_are_not_learnt_is_caught(subject):
    eos = subject.tokenizer.eos_id
    spoil(subject, lambda tokens, documents, mask: mask.__iand__(tokens != eos))
    assert "ends of documents is supervised" in mask_audit(subject).found


@pytest.mark.parametrize("subject", ["pretrain", "sft"], indirect=True)
def test_a_window_that_teaches_nothing_is_named(subject):
    first = int(subject.batches[0]["sample"][0])
    del subject.__dict__["batches"]  # read again
    spoil_window(subject, first)
    assert mask_audit(subject).status == "warning"


def spoil_window(subject, number):
    for stream in subject.data.train_streams:
        right = stream.windows

        def windows(indices, right=right):
            found = right(indices)
            found["loss_mask"][[index == number for index in indices.tolist()]] = False
            return found

        stream.windows = windows
