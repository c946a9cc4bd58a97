"""The statistics of a study: configurations with their intervals, comparisons with a baseline, the best, the Pareto fronts."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from lumi.errors import ConfigError, DataError, did_you_mean
from lumi.eval.study import figures
from lumi.eval.study.factors import Factor, Levels, configurations, find_factors, wanted_levels
from lumi.eval.study.reading import DIVERGED, FINISHED, Run, Study
from lumi.eval.study.statistics import Paired, Summary, compare_pairs, held_out_choice, holm, pareto_front, summarize

LEVEL = 0.05
COSTS = (figures.FLOPS, figures.SECONDS)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Configuration:
    """Runs that differ in their seed alone.

    Attributes:
        levels: of the factors, in their order.
        name: ``factor=level, …``; of a study without factors the run's.
        runs: seed → run.
        score: the metric over the seeds.
        figures: every other metric over those seeds that have it.
    """

    levels: Levels
    name: str
    runs: Mapping[Any, Run]
    score: Summary
    figures: Mapping[str, Summary]

    def values(self, metric: str) -> dict[Any, float]:
        """Seed → value of a metric."""
        return {seed: run.values[metric] for seed, run in self.runs.items() if metric in run.values}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison:
    """A configuration against another one over the seeds that both have: configuration minus baseline."""

    configuration: int
    baseline: int
    seeds: Sequence[Any]
    paired: Paired
    p_holm: float | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Analysis:
    """Everything that a report says.

    Attributes:
        configurations: best first.
        comparisons: with the baseline, by `configurations`.
        with_best: of every other configuration with the best one.
        baseline: factor → level, as it was chosen.
        fronts: cost → places of the configurations on the Pareto front, cheapest first.
        held_out: value of the best on a seed that did not choose it, see `held_out_choice`.
        left_out: runs that do not count, each with the reason as its state.
        replaced: runs that a later one with the same settings and seed replaces.
    """

    study: Study
    metric: str
    higher_is_better: bool
    factors: Sequence[Factor]
    configurations: Sequence[Configuration]
    baseline: Mapping[str, str]
    comparisons: Sequence[Comparison]
    with_best: Sequence[Comparison]
    fronts: Mapping[str, Sequence[int]]
    held_out: float | None
    left_out: Sequence[Run]
    replaced: Sequence[Run]

    @property
    def seeds(self) -> list[Any]:
        """Of all configurations."""
        return sorted(
            {seed for one in self.configurations for seed in one.runs}, key=lambda seed: (str(type(seed)), seed)
        )

    @property
    def told_apart(self) -> bool:
        """Whether there is any interval at all."""
        return any(one.score.n > 1 for one in self.configurations)


def analyse(study: Study, metric: str = "val/loss", baseline: Any = None) -> Analysis:
    """Compare the finished runs of a study by one metric.

    Raises:
        DataError: no run is finished, or none of them has the metric.
        ConfigError: the baseline is none of the study's configurations.
    """
    runs = _counted(study, metric)
    factors = find_factors(runs)
    higher = figures.higher_is_better(metric)
    groups = configurations(runs, factors)
    found = [_configuration(levels, group, factors, metric) for levels, group in groups.items()]
    found.sort(key=lambda one: -one.score.mean if higher else one.score.mean)
    wanted = {factor.name: level for factor, level in zip(factors, next(iter(groups)), strict=True)}
    if baseline is not None:
        wanted = wanted_levels(baseline, runs, factors)
    pairs = _pairs(found, factors, wanted)
    if baseline is not None and not pairs and len(found) > 1:
        said = ", ".join(f"{key}={value}" for key, value in wanted.items())
        rule = "meets no configuration that is otherwise equal"
        raise ConfigError(f"baseline={said}", rule, "give a level of every factor")
    sign = -1 if higher else 1
    costs = () if figures.is_cost(metric) else COSTS
    kept = {id(run) for one in found for run in one.runs.values()}
    return Analysis(
        study=study,
        metric=metric,
        higher_is_better=higher,
        factors=factors,
        configurations=found,
        baseline=wanted,
        comparisons=_compare(found, pairs, metric),
        with_best=_compare(found, [(place, 0) for place in range(1, len(found))], metric),
        fronts={cost: front for cost in costs if (front := _front(found, cost, sign))},
        held_out=_held_out(found, metric, sign),
        left_out=_left_out(study, metric),
        replaced=[run for run in runs if id(run) not in kept],
    )


def _held_out(found: Sequence[Configuration], metric: str, sign: int) -> float | None:
    """What the best is worth on a seed that did not choose it, where all configurations have the same seeds."""
    if len(found) < 2 or len({frozenset(one.runs) for one in found}) > 1:
        return None
    seeds = list(found[0].runs)
    worth = held_out_choice([[sign * one.values(metric)[seed] for seed in seeds] for one in found])
    return None if worth is None else sign * worth


def _counted(study: Study, metric: str) -> list[Run]:
    """The finished runs that have the metric."""
    finished = study.finished()
    if not finished:
        states = ", ".join(sorted({run.state for run in study.runs})) or "none"
        raise DataError(
            f"compare={study.folder}: {len(study.runs)} runs ({states})",
            "none is finished, so there is nothing to compare",
            "wait, or run the study again: what is finished stays",
        )
    runs = study.finished(metric)
    if not runs:
        known = {name for run in finished for name in run.values}
        if metric in known:
            raise DataError(
                f"metric={metric}", "is not a finite number in any finished run", did_you_mean("val/loss", known)
            )
        near = did_you_mean(metric, known)
        raise ConfigError(f"metric={metric}", "no finished run has this metric", near)
    return runs


def _left_out(study: Study, metric: str) -> list[Run]:
    """Runs that do not count, those without a finite value of the metric among them."""
    found = []
    for run in study.runs:
        if run.state != FINISHED:
            found.append(run)
        elif metric not in run.values:
            found.append(dataclasses.replace(run, state="without the metric"))
        elif not math.isfinite(run.values[metric]):
            found.append(dataclasses.replace(run, state=DIVERGED, error=f"{metric} is {run.values[metric]}"))
    return found


def _configuration(levels: Levels, group: Sequence[Run], factors: Sequence[Factor], metric: str) -> Configuration:
    runs = {run.seed: run for run in group}
    name = ", ".join(f"{factor.name}={level}" for factor, level in zip(factors, levels, strict=True)) or group[0].name
    known = dict.fromkeys(name for run in runs.values() for name in run.values)
    by_metric = {
        key: [run.values[key] for run in runs.values() if math.isfinite(run.values.get(key, math.nan))] for key in known
    }
    found = {key: summarize(values) for key, values in by_metric.items() if values}
    return Configuration(levels=levels, name=name, runs=runs, score=found[metric], figures=found)


def _pairs(
    found: Sequence[Configuration], factors: Sequence[Factor], wanted: Mapping[str, str]
) -> list[tuple[int, int]]:
    """(configuration, baseline): the one that has the wanted levels and is equal in all other factors."""
    places = {one.levels: place for place, one in enumerate(found)}
    pairs = []
    for place, one in enumerate(found):
        target = tuple(wanted.get(factor.name, level) for factor, level in zip(factors, one.levels, strict=True))
        if target != one.levels and target in places:
            pairs.append((place, places[target]))
    return pairs


def _compare(found: Sequence[Configuration], pairs: Sequence[tuple[int, int]], metric: str) -> list[Comparison]:
    """Differences over the seeds that both sides have, p values adjusted for the number of comparisons."""
    result = []
    for place, other in pairs:
        left, right = found[place].values(metric), found[other].values(metric)
        seeds = [seed for seed in left if seed in right]
        if seeds:
            paired = compare_pairs([left[seed] - right[seed] for seed in seeds])
            result.append(Comparison(configuration=place, baseline=other, seeds=seeds, paired=paired))
    adjusted = holm([one.paired.p for one in result])
    return [dataclasses.replace(one, p_holm=p) for one, p in zip(result, adjusted, strict=True)]


def _front(found: Sequence[Configuration], cost: str, sign: int) -> list[int]:
    there = [place for place, one in enumerate(found) if cost in one.figures]
    if len(there) < 2:
        return []
    front = pareto_front(
        [found[place].figures[cost].mean for place in there], [sign * found[place].score.mean for place in there]
    )
    return [there[place] for place in front]
