"""Intervals against published values, and figures as a person reads them."""

import math
from typing import Any

import numpy as np
import pytest

from lumi.corpus.planning.extrapolate import Estimate, interval, ratio, wilson
from lumi.corpus.planning.table import count, size


def test_an_estimate_stays_within_what_is_possible():
    least: Any = np.int64(2)
    found = Estimate(5.0, -1.0, 20.0).within(least, 10)
    assert (found, type(found.low)) == (Estimate(5.0, 2.0, 10.0), float)  # JSON knows no numpy


def test_figures_are_short():
    assert count(Estimate.exactly(3130)) == "3,130"
    assert count(Estimate(20_200_000, 19_392_000, 21_008_000)) == "20.2 M ±4%"
    assert size(Estimate(1_430_000, 1_427_000, 1_433_000)) == "1.43 MB ±0.2%"
    assert count(Estimate(0, 0, 12)) == "0 to 12"


def test_a_share_has_the_interval_of_wilson():
    found = wilson(0.9, 10)  # reference: scipy.stats.binomtest(9, 10).proportion_ci(method="wilson")
    assert (found.low, found.high) == pytest.approx((0.59585, 0.98212), abs=1e-5)
    assert wilson(1.0, math.inf) == Estimate.exactly(1.0)


def test_few_chunks_give_wide_intervals():
    # 97.5 % points of Student's distribution for 5 and 30 degrees of freedom: 2.5706 and 2.0423.
    assert interval(0.0, 1.0, 5).high == pytest.approx(2.5706, rel=2e-3)
    assert interval(0.0, 1.0, 30).high == pytest.approx(2.0423, rel=1e-4)


def test_a_ratio_without_unseen_rows_is_exact():
    above, below = np.array([1.0, 2.0, 4.0]), np.array([2.0, 4.0, 8.0])
    assert ratio(above, below, np.arange(3), unseen=0.0) == Estimate.exactly(0.5)
    assert ratio(above, below, np.arange(3), unseen=1.0) == Estimate.exactly(0.5)  # all rows agree
    assert not ratio(above[::-1], below, np.arange(3), unseen=1.0).is_exact
