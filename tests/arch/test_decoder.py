"""The decoder: who sees whom, how it starts, and that it learns what comes next."""

import copy
import dataclasses
import math

import pytest
import torch
from torch.testing import assert_close

from lumi.arch import Decoder, DecoderConfig, next_token_loss
from lumi.errors import DataError

TOKENS = torch.randint(64, (2, 12), generator=torch.Generator().manual_seed(1))
DOC_IDS = torch.tensor([[0] * 5 + [1] * 7, [0] * 12])


@pytest.fixture
def model(tiny_decoder):
    with torch.no_grad():
        for parameter in tiny_decoder.parameters():
            parameter.mul_(3.0)  # attention that is far from uniform
    return tiny_decoder


def logits(model: Decoder, tokens: torch.Tensor, doc_ids: torch.Tensor | None = None) -> torch.Tensor:
    with torch.no_grad():
        return model.logits(model(tokens, doc_ids))


def changed(tokens: torch.Tensor, row: int, place: int) -> torch.Tensor:
    tokens = tokens.clone()
    tokens[row, place] = (tokens[row, place] + 1) % 64
    return tokens


@pytest.mark.parametrize("attention", ["sdpa", "reference"])
def test_a_packed_document_gives_the_logits_of_the_document_alone(model, attention):
    model.config = dataclasses.replace(model.config, attention=attention)
    packed = logits(model, TOKENS, DOC_IDS)
    assert_close(packed[:1, :5], logits(model, TOKENS[:1, :5]), atol=1e-5, rtol=1e-5)
    assert_close(packed[:1, 5:], logits(model, TOKENS[:1, 5:]), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("attention", ["sdpa", "reference"])
def test_changing_a_token_of_one_document_changes_no_logit_of_another(model, attention):
    model.config = dataclasses.replace(model.config, attention=attention)
    before, after = logits(model, TOKENS, DOC_IDS), logits(model, changed(TOKENS, 0, 2), DOC_IDS)
    assert torch.equal(before[0, 5:], after[0, 5:])
    assert torch.equal(before[1], after[1])
    assert not torch.isclose(before[0, 2:5], after[0, 2:5]).all(dim=-1).any()


@pytest.mark.parametrize("attention", ["sdpa", "reference"])
@pytest.mark.parametrize("place", [1, 6, 11])
def test_changing_a_token_changes_no_logit_before_it(model, attention, place):
    model.config = dataclasses.replace(model.config, attention=attention)
    before, after = logits(model, TOKENS), logits(model, changed(TOKENS, 1, place))
    assert torch.equal(before[:, :place], after[:, :place])
    assert not torch.isclose(before[1, place:], after[1, place:]).all(dim=-1).any()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_packed_document_is_alone_on_a_gpu_too(model):
    model, tokens, doc_ids = model.to("cuda"), TOKENS.to("cuda"), DOC_IDS.to("cuda")
    with torch.autocast("cuda", torch.bfloat16):
        before, after = logits(model, tokens, doc_ids), logits(model, changed(tokens, 0, 2), doc_ids)
    assert torch.equal(before[0, 5:], after[0, 5:])


@pytest.mark.parametrize("name", ["debug", "nano", "micro", "tiny", "small", "medium", "base"])
def test_the_loss_at_initialisation_is_that_of_a_uniform_guess(named_config, name):
    torch.manual_seed(0)
    config = named_config(name, vocab_size=1000, max_seq_len=64)  # ln V is small here: 5 % of it is stricter
    tokens = torch.randint(1000, (2, 64))
    with torch.no_grad():
        model = Decoder(config)
        nll, targets = next_token_loss(
            model(tokens), model.lm_weight, tokens, torch.ones_like(tokens, dtype=torch.bool)
        )
    assert float(nll / targets) == pytest.approx(math.log(1000), rel=0.05)


@pytest.mark.parametrize("tied", [False, True])
def test_a_model_of_counting_predicts_the_next_number_and_not_the_one_after(tied):
    torch.manual_seed(0)
    model = Decoder(
        DecoderConfig(
            vocab_size=16, n_layers=1, d_model=32, n_heads=2, n_kv_heads=1, d_ff=64, max_seq_len=24, tied=tied
        )
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    everywhere = torch.ones(8, 24, dtype=torch.bool)
    for _ in range(60):
        tokens = (torch.randint(16, (8, 1)) + torch.arange(24)) % 16
        nll, targets = next_token_loss(model(tokens), model.lm_weight, tokens, everywhere)
        (nll / targets).backward()
        optimizer.step()
        optimizer.zero_grad()
    tokens = torch.arange(16).unsqueeze(0)
    assert logits(model, tokens)[0].argmax(dim=-1).tolist() == [*range(1, 16), 0]


def test_matrices_that_write_to_the_residual_stream_start_smaller(tiny_config):
    torch.manual_seed(0)
    model = Decoder(dataclasses.replace(tiny_config, n_layers=8, d_model=128))
    for name, parameter in model.named_parameters():
        if parameter.dim() == 2:
            expected = 0.02 / 4 if name.endswith(("o_proj.weight", "down_proj.weight")) else 0.02  # root of 2 x 8
            expected = 128**-0.5 if name.endswith(("q_proj.weight", "k_proj.weight")) else expected
            assert float(parameter.detach().std()) == pytest.approx(expected, rel=0.05), name
        else:
            assert torch.equal(parameter, torch.ones_like(parameter)), name


def test_a_tied_model_has_one_matrix_for_embedding_and_head(tiny_config):
    model = Decoder(dataclasses.replace(tiny_config, tied=True))
    assert model.lm_weight is model.model.embed_tokens.weight
    assert "lm_head.weight" not in dict(model.named_parameters())


def test_checkpointed_activations_change_no_gradient(tiny_config):
    torch.manual_seed(0)
    plain = Decoder(dataclasses.replace(tiny_config, dropout=0.1))
    saving = copy.deepcopy(plain)
    saving.config = dataclasses.replace(plain.config, checkpoint_activations=True)
    for model in (plain, saving):
        torch.manual_seed(1)
        model.logits(model(TOKENS, DOC_IDS)).square().sum().backward()
    for (name, mine), theirs in zip(plain.named_parameters(), saving.parameters(), strict=True):
        assert_close(mine.grad, theirs.grad, atol=0, rtol=0, msg=name)


def test_dropout_is_off_in_evaluation_and_on_in_training(tiny_config):
    model = Decoder(dataclasses.replace(tiny_config, dropout=0.5))
    assert not torch.equal(model(TOKENS), model(TOKENS))
    model.eval()
    assert torch.equal(model(TOKENS), model(TOKENS))


def test_a_sequence_longer_than_the_model_allows_is_an_error(tiny_decoder):
    with pytest.raises(DataError, match=r"65 tokens .* arch\.max_seq_len=64"):
        tiny_decoder(torch.zeros(1, 65, dtype=torch.int64))


def test_attention_scores_begin_with_unit_variance(tiny_config: DecoderConfig) -> None:
    torch.manual_seed(0)
    decoder = Decoder(dataclasses.replace(tiny_config, d_model=256, n_heads=4, n_kv_heads=4))
    weights = dict(decoder.named_parameters())
    x = torch.randn(500, 256)  # as RMSNorm gives it
    q, k = (
        (x @ weights[f"model.layers.0.self_attn.{name}.weight"].T).view(500, 4, 64) for name in ("q_proj", "k_proj")
    )
    scores = torch.einsum("she,the->hst", q, k) / 64**0.5
    assert scores.std().item() == pytest.approx(1.0, abs=0.05)
