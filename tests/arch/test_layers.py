"""RMSNorm, rotary positions and SwiGLU against their formulas."""

import dataclasses
import math

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from lumi.arch.layers import RMSNorm, RotaryTable, SwiGLU, rotary_frequencies, rotate


def test_rmsnorm_divides_by_the_root_of_the_mean_square():
    norm = RMSNorm(2, eps=0.0)
    norm.weight.data = torch.tensor([1.0, 10.0])
    # The mean square of (1, 7) is 25.
    assert_close(norm(torch.tensor([[[1.0, 7.0]]])), torch.tensor([[[0.2, 14.0]]]), atol=1e-6, rtol=0)


def test_rmsnorm_of_half_precision_is_computed_in_float32():
    x = torch.full((1, 1, 4), 300.0, dtype=torch.float16)  # its square, 90,000, is beyond float16
    assert torch.equal(RMSNorm(4, eps=1e-5)(x), torch.ones_like(x))


def test_swiglu_is_down_of_silu_of_gate_times_up(tiny_config):
    layer, x = SwiGLU(tiny_config), torch.randn(2, 3, 32)
    gate, up, down = layer.gate_proj.weight, layer.up_proj.weight, layer.down_proj.weight
    expected = (F.sigmoid(x @ gate.T) * (x @ gate.T) * (x @ up.T)) @ down.T
    assert_close(layer(x), expected, atol=1e-6, rtol=1e-5)


def test_rotary_frequencies_fall_from_one_by_powers_of_theta(tiny_config):
    config = dataclasses.replace(tiny_config, rope_theta=10_000.0)  # head size 8: exponents 0, 1/4, 1/2, 3/4
    assert_close(rotary_frequencies(config), torch.tensor([1.0, 0.1, 0.01, 0.001]), atol=0, rtol=1e-6)


def test_linear_scaling_slows_every_frequency(tiny_config):
    config = dataclasses.replace(tiny_config, rope_scaling="linear", rope_factor=4.0)
    assert_close(rotary_frequencies(config), torch.tensor([0.25, 0.025, 0.0025, 0.00025]), atol=0, rtol=1e-6)


def test_llama3_scaling_keeps_the_fast_frequencies_and_slows_the_slow_ones(tiny_config):
    config = dataclasses.replace(tiny_config, rope_scaling="llama3", rope_factor=8.0, rope_original_len=100)
    # In 100 positions the four turn 15.9, 1.59, 0.16 and 0.016 times: kept, blended, slowed, slowed.
    kept = (100 * 0.1 / (2 * math.pi) - 1) / 3
    expected = torch.tensor([1.0, kept * 0.1 + (1 - kept) * 0.1 / 8, 0.01 / 8, 0.001 / 8])
    assert_close(rotary_frequencies(config), expected, atol=0, rtol=1e-5)


def test_rotation_by_position_zero_changes_nothing(tiny_config):
    x = torch.randn(1, 1, 4, 8)
    assert torch.equal(rotate(x, *RotaryTable(tiny_config)(torch.zeros(1, 1, dtype=torch.int64))), x)


def test_rotation_turns_the_halves_against_each_other(tiny_config):
    x = torch.zeros(1, 1, 1, 8)
    x[..., 0] = 1.0  # turns with feature 4, one radian per position
    turned = rotate(x, *RotaryTable(tiny_config)(torch.tensor([[3]]))).flatten()
    expected = torch.tensor([math.cos(3), 0, 0, 0, math.sin(3), 0, 0, 0])
    assert_close(turned, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("shift", [1, 17, 40])
def test_scores_depend_on_the_distance_only(tiny_config, shift):
    table, q, k = RotaryTable(tiny_config), torch.randn(1, 1, 1, 8), torch.randn(1, 1, 1, 8)

    def score(at_q: int, at_k: int) -> torch.Tensor:
        return (rotate(q, *table(torch.tensor([[at_q]]))) * rotate(k, *table(torch.tensor([[at_k]])))).sum()

    assert_close(score(9 + shift, 4 + shift), score(9, 4), atol=1e-5, rtol=0)


def test_the_table_is_not_part_of_the_weights(tiny_decoder):
    assert not [name for name in tiny_decoder.state_dict() if "rotary" in name]
