"""Means over seeds with their uncertainty, paired comparisons, and who is on a Pareto front; no more than the formulas."""

import dataclasses
import itertools
import math
from collections.abc import Sequence

CONFIDENCE = 0.95
EXACT_UP_TO = 12
"""Pairs up to which all sign flips are counted: 4,096 of them, and with more pairs the t test needs no second opinion."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Summary:
    """Equally trustworthy measurements of one thing.

    Attributes:
        n: how many.
        mean: of them.
        sd: sample standard deviation (n - 1); None for one measurement.
        low, high: 95 % confidence interval of the mean by Student's t; None for one measurement.
    """

    n: int
    mean: float
    sd: float | None = None
    low: float | None = None
    high: float | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Paired:
    """Differences between two things that were measured with the same seeds.

    Attributes:
        difference: mean with its interval.
        p: of the paired t test, two-sided; None of one pair, or where equal differences leave nothing to test.
        p_exact: of the exact sign-flip permutation test; None above `EXACT_UP_TO` pairs. Of n pairs it is never below
            2^(1-n).
    """

    difference: Summary
    p: float | None = None
    p_exact: float | None = None


def summarize(values: Sequence[float]) -> Summary:
    """Mean, standard deviation and interval of at least one value."""
    n, mean = len(values), math.fsum(values) / len(values)
    if n == 1:
        return Summary(n=1, mean=mean)
    sd = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
    width = t_quantile(0.5 + CONFIDENCE / 2, n - 1) * sd / math.sqrt(n)
    return Summary(n=n, mean=mean, sd=sd, low=mean - width, high=mean + width)


def compare_pairs(differences: Sequence[float]) -> Paired:
    """Whether paired differences are other than zero on average."""
    found = summarize(differences)
    if not any(differences):
        return Paired(difference=found, p=None if found.n == 1 else 1.0, p_exact=None if found.n == 1 else 1.0)
    p = 2 * (1 - t_cdf(abs(found.mean) * math.sqrt(found.n) / found.sd, found.n - 1)) if found.sd else None
    exact = sign_flip_p(differences) if 1 < found.n <= EXACT_UP_TO else None
    return Paired(difference=found, p=p, p_exact=exact)


def sign_flip_p(differences: Sequence[float]) -> float:
    """Exact two-sided permutation test: the share of all sign patterns with a mean as far from zero as the observed one.

    Under the null hypothesis each difference may as well have the other sign (Fisher 1935, section 21).
    """
    observed = abs(math.fsum(differences))
    limit = observed - 1e-12 * math.fsum(map(abs, differences))  # rounding must not lose the observed pattern itself
    patterns = itertools.product((1, -1), repeat=len(differences))
    hits = sum(
        abs(math.fsum(sign * value for sign, value in zip(signs, differences, strict=True))) >= limit
        for signs in patterns
    )
    return hits / 2 ** len(differences)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down adjustment (1979): the chance of any false finding among all comparisons stays below the level.

    Comparisons without a p value are not counted.
    """
    ranked = sorted((p, place) for place, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, place) in enumerate(ranked):
        largest = max(largest, min(1.0, (len(ranked) - rank) * p))
        adjusted[place] = largest
    return adjusted


def t_cdf(t: float, dof: int) -> float:
    """Student's distribution function, by the finite sums for whole degrees of freedom.

    Abramowitz & Stegun, 26.7.3 and 26.7.4.
    """
    angle = math.atan2(abs(t), math.sqrt(dof))
    cos, sin = math.cos(angle), math.sin(angle)
    term, total = (cos, 0.0) if dof % 2 else (1.0, 0.0)
    for k in range(1 + dof % 2, dof, 2):  # cos^k times the product of (j - 1) / j
        total += term
        term *= cos**2 * k / (k + 1)
    within = 2 / math.pi * (angle + sin * total) if dof % 2 else sin * total
    return 0.5 + math.copysign(within / 2, t)


def t_quantile(p: float, dof: int) -> float:
    """The value below which a share ``p`` of Student's distribution lies, by bisection."""
    if p < 0.5:
        return -t_quantile(1 - p, dof)
    low, high = 0.0, 1.0
    while t_cdf(high, dof) < p:
        high *= 2
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if t_cdf(middle, dof) < p else (low, middle)
    return (low + high) / 2


def pareto_front(costs: Sequence[float], losses: Sequence[float]) -> list[int]:
    """Places of the points that no other point beats: cheaper and as good, or better and as cheap; by rising cost."""
    order = sorted(range(len(costs)), key=lambda place: (costs[place], losses[place]))
    front: list[int] = []
    for place in order:
        same = front and (costs[place], losses[place]) == (costs[front[-1]], losses[front[-1]])
        if not front or losses[place] < losses[front[-1]] or same:
            front.append(place)
    return front


def held_out_choice(scores: Sequence[Sequence[float]]) -> float | None:
    """What the lowest mean is worth on a seed that did not help to choose it, averaged over all seeds.

    Args:
        scores: a row a configuration, a column a seed; lower is better. The lowest mean of noisy means is too low by
            selection; this estimate is not.
    """
    n_seeds = min(map(len, scores), default=0)
    if n_seeds < 2 or any(len(row) != n_seeds for row in scores):
        return None
    held_out = [
        min(scores, key=lambda row, seed=seed: math.fsum(row) - row[seed])[seed]  # the sum of the other seeds
        for seed in range(n_seeds)
    ]
    return math.fsum(held_out) / n_seeds
