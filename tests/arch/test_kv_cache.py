"""The cache of keys and values: reading in pieces gives what reading at once gives."""

import dataclasses

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from lumi.arch import Decoder, KVCache

TOKENS = torch.randint(64, (3, 12), generator=torch.Generator().manual_seed(1))


@pytest.fixture
def model(tiny_config):
    torch.manual_seed(0)
    decoder = Decoder(dataclasses.replace(tiny_config, init_qk_std=0.02)).eval()
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.mul_(3.0)  # attention that is far from uniform
    return decoder


def read(model: Decoder, tokens: Tensor, cache: KVCache, n_real: int | Tensor) -> Tensor:
    """Hidden states of ``tokens`` given what the cache holds, of which ``n_real`` are counted."""
    with torch.no_grad():
        hidden = model(tokens, cache=cache)
    cache.advance(n_real)
    return hidden


@pytest.mark.parametrize("pieces", [(12,), (5, 1, 1, 1, 1, 1, 1, 1), (1,) * 12, (4, 4, 4)])
@pytest.mark.parametrize("attention", ["sdpa", "reference"])
def test_reading_in_pieces_equals_reading_at_once(model, pieces, attention):
    model.config = dataclasses.replace(model.config, attention=attention)
    cache = KVCache(model.config, batch_size=3, max_len=12)
    hidden = torch.cat([read(model, piece, cache, piece.shape[1]) for piece in TOKENS.split(pieces, dim=1)], dim=1)
    assert_close(hidden, model(TOKENS).detach(), atol=1e-5, rtol=1e-5)


def test_right_padded_prompts_continue_as_each_alone(model):
    lengths = torch.tensor([2, 7, 4])
    prompts = TOKENS[:, :7].masked_fill(torch.arange(7) >= lengths.unsqueeze(1), 63)
    cache = KVCache(model.config, batch_size=3)
    read(model, prompts, cache, lengths)
    for step in range(4):
        following = TOKENS[torch.arange(3), lengths + step].unsqueeze(1)
        hidden = read(model, following, cache, 1)
        for row, length in enumerate(lengths.tolist()):
            alone = model(TOKENS[row : row + 1, : length + step + 1]).detach()
            assert_close(hidden[row, 0], alone[0, -1], atol=1e-5, rtol=1e-5)


def test_padding_beyond_the_end_damages_no_real_token(model):
    cache = KVCache(model.config, batch_size=2, max_len=8)
    read(model, TOKENS[:2, :5], cache, torch.tensor([5, 1]))
    second = torch.stack((TOKENS[0, 5:11], TOKENS[1, 1:7]))  # of row 0, three tokens are real and fill the cache
    hidden = read(model, second, cache, torch.tensor([3, 6]))
    assert_close(hidden[0, :3], model(TOKENS[:1, :8]).detach()[0, 5:], atol=1e-5, rtol=1e-5)
    assert_close(hidden[1], model(TOKENS[1:2, :7]).detach()[0, 1:], atol=1e-5, rtol=1e-5)


def test_rows_that_are_kept_continue_and_the_others_are_gone(model):
    cache = KVCache(model.config, batch_size=3)
    read(model, TOKENS[:, :6], cache, 6)
    cache.keep(torch.tensor([2, 0]))
    hidden = read(model, TOKENS[[2, 0], 6:7], cache, 1)
    assert_close(hidden[:, 0], model(TOKENS[[2, 0], :7]).detach()[:, -1], atol=1e-5, rtol=1e-5)


def test_a_cache_of_half_precision_is_near_one_of_float32(model):
    cache = KVCache(model.config, batch_size=3, dtype=torch.bfloat16)
    read(model, TOKENS[:, :11], cache, 11)
    hidden = read(model, TOKENS[:, 11:], cache, 1)
    assert hidden.dtype == torch.float32
    assert_close(hidden[:, 0], model(TOKENS).detach()[:, -1], atol=5e-2, rtol=0)


def test_lengths_count_real_tokens_only(tiny_config):
    cache = KVCache(tiny_config, batch_size=2)
    cache.advance(3)
    cache.advance(torch.tensor([1, 0]))
    assert cache.lengths.tolist() == [4, 3]
