"""Pictures of what was spent: learning curves against tokens and operations, and the Pareto front of loss against cost."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from lumi.eval.plots import INK, Series
from lumi.eval.study import figures
from lumi.eval.study.analysis import Analysis, Configuration
from lumi.eval.study.drawing import (
    TWO_COLUMNS,
    Look,
    canvas,
    compact,
    legend,
    log_scale,
    looks,
    name_panel,
    png,
    shown,
)

TRAIN, VAL = "train/loss", "val/loss"
_BEGINNING = 0.2
"""The share of a run whose losses may be above the picture: the first steps would flatten everything after them."""


def plot_curves(analysis: Analysis) -> bytes | None:
    """Validation and training loss, a row each, against tokens and operations, as PNG; None where nothing was logged.

    Every configuration is the mean over its seeds with the range that they cover.
    """
    metrics = [metric for metric in (_validation(analysis), TRAIN) if metric and _has(analysis, metric)]
    if not metrics:
        return None
    costs = ["tokens", "FLOPs"] if _operations_differ(analysis) else ["tokens"]
    width = TWO_COLUMNS if len(costs) == 2 or len(metrics) == 2 else TWO_COLUMNS / 2
    panels = [(metric, cost) for metric in metrics for cost in costs]
    n_columns = 2 if len(panels) > 1 else 1
    n_rows = -(-len(panels) // n_columns)
    figure, axes = canvas(n_columns, n_rows, width=width, height=0.7 + 2.7 * n_rows, shared=True)
    drawn = [_draw(ax, analysis, metric, cost) for ax, (metric, cost) in zip(axes, panels, strict=True)]
    _limit(axes[0], [values for panel in drawn for values in panel])
    for place, (ax, (metric, cost)) in enumerate(zip(axes, panels, strict=True)):
        ax.set_xlabel("training tokens" if cost == "tokens" else "training compute (FLOPs)")
        if place % n_columns == 0 or metric != panels[place - 1][0]:
            name_panel(ax, figures.title(metric))
        ax.margins(x=0.01)
        ax.xaxis.set_major_formatter(lambda value, _: compact(value))
    legend(figure, analysis, is_wide=width == TWO_COLUMNS)
    return png(figure)


def plot_pareto(analysis: Analysis) -> bytes | None:
    """The metric against compute and training time, all seeds as dots and the fronts as steps, as PNG; None without costs."""
    costs = [cost for cost in analysis.fronts if analysis.fronts[cost]]
    if not costs:
        return None
    figure, axes = canvas(len(costs), width=TWO_COLUMNS * len(costs) / 2, height=3.6, shared=True)
    for ax, cost in zip(axes, costs, strict=True):
        _draw_costs(ax, analysis, cost)
        ax.set_xlabel(figures.title(cost))
    axes[0].set_ylabel(shown(figures.title(analysis.metric), 60))
    legend(figure, analysis, is_wide=len(costs) > 1)
    return png(figure)


def over_seeds(curves: Sequence[Series]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Places, mean, lowest and highest of several curves, between the places where all of them are known."""
    low, high = max(x[0] for x, _ in curves), min(x[-1] for x, _ in curves)
    places = np.unique(np.concatenate([x for x, _ in curves]))
    places = places[(places >= low) & (places <= high)]
    values = np.array([np.interp(places, x, y) for x, y in curves])
    return places, values.mean(axis=0), values.min(axis=0), values.max(axis=0)


def smooth(series: Series, most: int = 60) -> Series:
    """Means of neighbouring points, at most ``most`` of them: a training loss is that of single batches."""
    x, y = series
    parts = np.array_split(np.arange(len(x)), min(most, len(x)))
    return np.array([x[part].mean() for part in parts]), np.array([y[part].mean() for part in parts])


def _validation(analysis: Analysis) -> str:
    """The metric itself where it has a curve, else the validation loss."""
    logged = VAL if figures.is_cost(analysis.metric) else analysis.metric
    return logged if _has(analysis, logged) else VAL


def _has(analysis: Analysis, metric: str) -> bool:
    return any(metric in run.curves for one in analysis.configurations for run in one.runs.values())


def _operations_differ(analysis: Analysis) -> bool:
    """Whether a token costs different configurations differently; otherwise both scales would show the same."""
    known = [run.flops_per_token for one in analysis.configurations for run in one.runs.values()]
    return all(known) and len(set(known)) > 1


def _draw(ax: Axes, analysis: Analysis, metric: str, cost: str) -> list[np.ndarray]:
    """All configurations in one panel, the best on top; returns the values that have to be seen."""
    seen = []
    pairs = list(zip(analysis.configurations, looks(analysis), strict=True))
    for rank, (one, look) in reversed(list(enumerate(pairs))):
        found = _curves(one, metric, cost)
        if found:
            places, mean, low, high = over_seeds(found)
            width = 0.8 if look.is_pale else 1.9 if rank == 0 else 1.3
            ax.plot(places, mean, color=look.color, ls=look.dashes, lw=width, zorder=3 if not look.is_pale else 2)
            if not look.is_pale and len(found) > 1:
                ax.fill_between(places, low, high, color=look.color, alpha=0.18, lw=0, zorder=1)
            seen.append(mean[places >= places[0] + _BEGINNING * (places[-1] - places[0])])
    return seen


def _curves(one: Configuration, metric: str, cost: str) -> list[Series]:
    found = []
    for run in one.runs.values():
        if metric in run.curves and len(run.curves[metric][0]):
            x, y = smooth(run.curves[metric]) if metric.startswith("train/") else run.curves[metric]
            there = np.isfinite(y)
            if there.any():
                found.append((x[there] * (run.flops_per_token or 1.0 if cost == "FLOPs" else 1.0), y[there]))
    return found


def _limit(ax: Axes, seen: Sequence[np.ndarray]) -> None:
    """From the lowest value to the highest after the beginning, by ratios."""
    values = np.concatenate([one for one in seen if len(one)]) if any(map(len, seen)) else np.array([])
    if not len(values) or values.min() <= 0:
        return
    margin = (values.max() / values.min()) ** 0.06
    ax.set_ylim(values.min() / margin, values.max() * margin)
    log_scale(ax, "y")


def _draw_costs(ax: Axes, analysis: Analysis, cost: str) -> None:
    front = analysis.fronts[cost]
    pairs = list(zip(analysis.configurations, looks(analysis), strict=True))
    there = [(place, one, look) for place, (one, look) in enumerate(pairs) if cost in one.figures]
    for place, one, look in there:
        _draw_point(ax, analysis, one, look, cost, is_best=place in front)
    points = [
        (analysis.configurations[place].figures[cost].mean, analysis.configurations[place].score.mean)
        for place in front
    ]
    xs, ys = zip(*points, strict=True)
    ax.step(xs, ys, where="post", color=INK, lw=1.0, zorder=2)
    costs = [one.figures[cost].mean for _, one, _ in there]
    ratio = max(costs) / min(costs) if min(costs) > 0 else 1.0
    if ratio > 1.05:
        ax.set_xlim(min(costs) / ratio**0.08, max(costs) * ratio**0.08)
        log_scale(ax, "x")
    else:
        ax.xaxis.set_major_formatter(lambda value, _: compact(value))


def _draw_point(ax: Axes, analysis: Analysis, one: Configuration, look: Look, cost: str, *, is_best: bool) -> None:
    """A configuration's mean, filled on the front and open behind it, and a dot for each of its seeds."""
    scores, costs = one.values(analysis.metric), one.values(cost)
    seeds = [seed for seed in scores if seed in costs]
    ax.plot(
        [costs[seed] for seed in seeds],
        [scores[seed] for seed in seeds],
        ".",
        color=look.color,
        ms=3.5,
        alpha=0.55,
        zorder=3,
    )
    ax.plot(
        one.figures[cost].mean, one.score.mean, look.marker, ms=7 if is_best else 6, mec=INK if is_best else look.color,
        mfc=look.color if is_best else "white", mew=0.8 if is_best else 1.2, zorder=4,
    )  # fmt: skip
