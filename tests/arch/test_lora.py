"""Adapters: nothing changes when one is added, merging keeps the logits, and disk gives back what was trained."""

import copy
import json
from typing import Any

import pytest
import torch
from torch import Tensor

from lumi.arch import Decoder, DecoderConfig, next_token_loss
from lumi.arch.lora import Lora, add_adapter, attach_adapter, join_state, merge_adapter, save_adapter, split_state
from lumi.arch.loss import target_nll
from lumi.arch.low_rank import AddedUp, LowRank
from lumi.errors import CheckpointError

pytest.importorskip("peft")


@pytest.fixture
def decoder():
    torch.manual_seed(0)
    config = DecoderConfig(vocab_size=64, n_layers=2, d_model=32, n_heads=4, n_kv_heads=2, d_ff=64, max_seq_len=16)
    return Decoder(config).eval()


def logits(decoder: Decoder) -> Tensor:
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


def adapted(decoder: Decoder, lora: Lora, *, quick: bool) -> Decoder:
    """A copy with a trained adapter; computed by peft's own layers unless quick."""
    copied = copy.deepcopy(decoder).train()
    torch.manual_seed(3)
    add_adapter(copied, lora)
    train_a_little(copied)
    for module in copied.modules():
        if hasattr(module, "lora_A") and not quick:
            module.__class__ = module.__class__.__mro__[1]
    return copied


def hidden_and_gradients(decoder: Decoder) -> dict[str, Tensor]:
    torch.manual_seed(2)  # of the dropout
    hidden = decoder(torch.arange(24).view(2, 12))
    (hidden * torch.linspace(-1, 1, hidden.numel()).view_as(hidden)).sum().backward()
    gradients = {name: p.grad for name, p in decoder.named_parameters() if p.grad is not None}
    return {"hidden": hidden.detach(), **gradients}


VARIANTS = [{}, {"r": 1}, {"dropout": 0.3}, {"dora": True}, {"rank_stabilised": True}, {"targets": ["up_proj"]}]


@pytest.mark.parametrize("settings", VARIANTS)
def test_an_adapted_projection_is_what_peft_computes(decoder, settings):
    lora = Lora(**{"r": 4, **settings})
    found, pefts = (hidden_and_gradients(adapted(decoder, lora, quick=quick).double()) for quick in (True, False))
    assert found.keys() == pefts.keys()
    largest = max(float(value.norm()) for value in pefts.values())
    for name, value in pefts.items():
        # Sums in another order, of float64: adapters of this size make the model steep.
        assert (found[name] - value).norm() <= 1e-9 * largest, name


def projected(function: Any, x: Tensor, weight: Tensor, a: Tensor, b: Tensor) -> list[Tensor]:
    """The result, and the gradients of x, a and b."""
    x, a, b = (one.detach().requires_grad_() for one in (x, a, b))
    out = function(x, weight, a, b, 2.0)
    slope = torch.linspace(-1, 1, out.numel()).view_as(out).bfloat16().to(out.dtype)
    return [out.detach(), *torch.autograd.grad(out, (x, a, b), slope)]


@pytest.mark.parametrize("function", [LowRank, AddedUp])
def test_in_bfloat16_it_is_off_by_roundings(function):
    torch.manual_seed(0)
    n_in, n_out, r = 64, 96, 4
    x = torch.randn(50, n_in).bfloat16()
    weight = (torch.randn(n_out, n_in) / n_in**0.5).bfloat16().float()
    a, b = torch.randn(r, n_in) / n_in**0.5, torch.randn(n_out, r) / 10
    exact = projected(
        lambda x, w, a, b, s: x @ w.T + s * (x @ a.T) @ b.T, x.double(), weight.double(), a.double(), b.double()
    )
    found = projected(function.apply, x, weight if function is AddedUp else weight.bfloat16(), a, b)
    # bfloat16 is off by at most 2^-9 each time; thin products round twice on the way, and see `AddedUp` for its gradients.
    slack = (n_in / r) ** 0.5 if function is AddedUp else 2.0
    for one, other, times in zip(found, exact, (2.0, 2.0, slack, slack), strict=True):
        assert (one - other).norm() <= times * 2.0**-9 * other.norm()


def test_where_a_few_rows_of_the_head_are_trained_the_others_have_no_gradient_and_those_have_theirs(decoder):
    tokens, mask = torch.arange(24).view(2, 12), torch.ones(2, 12, dtype=torch.bool)
    plain = copy.deepcopy(decoder)
    add_adapter(decoder, Lora(r=4), control=torch.tensor([3, 60]))
    for each in (plain, decoder):
        next_token_loss(each(tokens), each.lm_weight, tokens, mask)[0].backward()
        target_nll(each(tokens), each.lm_weight, tokens, mask).sum().backward()
    expected, found = plain.lm_head.weight.grad, decoder.lm_head.weight.grad
    assert found is not None
    torch.testing.assert_close(found[[3, 60]], expected[[3, 60]], atol=1e-5, rtol=1e-5)
    assert found.abs().sum(dim=1).nonzero().flatten().tolist() == [3, 60]


def test_settings_beyond_any_number_are_refused(decoder, tmp_path):
    add_adapter(decoder, Lora(r=2))
    save_adapter(tmp_path, split_state(decoder.state_dict())[1], Lora(r=2))
    settings = json.loads((tmp_path / "adapter_config.json").read_text())
    (tmp_path / "adapter_config.json").write_text(json.dumps({**settings, "lora_alpha": 10**400}))
    with pytest.raises(CheckpointError, match=r"adapter_config\.json .* cannot be read"):
        attach_adapter(decoder, tmp_path)
