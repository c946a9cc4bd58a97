"""Adapters: nothing changes when one is added, merging keeps the logits, and disk gives back what was trained."""

import copy

import pytest
import torch

from lumi.arch import Decoder, DecoderConfig
from lumi.arch.lora import Lora, add_adapter, attach_adapter, join_state, merge_adapter, save_adapter, split_state

pytest.importorskip("peft")


@pytest.fixture
def decoder():
    torch.manual_seed(0)
    config = DecoderConfig(vocab_size=64, n_layers=2, d_model=32, n_heads=4, n_kv_heads=2, d_ff=64, max_seq_len=16)
    return Decoder(config).eval()


def logits(decoder: Decoder) -> torch.Tensor:
    with torch.no_grad():
        return decoder.logits(decoder(torch.arange(12).view(1, 12)))


def train_a_little(decoder: Decoder) -> None:
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in decoder.named_parameters():
            if ".lora_" in name:
                parameter.add_(torch.randn_like(parameter) * 0.1)


def test_a_new_adapter_changes_nothing_and_alone_is_trained(decoder):
    before = logits(decoder)
    add_adapter(decoder, Lora(r=4))
    assert torch.equal(logits(decoder), before)
    assert {".lora_" in name for name, p in decoder.named_parameters() if p.requires_grad} == {True}


@pytest.mark.parametrize("settings", [{}, {"rank_stabilised": True}, {"dora": True}])
def test_merging_keeps_the_logits_through_disk(decoder, settings, tmp_path):
    plain, lora = copy.deepcopy(decoder), Lora(r=4, **settings)
    add_adapter(decoder, lora)
    train_a_little(decoder)
    expected = logits(decoder)
    base, adapter = split_state(decoder.state_dict())
    save_adapter(tmp_path, adapter, lora)
    plain.load_state_dict(base)
    attach_adapter(plain, tmp_path)
    torch.testing.assert_close(logits(plain), expected, atol=0, rtol=0)
    merged = merge_adapter(plain)
    torch.testing.assert_close(logits(merged), expected, atol=1e-5, rtol=0)
    assert not any(".lora_" in name or "base_layer" in name for name in merged.state_dict())


def test_a_state_taken_apart_comes_together(decoder):
    add_adapter(decoder, Lora(r=2, targets=["q_proj"]))
    state = decoder.state_dict()
    together = join_state(*split_state(state))
    assert together.keys() == state.keys()
