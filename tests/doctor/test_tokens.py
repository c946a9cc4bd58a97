"""Planted between text and tokens: another tokenizer, another template, markers that text can forge."""

import dataclasses

import numpy as np
import pytest
import torch

from lumi.doctor.tokens import template_round_trip, tokenizer_chain
from lumi.tokenizer import Template, Tokenizer

CHATS = ["sft", "dpo"]


def test_text_packed_with_another_tokenizer_is_caught(subject):
    stream = subject.data.train_streams[0]
    stream.manifest = dataclasses.replace(stream.manifest, parents={"tokenizer": "f" * 64})
    finding = tokenizer_chain(subject)
    assert (finding.status, finding.kind.exit_code, "ffffffffffff" in finding.found) == ("error", 3, True)


@pytest.mark.parametrize("subject", CHATS, indirect=True)
def test_a_model_of_another_tokenizer_is_caught(subject, monkeypatch):
    monkeypatch.setattr(subject.initial.tokenizer, "sha256", "e" * 64)
    assert "eeeeeeeeeeee" in tokenizer_chain(subject).found


@pytest.mark.parametrize("subject", ["pretrain", *CHATS], indirect=True)
def test_bytes_that_are_not_what_they_say_are_caught(subject, monkeypatch):
    changed = subject.tokenizer.model_bytes.replace(b"\x00", b"\x01", 1)
    monkeypatch.setattr(subject.tokenizer, "model_bytes", changed + b"x")
    assert "its own bytes" in tokenizer_chain(subject).found


def test_a_token_above_the_vocabulary_is_caught(subject):
    subject.batches[0]["tokens"][0, 3] = subject.tokenizer.vocab_size
    assert "hold token 700" in tokenizer_chain(subject).found


def test_a_tokenizer_that_turns_text_into_markers_is_caught(subject, monkeypatch):
    right = Tokenizer.encode
    monkeypatch.setattr(Tokenizer, "encode", lambda self, text: [self.eos_id, *right(self, text)])
    assert "becomes the control symbol" in tokenizer_chain(subject).found


def test_a_tokenizer_that_changes_text_is_caught(subject, monkeypatch):
    right = Tokenizer.encode
    monkeypatch.setattr(Tokenizer, "encode", lambda self, text: right(self, text.strip().lower() + "!"))
    assert "becomes another text" in tokenizer_chain(subject).found


@pytest.mark.parametrize("subject", CHATS, indirect=True)
def test_a_template_that_serving_has_otherwise_is_caught(subject, monkeypatch):
    other = {**subject.template.as_dict(), "user": ["<|im_start|>user: ", "<|im_end|>\n"]}
    monkeypatch.setattr(subject.data, "facts", lambda: {"template": other})
    finding = template_round_trip(subject)
    assert (finding.status, "are not those that serving writes" in finding.found) == ("error", True)


@pytest.mark.parametrize("subject", CHATS, indirect=True)
def test_a_mask_that_begins_before_the_answer_is_caught(subject):
    for stream in subject.data.train_streams:
        stream.examples = [[(tokens, np.ones_like(mask)) for tokens, mask in one] for one in stream.examples]
    assert "does not begin where serving begins" in template_round_trip(subject).found


@pytest.mark.parametrize("subject", CHATS, indirect=True)
def test_an_answer_that_does_not_learn_to_end_is_caught(subject):
    stops = subject.template.stop_ids(subject.tokenizer)
    for stream in subject.data.train_streams:
        stream.examples = [[(ids, mask & ~np.isin(ids, stops)) for ids, mask in one] for one in stream.examples]
    assert "no supervised end" in template_round_trip(subject).found


@pytest.mark.parametrize("subject", CHATS, indirect=True)
def test_a_template_that_lets_text_write_markers_is_caught(subject, monkeypatch):
    right = Template.render

    def careless(self, tokenizer, messages, *, ends=True):
        found = right(self, tokenizer, messages, ends=ends)
        typed = [tokenizer.eos_id] * sum("<|im_start|>" in one.content for one in messages)
        return dataclasses.replace(found, tokens=[*found.tokens, *typed])

    monkeypatch.setattr(Template, "render", careless)
    assert "2 typed markers became control symbols" in template_round_trip(subject).found


@pytest.mark.parametrize("name", ["chat", "instruct", "alpaca", "plain"])
def test_every_template_passes(prepare, name):
    subject = prepare("sft", f"template={name}", "data.seq_len=128")
    assert template_round_trip(subject).status == "ok"
    assert torch.is_tensor(subject.batch["tokens"])
