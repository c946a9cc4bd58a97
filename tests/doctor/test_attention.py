"""Planted in attention: no causal mask, no document mask; planted in the data: documents under one number."""

import pytest
from torch.nn import functional as F

from lumi.arch import decoder as decoder_module
from lumi.arch.attention import attend
from lumi.doctor.attention import causality, document_leak

STAGES = ["pretrain", "sft", "dpo"]


def attend_everywhere(q, k, v, layout, backend):
    grouped = (q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
    return F.scaled_dot_product_attention(*grouped, enable_gqa=True).transpose(1, 2)


def attend_in_whole_documents(q, k, v, layout, backend):
    mask = None if layout.mask is None else layout.mask | layout.mask.transpose(2, 3)
    grouped = (q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
    return F.scaled_dot_product_attention(*grouped, attn_mask=mask, is_causal=mask is None, enable_gqa=True).transpose(
        1, 2
    )


def attend_across_documents(q, k, v, layout, backend):
    grouped = (q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
    return F.scaled_dot_product_attention(*grouped, is_causal=True, enable_gqa=True).transpose(1, 2)


@pytest.mark.parametrize("subject", STAGES, indirect=True)
@pytest.mark.parametrize("planted", [attend_everywhere, attend_in_whole_documents])
def test_attention_that_sees_what_comes_later_is_caught(subject, monkeypatch, planted):
    monkeypatch.setattr(decoder_module, "attend", planted)
    finding = causality(subject)
    assert (finding.status, "changes states before it" in finding.found) == ("error", True)


@pytest.mark.parametrize("subject", STAGES, indirect=True)
def test_attention_across_documents_is_caught(subject, monkeypatch):
    monkeypatch.setattr(decoder_module, "attend", attend_across_documents)
    assert causality(subject).status == "ok"
    finding = document_leak(subject)
    assert (finding.status, "changes states of another" in finding.found) == ("error", True)


def test_a_model_that_is_not_handed_the_documents_is_caught(subject):
    right = subject.decoder.forward
    subject.decoder.forward = lambda tokens, doc_ids=None: right(tokens)
    assert document_leak(subject).status == "error"


@pytest.mark.parametrize("subject", STAGES, indirect=True)
def test_two_documents_under_one_number_are_caught(subject):
    for batch in subject.batches:
        batch["doc_ids"].clamp_(max=0)
    assert "a document begins inside another one" in document_leak(subject).found


def test_a_model_that_does_not_read_is_caught(subject, monkeypatch):
    subject.decoder.model.embed_tokens.weight.data[:] = subject.decoder.model.embed_tokens.weight.data[:1]
    assert "does not read its input" in causality(subject).why


def test_attention_as_it_is_passes(subject):
    assert decoder_module.attend is attend
    assert (causality(subject).status, document_leak(subject).status) == ("ok", "ok")
