"""How long a run is, and what it is said to take."""

import pytest
import torch

from lumi.arch import Decoder
from lumi.batch import PackedBatch
from lumi.errors import ConfigError
from lumi.plan import Budget, Plan, measure_micro_batch, measure_peak_flops


def steps(budget: Budget) -> int:
    """Of a model of 1,000 parameters and 6,000 operations a token, on an epoch of 5,000 tokens, with 300 tokens a step."""
    return budget.total_steps(tokens_per_step=300, epoch_tokens=5000, n_params=1000, flops_per_token=6000)


@pytest.mark.parametrize(
    ("budget", "expected"),
    [
        (Budget(steps=7), 7),
        (Budget(tokens=3000), 10),
        (Budget(tokens=3001), 11),  # rounded up to whole steps
        (Budget(tokens=1), 1),
        (Budget(epochs=1.5), 25),  # 7,500 tokens
        (Budget(epochs=0.001), 1),
        (Budget(flops=6e6), 4),  # 1,000 tokens, rounded up to whole steps
        (Budget(flops=1.0), 1),
        (Budget(), 67),  # 20 tokens for each of 1,000 parameters, in steps of 300
        (Budget(tokens_per_parameter=3), 10),
        (Budget(steps=7, tokens_per_parameter=3), 7),
    ],
)
def test_a_budget_gives_so_many_steps(budget, expected):
    assert steps(budget) == expected


@pytest.mark.parametrize(
    "given",
    [
        {"steps": 1, "tokens": 1},
        {"steps": 1, "epochs": 1.0},
        {"tokens": 1, "epochs": 1.0},
        {"tokens": 1, "flops": 1.0},
        {"steps": 1, "hours": 1.0},
    ],
)
def test_two_lengths_at_once_are_refused(given):
    with pytest.raises(ConfigError, match=r"budget\.\w+=1.*, budget\.\w+=1.* · at most one may be set"):
        Budget(**given)


@pytest.mark.parametrize(
    ("key", "value"),
    [("steps", 0), ("tokens", -5), ("epochs", 0.0), ("flops", 0.0), ("hours", -1.0), ("tokens_per_parameter", 0)],
)
def test_a_length_that_is_not_positive_is_refused(key, value):
    with pytest.raises(ConfigError, match=rf"budget\.{key}={value} · must be above 0"):
        Budget(**{key: value})


def batch_of(n_rows: int) -> PackedBatch:
    """Sequences of 16 tokens."""
    tokens = torch.arange(16).repeat(n_rows, 1)
    return {
        "tokens": tokens,
        "doc_ids": torch.zeros_like(tokens, dtype=torch.int32),
        "loss_mask": torch.ones_like(tokens, dtype=torch.bool),
        "source": torch.zeros(n_rows, dtype=torch.int64),
        "sample": torch.zeros(n_rows, dtype=torch.int64),
    }


def test_a_measurement_without_time_reads_single_sequences_only(tiny_decoder: Decoder):
    sizes = []
    tiny_decoder.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    measure_micro_batch(tiny_decoder, batch_of(8), budget_seconds=0)
    assert sizes == [1, 1]


def test_a_measurement_with_time_ends_with_the_whole_batch(tiny_decoder: Decoder):
    sizes = []
    tiny_decoder.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    measure_micro_batch(tiny_decoder, batch_of(8), budget_seconds=60)
    assert sizes == [1, 1, 4, 8, 8, 8]


def test_a_measurement_leaves_the_model_as_it_was(tiny_decoder: Decoder):
    before = {name: value.clone() for name, value in tiny_decoder.state_dict().items()}
    assert measure_micro_batch(tiny_decoder, batch_of(2)) > 0
    assert all(torch.equal(value, before[name]) for name, value in tiny_decoder.state_dict().items())
    assert all(parameter.grad is None for parameter in tiny_decoder.parameters())


def test_this_device_does_a_positive_number_of_operations_a_second():
    assert 1e8 < measure_peak_flops(torch.device("cpu"), torch.float32) < 1e16


def test_the_plan_says_every_figure():
    plan = Plan(
        parameters=1_000_000,
        non_embedding=500_000,
        flops_per_token=6_000_000,
        optimal_tokens=20_000_000,
        total_steps=1000,
        tokens_per_step=5_000,
        tokens=5_000_000,
        epochs=2.5,
        memory_bytes=16_000_000,
        peak_flops=2e11,
        seconds=600.0,
    )
    text = "\n".join(plan.lines())
    figures = (
        "1,000,000",
        "500,000",
        "6.0 MFLOP",
        "3.00e+13",
        "200 GFLOP/s",
        "16 MB",
        "5.00 M tokens",
        "2.50 epochs",
    )
    assert [figure for figure in (*figures, "25 %", "10.0 minutes", "8,333 tokens/s") if figure not in text] == []
