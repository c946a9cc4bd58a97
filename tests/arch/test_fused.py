"""The decoder laid out for generation, against the decoder."""

import pytest
import torch
from torch.testing import assert_close

from lumi.arch import Decoder, DecoderConfig
from lumi.arch.fused import KEY_BLOCK, Cache, FusedDecoder
from lumi.arch.lora import Lora, add_adapter, merge_adapter

SHAPES = {
    "plain": {},
    "grouped": {"n_kv_heads": 1},
    "tied": {"tied": True},
    "stretched": {"rope_scaling": "llama3", "rope_factor": 4.0, "rope_original_len": 32},
    "wide": {"d_model": 128, "d_ff": 512},
}


def make(seed=0, **changes):
    torch.manual_seed(seed)
    shape = {
        "vocab_size": 96,
        "n_layers": 2,
        "d_model": 32,
        "n_heads": 4,
        "n_kv_heads": 4,
        "d_ff": 64,
        "max_seq_len": 200,
    }
    model = Decoder(DecoderConfig(**{**shape, **changes})).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3.0)  # far from uniform
    return model


def expected(model, tokens):
    with torch.no_grad():
        return model.logits(model(torch.tensor([tokens])))[0]  # (T, V)


def assert_near(actual, wanted):
    # Other sums in another order: some units in the last place of logits as large as 20.
    assert_close(actual, wanted, rtol=1e-4, atol=2e-4)


def tokens_of(n, seed=0):
    return torch.randint(96, (n,), generator=torch.Generator().manual_seed(seed)).tolist()


@pytest.mark.parametrize("changes", SHAPES.values(), ids=SHAPES)
def test_a_prompt_in_parts_and_then_token_by_token_gives_the_decoders_logits(changes):
    model, tokens = make(**changes), tokens_of(90)
    fused, wanted = FusedDecoder(model), expected(model, tokens)
    cache = Cache(fused, 2, 100)
    fused.prefill(torch.tensor(tokens[:30]), cache, 0, 0)
    assert_near(fused.prefill(torch.tensor(tokens[30:60]), cache, 0, 30), wanted[59])
    for place in range(60, 90):
        logits = fused.decode(torch.tensor([tokens[place]]), torch.tensor([place]), cache, place)
        assert_near(logits[0], wanted[place])


def test_rows_of_any_number_and_length_have_the_bits_that_they_have_alone():
    model = make(d_model=128, d_ff=512, vocab_size=2048, n_layers=3)
    fused = FusedDecoder(model)
    prompts = [
        tokens_of(length, seed=length) for length in (1, 2, 63, 64, 65, 130, 7, 9, 30, 100, 3, 5, 6, 8, 11, 13, 17, 90)
    ]

    def read(members):
        cache = Cache(fused, len(members), 199)
        for row, member in enumerate(members):
            fused.prefill(torch.tensor(prompts[member]), cache, row, 0)
        lengths = [len(prompts[member]) for member in members]
        return fused.decode(torch.tensor(members), torch.tensor(lengths), cache, max(lengths))

    alone = torch.cat([read([member]) for member in range(len(prompts))])
    for n in range(2, len(prompts) + 1):
        assert torch.equal(read(list(range(n))), alone[:n]), n


def test_a_row_that_is_moved_goes_on_as_before():
    model, tokens = make(), tokens_of(40)
    fused, wanted = FusedDecoder(model), expected(model, tokens)
    cache = Cache(fused, 3, 64)
    fused.prefill(torch.tensor(tokens[:39]), cache, 2, 0)
    cache.move(2, 0, 39)
    assert_near(fused.decode(torch.tensor(tokens[39:]), torch.tensor([39]), cache, 39)[0], wanted[39])


@pytest.mark.parametrize("dora", [False, True])
def test_an_adapter_is_part_of_the_weights_and_stays_on_the_decoder(dora):
    model = make()
    add_adapter(model, Lora(r=2, dora=dora))
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    tokens = tokens_of(20)
    wanted = expected(model, tokens)[-1]
    fused = FusedDecoder(model)
    assert_near(fused.prefill(torch.tensor(tokens), Cache(fused, 1, 20), 0, 0), wanted)
    assert torch.equal(expected(model, tokens)[-1], wanted)
    assert_near(expected(merge_adapter(model), tokens)[-1], wanted)


def test_half_precision_stays_near():
    model, tokens = make(), tokens_of(30)
    fused = FusedDecoder(model, torch.bfloat16)
    cache = Cache(fused, 1, 40)
    logits = fused.prefill(torch.tensor(tokens), cache, 0, 0)
    assert logits.dtype == torch.float32
    # bfloat16 has 8 bits; two layers of sums of about 30 products each leave some percent.
    assert (logits - expected(model, tokens)[-1]).std() < 0.1 * expected(model, tokens)[-1].std()
    assert cache.layers[0].dtype == torch.bfloat16


def test_the_cache_has_whole_blocks_of_keys():
    fused = FusedDecoder(make())
    assert Cache(fused, 3, KEY_BLOCK + 1).max_len == 2 * KEY_BLOCK
    assert (
        Cache(fused, 3, KEY_BLOCK).n_bytes == 2 * 2 * 3 * 32 * KEY_BLOCK * 4
    )  # layers, k and v, rows, width, tokens, bytes
