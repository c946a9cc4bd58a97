"""Schedules at points that a hand can compute."""

import itertools
import math

import pytest

from lumi.errors import ConfigError
from lumi.optim import WSD, Constant, Cosine, Linear

ALL = [Constant, Cosine, Linear, WSD]


def curve(schedule, total_steps: int) -> list[float]:
    return [schedule.factor(step, total_steps) for step in range(total_steps)]


@pytest.mark.parametrize("kind", ALL)
def test_warm_up_rises_evenly_and_reaches_the_peak_on_its_last_step(kind):
    assert curve(kind(warmup_steps=4), 100)[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]


@pytest.mark.parametrize("kind", ALL)
def test_warm_up_may_be_a_share_of_the_run(kind):
    assert curve(kind(warmup_ratio=0.02), 200)[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]


@pytest.mark.parametrize("kind", ALL)
def test_steps_of_warm_up_win_over_the_share(kind):
    assert curve(kind(warmup_steps=0, warmup_ratio=0.5), 100)[0] == 1.0


def test_constant_stays_at_the_peak():
    assert curve(Constant(warmup_steps=0), 5) == [1.0] * 5


def test_cosine_falls_along_half_a_wave():
    expected = [1.0, 0.1 + 0.9 * (0.5 + math.sqrt(0.125)), 0.55, 0.1 + 0.9 * (0.5 - math.sqrt(0.125))]
    assert curve(Cosine(warmup_steps=0, min_ratio=0.1), 4) == pytest.approx(expected, abs=1e-12)


def test_linear_falls_along_a_line():
    assert curve(Linear(warmup_steps=0, min_ratio=0.2), 4) == pytest.approx([1.0, 0.8, 0.6, 0.4], abs=1e-12)


def test_wsd_is_stable_and_then_falls_along_a_line():
    schedule = WSD(warmup_steps=2, decay_ratio=0.5, shape="linear", min_ratio=0.2)
    expected = [0.5, 1, 1, 1, 1, 1, 1, 0.8, 0.6, 0.4]  # two of warm-up, eight after it
    assert curve(schedule, 10) == pytest.approx(expected, abs=1e-12)


def test_wsd_may_fall_by_the_root():
    schedule = WSD(warmup_steps=0, decay_ratio=0.4, shape="sqrt")
    expected = [1, 1, 1, 1, 1, 1, 1, 1 - math.sqrt(1 / 4), 1 - math.sqrt(2 / 4), 1 - math.sqrt(3 / 4)]
    assert curve(schedule, 10) == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("total_steps", [1, 2, 3, 10, 1000])
def test_after_the_warm_up_the_factor_never_rises_and_stays_within_its_bounds(kind, total_steps):
    schedule = kind(warmup_ratio=0.1, min_ratio=0.1)
    after = curve(schedule, total_steps)[round(0.1 * total_steps) :]
    assert all(earlier >= later for earlier, later in itertools.pairwise(after))
    assert 0.1 - 1e-12 <= min(after) <= max(after) <= 1.0


@pytest.mark.parametrize("kind", [Cosine, Linear, WSD])
def test_a_run_that_is_over_has_reached_min_ratio_and_no_step_before_it_has(kind):
    schedule = kind(min_ratio=0.1)
    assert schedule.factor(100, 100) == schedule.factor(150, 100) == pytest.approx(0.1, abs=1e-12)
    assert min(curve(schedule, 100)) > 0.1


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("total_steps", [1, 2, 1000])
def test_no_step_has_the_rate_zero(kind, total_steps):
    assert min(curve(kind(min_ratio=0.0), total_steps)) > 0


@pytest.mark.parametrize(
    ("kind", "key", "value"),
    [
        (Constant, "warmup_steps", -1),
        (Constant, "warmup_ratio", 1.5),
        (Cosine, "min_ratio", -0.1),
        (Linear, "min_ratio", 1.1),
        (WSD, "decay_ratio", 0.0),
        (WSD, "warmup_ratio", -0.5),
        (WSD, "shape", "cubic"),
    ],
)
def test_a_value_out_of_range_is_named(kind, key, value):
    with pytest.raises(ConfigError, match=rf"optim\.schedule\.{key}={value}"):
        kind(**{key: value})
