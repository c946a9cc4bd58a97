"""Against tables of Student's t, differences worked out by hand, and the examples of the papers."""

import math

import pytest
import torch

from lumi.eval.study.statistics import (
    compare_pairs,
    held_out_choice,
    holm,
    pareto_front,
    sign_flip_p,
    summarize,
    t_cdf,
    t_quantile,
)

TABLE = {1: 12.7062, 2: 4.3027, 3: 3.1824, 4: 2.7764, 9: 2.2622, 10: 2.2281, 30: 2.0423, 120: 1.9799}
"""Two-sided 95 % points of Student's t, from the printed tables."""


@pytest.mark.parametrize("dof", TABLE)
def test_quantiles_are_those_of_the_printed_table(dof):
    assert t_quantile(0.975, dof) == pytest.approx(TABLE[dof], abs=5e-5)


def test_the_lower_quantile_mirrors_the_upper_one():
    assert t_quantile(0.025, 7) == -t_quantile(0.975, 7)


@pytest.mark.parametrize(("t", "dof"), [(0.3, 1), (-1.7, 2), (2.0, 5), (4.5, 8), (-0.2, 31)])
def test_the_distribution_function_is_the_integral_of_the_density(t, dof):
    places = torch.linspace(0, t, 20_001, dtype=torch.float64)
    density = torch.distributions.StudentT(torch.tensor(float(dof), dtype=torch.float64)).log_prob(places).exp()
    assert t_cdf(t, dof) == pytest.approx(0.5 + torch.trapezoid(density, places).item(), abs=1e-8)


def test_with_one_degree_of_freedom_it_is_the_cauchy_distribution():
    assert t_cdf(1.0, 1) == pytest.approx(0.75, abs=1e-15)


def test_mean_deviation_and_interval_of_three_seeds():
    found = summarize([1.0, 2.0, 3.0])  # sd 1, so that half the width is 4.3027 / √3
    assert (found.n, found.mean, found.sd) == (3, 2.0, 1.0)
    assert found.low == pytest.approx(2 - 4.302653 / math.sqrt(3), abs=1e-6)
    assert found.high == pytest.approx(2 + 4.302653 / math.sqrt(3), abs=1e-6)


def test_one_seed_has_no_interval():
    found = summarize([2.5])
    assert (found.mean, found.sd, found.low, found.high) == (2.5, None, None, None)


def test_the_paired_test_of_two_degrees_of_freedom():
    found = compare_pairs([0.1, 0.2, 0.3])  # t = 0.2 / (0.1 / √3) = 2 √3; p = 1 - t / √(2 + t²) = 1 - √(12 / 14)
    assert found.difference.mean == pytest.approx(0.2)
    assert found.p == pytest.approx(1 - math.sqrt(12 / 14), abs=1e-12)
    assert found.p_exact == 0.25  # all three of one sign: 2 of 8


def test_the_exact_test_counts_patterns_as_far_from_zero():
    # |±1 ±2 ±3| ≥ 2: ±6, ±4, ±2 are there, and 0 twice is not: 6 of 8
    assert sign_flip_p([1.0, -2.0, 3.0]) == 6 / 8


def test_the_exact_test_does_not_lose_the_observed_pattern_to_rounding():
    assert sign_flip_p([0.1, 0.2, 0.3, 0.1, 0.2]) == 2 / 32


def test_equal_runs_show_no_difference():
    found = compare_pairs([0.0, 0.0])
    assert (found.difference.mean, found.p, found.p_exact) == (0.0, 1.0, 1.0)


def test_differences_without_any_spread_leave_the_t_test_nothing_to_divide_by():
    assert compare_pairs([0.5, 0.5]).p is None


def test_one_pair_is_no_test():
    found = compare_pairs([0.5])
    assert (found.p, found.p_exact, found.difference.low) == (None, None, None)


def test_holm_multiplies_by_the_number_that_is_left_and_never_falls():
    # sorted: 0.01 · 4, 0.02 · 3, 0.022 · 2 = 0.044 raised to 0.06, 0.5 · 1
    assert holm([0.5, 0.01, 0.022, 0.02]) == pytest.approx([0.5, 0.04, 0.06, 0.06])


def test_holm_leaves_out_what_was_not_tested_and_stays_below_one():
    assert holm([None, 0.7, 0.6]) == [None, 1.0, 1.0]
    assert holm([]) == []


def test_the_front_is_what_no_other_point_beats():
    costs, losses = [1.0, 2.0, 3.0, 2.0, 4.0], [3.0, 2.0, 2.5, 2.2, 1.0]
    assert pareto_front(costs, losses) == [0, 1, 4]


def test_of_equally_cheap_points_the_better_one_is_on_the_front():
    assert pareto_front([1.0, 1.0, 2.0], [3.0, 2.0, 2.0]) == [1]


def test_equal_points_are_on_the_front_together():
    assert pareto_front([1.0, 1.0], [2.0, 2.0]) == [0, 1]


def test_a_choice_is_judged_by_the_seed_that_did_not_make_it():
    # Seed 1 chooses the first, worth 4 on seed 0; seed 0 chooses the second, worth 5 on seed 1.
    assert held_out_choice([[4.0, 1.0], [2.0, 5.0]]) == 4.5
    assert held_out_choice([[4.0], [2.0]]) is None
    assert held_out_choice([[4.0, 1.0], [2.0]]) is None
