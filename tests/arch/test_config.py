"""The shape of a decoder: exact sizes, and errors that name what to change."""

import dataclasses

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from lumi.arch import Decoder
from lumi.errors import ConfigError

NAMED = {  # total parameters with 32,768 pieces: the table in the README
    "micro": 9_438_336,
    "tiny": 23_072_000,
    "small": 42_349_056,
    "medium": 83_898_880,
    "base": 124_293_888,
}


@pytest.mark.parametrize(("name", "expected"), NAMED.items())
def test_a_named_architecture_has_exactly_the_parameters_it_promises(named_config, name, expected):
    assert named_config(name, vocab_size=32_768).n_params() == expected


def test_every_architecture_file_was_found(arch_files):
    assert set(arch_files) == {*NAMED, "nano", "debug"}


@pytest.mark.parametrize("name", [*NAMED, "nano", "debug"])
def test_the_count_is_that_of_the_real_module(named_config, name):
    config = named_config(name, vocab_size=32_768)
    with torch.device("meta"):
        decoder = Decoder(config)
    assert sum(parameter.numel() for parameter in decoder.parameters()) == config.n_params()


@pytest.mark.parametrize("tied", [False, True])
def test_non_embedding_parameters_leave_out_embedding_and_head(tiny_config, tied):
    config = dataclasses.replace(tiny_config, tied=tied)
    # A block: q and o 2 x 32 x 32, k and v 2 x 32 x 16, feed-forward 3 x 32 x 64, two norms of 32; and the last norm.
    assert config.n_params(embedding=False) == 2 * (2048 + 1024 + 6144 + 64) + 32


def test_flops_are_six_a_weight_plus_half_the_square_of_attention(tiny_config):
    # Matrices 2 x 9216 and the head 64 x 32; attention 12 x 2 layers x width 32 x context 10, halved.
    assert tiny_config.flops_per_token(10) == 6 * (18_432 + 2_048) + 3_840


def test_flops_are_what_pytorch_counts(tiny_config):
    decoder = Decoder(dataclasses.replace(tiny_config, attention="reference"))  # plain products, all of them counted
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        decoder.logits(decoder(torch.zeros(1, 64, dtype=torch.int64)))
    # A forward pass is a third of a training step. PyTorch counts the full square of attention, we count half of it.
    attention = 2 * 2 * 32 * 64  # layers x (a multiply-add is two) x width x context; full minus half
    assert counter.get_total_flops() / 64 == tiny_config.flops_per_token(64) / 3 + attention


def test_a_width_that_heads_cannot_share_names_the_two_nearest(tiny_config):
    with pytest.raises(ConfigError, match=r"arch\.d_model=250 .* 2 x arch\.n_heads=4.* try 248 or 256"):
        dataclasses.replace(tiny_config, d_model=250)


def test_key_heads_must_divide_query_heads(tiny_config):
    with pytest.raises(ConfigError, match=r"arch\.n_kv_heads=3 .*arch\.n_heads=4 .* \[1, 2, 4\]"):
        dataclasses.replace(tiny_config, n_kv_heads=3)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("n_layers", 0),
        ("vocab_size", 0),
        ("max_seq_len", -1),
        ("dropout", 1.0),
        ("dropout", -0.1),
        ("norm_eps", 0.0),
        ("rope_theta", 0.0),
        ("rope_factor", -2.0),
        ("init_std", 0.0),
        ("rope_scaling", "llama3"),  # without the length before the stretch
        ("rope_scaling", "yarn"),
        ("attention", "fast"),
    ],
)
def test_a_value_out_of_range_is_named(tiny_config, key, value):
    with pytest.raises(ConfigError, match=f"arch.{key}={value}"):
        dataclasses.replace(tiny_config, **{key: value})


def test_all_violations_come_at_once(tiny_config):
    with pytest.raises(ConfigError) as caught:
        dataclasses.replace(tiny_config, n_kv_heads=3, dropout=2.0, norm_eps=-1.0)
    assert "3 settings" in str(caught.value)
    assert all(key in str(caught.value) for key in ("arch.n_kv_heads=3", "arch.dropout=2.0", "arch.norm_eps=-1.0"))
