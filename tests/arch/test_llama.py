"""The same weights in an independent implementation, transformers' Llama, give the same numbers."""

import dataclasses
import math
from typing import Any

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from lumi.arch import Decoder, DecoderConfig, token_nll

TOKENS = torch.randint(64, (2, 48), generator=torch.Generator().manual_seed(1))

VARIANTS: dict[str, dict[str, Any]] = {
    "untied, grouped queries": {},
    "tied": {"tied": True},
    "every head its own keys": {"n_kv_heads": 4},
    "another theta": {"rope_theta": 500.0},
    "linear scaling": {"rope_scaling": "linear", "rope_factor": 4.0},
    "llama3 scaling": {"rope_scaling": "llama3", "rope_factor": 8.0, "rope_original_len": 32},
}


@pytest.fixture(scope="session")
def llama():
    """``llama(model)``: transformers' model with our model's weights; its import takes seconds."""
    transformers = pytest.importorskip("transformers")

    def make(model: Decoder) -> nn.Module:
        config = model.config
        rope: dict[str, Any] = {"rope_type": config.rope_scaling or "default", "rope_theta": config.rope_theta}
        if config.rope_scaling:
            rope["factor"] = config.rope_factor
        if config.rope_scaling == "llama3":  # the constants of Llama 3.1
            rope |= {"low_freq_factor": 1.0, "high_freq_factor": 4.0}
            rope["original_max_position_embeddings"] = config.rope_original_len
        theirs = transformers.LlamaForCausalLM(
            transformers.LlamaConfig(
                vocab_size=config.vocab_size,
                hidden_size=config.d_model,
                intermediate_size=config.d_ff,
                num_hidden_layers=config.n_layers,
                num_attention_heads=config.n_heads,
                num_key_value_heads=config.n_kv_heads,
                max_position_embeddings=config.max_seq_len,
                rms_norm_eps=config.norm_eps,
                tie_word_embeddings=config.tied,
                rope_parameters=rope,
            )
        )
        theirs.load_state_dict(model.state_dict(), strict=True)
        return theirs.eval()

    return make


@pytest.fixture(params=VARIANTS.values(), ids=list(VARIANTS))
def model(request, tiny_config: DecoderConfig) -> Decoder:
    torch.manual_seed(0)
    model = Decoder(dataclasses.replace(tiny_config, **request.param)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(torch.empty_like(parameter).uniform_(1.0, 5.0))  # also norms, and far from uniform
    return model


def test_logits_agree_with_transformers(model, llama):
    with torch.no_grad():
        assert_close(model.logits(model(TOKENS)), llama(model)(TOKENS).logits, atol=1e-4, rtol=0)


def test_perplexity_agrees_with_transformers_to_four_digits(model, llama):
    with torch.no_grad():
        nll = token_nll(model(TOKENS), model.lm_weight, TOKENS)
        theirs = math.exp(llama(model)(TOKENS, labels=TOKENS).loss.item())  # the mean over 2 x 47 targets
    ours = math.exp(nll.sum().item() / (2 * 47))
    assert f"{ours:.4g}" == f"{theirs:.4g}"
