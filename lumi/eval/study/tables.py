"""The tables of a report, sorted, each number with the unrounded one that it is sorted by."""

import math

from lumi.eval.study import figures
from lumi.eval.study.analysis import LEVEL, Analysis, Configuration
from lumi.eval.study.document import Cell, Pieces, Strong, Table
from lumi.eval.study.factors import Factor
from lumi.eval.study.numbers import (
    count,
    duration,
    interval,
    large,
    operations,
    probability,
    score,
    signed,
    with_spread,
)
from lumi.eval.table import number

_COSTS = (
    (figures.PARAMETERS, "parameters", large),
    (figures.TOKENS, "tokens", large),
    (figures.FLOPS, "FLOPs", operations),
    (figures.SECONDS, "time", duration),
    (figures.SPEED, "tokens/s", large),
)
_MOST_KEYS = 8


def factors_table(analysis: Analysis) -> Table:
    """What was varied."""
    rows = [[Cell(factor.name), Cell(", ".join(factor.levels)), Cell(_keys(factor))] for factor in analysis.factors]
    rows.append([Cell("seed"), Cell(", ".join(map(str, analysis.seeds))), Cell("replicates")])
    return Table(
        ["What varies between the runs."], ["factor", "levels", "settings that change with it"], rows, n_labels=3
    )


def results_table(analysis: Analysis) -> Table:
    """Every configuration with its metric and what it cost, best first."""
    bits = _second_metric(analysis)
    costs = [cost for cost in _COSTS if any(cost[0] in one.figures for one in analysis.configurations)]
    tokens = {one.figures[figures.TOKENS].mean for one in analysis.configurations if figures.TOKENS in one.figures}
    costs = [
        cost for cost in costs if cost[0] not in (analysis.metric, *([figures.TOKENS] if len(tokens) == 1 else []))
    ]
    names = [factor.name for factor in analysis.factors] or ["run"]
    header = [*names, "n", analysis.metric, "95 % interval", *([bits] if bits else []), *(word for _, word, _ in costs)]
    rows = [
        _result(one, [bits] if bits else [], costs, is_best=place == 0)
        for place, one in enumerate(analysis.configurations)
    ]
    direction = "higher is better" if analysis.higher_is_better else "lower is better"
    caption: Pieces = [
        Strong(f"{analysis.metric}, {direction}. "),
        "Mean ± standard deviation over n seeds, with the 95 % confidence interval of the mean (Student's t); costs are "
        "means. Best first.",
        f" All configurations saw {large(tokens.pop())} tokens." if len(tokens) == 1 else "",
    ]
    return Table(caption, header, rows, n_labels=len(names), marks_best=True)


def comparisons_table(analysis: Analysis) -> Table:
    """Paired differences with the baseline."""
    header = ["configuration", "baseline", "pairs", "difference", "95 % interval", "p (t)", "p (exact)", "p (Holm)"]
    rows = []
    for one in analysis.comparisons:
        found, holds = one.paired.difference, one.p_holm is not None and one.p_holm < LEVEL
        rows.append(
            [
                Cell(analysis.configurations[one.configuration].name),
                Cell(analysis.configurations[one.baseline].name),
                Cell(str(found.n), found.n),
                Cell(signed(found.mean), found.mean, is_strong=holds),
                Cell(interval(found, sign=True), found.low),
                Cell(probability(one.paired.p), one.paired.p),
                Cell(probability(one.paired.p_exact), one.paired.p_exact),
                Cell(probability(one.p_holm), one.p_holm),
            ]
        )
    caption: Pieces = [
        Strong("Differences from the baseline, seed by seed. "),
        f"Negative is lower. p (Holm) is the t test's p adjusted for {count(len(rows), 'comparison')}; "
        "what holds at 5 % is bold.",
    ]
    return Table(caption, header, rows, n_labels=2)


def front_table(analysis: Analysis) -> Table:
    """The configurations that no other one beats in the metric and a cost."""
    places = {place for front in analysis.fronts.values() for place in front}
    costs = [cost for cost in _COSTS if cost[0] in analysis.fronts]
    header = [
        "configuration",
        analysis.metric,
        *(word for _, word, _ in costs),
        *(f"front by {word}" for _, word, _ in costs),
    ]
    rows = []
    for place in sorted(places, key=lambda place: (analysis.configurations[place].figures[costs[0][0]].mean, place)):
        one = analysis.configurations[place]
        spent = [_cost(one, key, words) for key, _, words in costs]
        marks = [
            Cell("yes" if place in analysis.fronts[key] else "", float(place in analysis.fronts[key]))
            for key, _, _ in costs
        ]
        rows.append([Cell(one.name), Cell(score(one.score.mean), one.score.mean), *spent, *marks])
    return Table([Strong("The Pareto front. "), "No other configuration is both cheaper and better."], header, rows)


def left_out_table(analysis: Analysis) -> Table:
    """What became of the runs that do not count."""
    header = ["run", "overrides", "state", "how far", f"last {analysis.metric}", "error"]
    rows = []
    for run in analysis.left_out:
        said = " ".join(f"{key}={value}" for key, value in run.overrides.items())
        done, last = run.values.get("progress/percent"), run.values.get(analysis.metric)
        last = last if last is not None and math.isfinite(last) else None
        how_far = Cell("–" if done is None else f"{done:.0f} %", done)
        rows.append([Cell(run.name), Cell(said), Cell(run.state), how_far, Cell(score(last), last), Cell(run.error)])
    return Table(["Runs that do not count."], header, rows, n_labels=6)


def effects_table(analysis: Analysis) -> Table:
    """The mean of all configurations at each level of each factor."""
    rows = []
    for place, factor in enumerate(analysis.factors):
        for level in factor.levels:
            means = [one.score.mean for one in analysis.configurations if one.levels[place] == level]
            mean, best = math.fsum(means) / len(means), (max if analysis.higher_is_better else min)(means)
            rows.append(
                [
                    Cell(factor.name),
                    Cell(level),
                    Cell(str(len(means)), len(means)),
                    Cell(score(mean), mean),
                    Cell(score(best), best),
                ]
            )
    caption: Pieces = [
        Strong("Main effects. "),
        "Mean and best of the configurations at each level; an average over the other factors, whatever they do together.",
    ]
    return Table(caption, ["factor", "level", "configurations", f"mean {analysis.metric}", "best"], rows, n_labels=2)


def _keys(factor: Factor) -> str:
    others = [key for key in factor.keys if key != factor.name]
    more = len(others) - _MOST_KEYS
    return ", ".join(others[:_MOST_KEYS]) + (f", and {more} more" if more > 0 else "")


def _second_metric(analysis: Analysis) -> str | None:
    """Bits per byte beside another metric: of the evaluation where there was one, else of the last validation."""
    for metric in (figures.EVAL_BITS, figures.VAL_BITS):
        if metric != analysis.metric and any(metric in one.figures for one in analysis.configurations):
            return metric
    return None


def _result(one: Configuration, others: list[str], costs: list, *, is_best: bool) -> list[Cell]:
    labels = [Cell(level, _as_number(level)) for level in one.levels] or [Cell(one.name)]
    figure = Cell(with_spread(one.score), one.score.mean, is_strong=is_best)
    more = [
        Cell(score(found.mean), found.mean) if (found := one.figures.get(name)) else Cell(number(None))
        for name in others
    ]
    spent = [_cost(one, key, words) for key, _, words in costs]
    return [
        *labels,
        Cell(str(one.score.n), one.score.n),
        figure,
        Cell(interval(one.score), one.score.low),
        *more,
        *spent,
    ]


def _cost(one: Configuration, key: str, words) -> Cell:
    found = one.figures.get(key)
    return Cell(number(None)) if found is None else Cell(words(found.mean), found.mean)


def _as_number(level: str) -> float | None:
    try:
        value = float(level)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
