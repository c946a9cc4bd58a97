"""Pictures of what the factors did: differences with their intervals, heat map, main effects, parallel coordinates."""

import itertools
import math
from collections.abc import Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, LinearSegmentedColormap, Normalize
from matplotlib.patches import PathPatch, Rectangle
from matplotlib.path import Path as Line

from lumi.eval.plots import FAINT, GRID, INK
from lumi.eval.study import figures
from lumi.eval.study.analysis import LEVEL, Analysis, Comparison
from lumi.eval.study.drawing import (
    COLORS,
    ONE_COLUMN,
    PALE,
    TWO_COLUMNS,
    canvas,
    compact,
    log_scale,
    name_panel,
    png,
    shown,
)
from lumi.eval.study.factors import Factor

MOST_ROWS = 40


def plot_differences(analysis: Analysis) -> bytes | None:
    """Paired differences with the baseline, their 95 % intervals, filled where they hold after Holm, as PNG."""
    rows = list(analysis.comparisons)[:MOST_ROWS]
    if not rows:
        return None
    figure, (ax,) = canvas(width=TWO_COLUMNS, height=1.0 + 0.27 * len(rows))
    low, high = _reach(rows)
    for place, one in enumerate(rows):
        _draw_difference(ax, analysis, one, place, (low, high))
    ax.axvline(0, color=INK, lw=0.9)
    ax.set_xlim(low, high)
    ax.set_yticks(range(len(rows)), [shown(analysis.configurations[one.configuration].name, 60) for one in rows])
    ax.invert_yaxis()
    ax.grid(visible=False, axis="y")
    better, worse = ("better →", "← worse") if analysis.higher_is_better else ("← better", "worse →")
    left, right = (worse, better) if analysis.higher_is_better else (better, worse)
    ax.set_xlabel(f"{left}    difference in {shown(figures.title(analysis.metric), 40)}    {right}")
    return png(figure)


def plot_heat_map(analysis: Analysis) -> bytes | None:
    """The mean metric over two factors, the best framed, as PNG; None for any other number of factors."""
    if len(analysis.factors) != 2 or max(len(factor.levels) for factor in analysis.factors) > 16:
        return None
    upright, along = analysis.factors
    values = np.full((len(upright.levels), len(along.levels)), np.nan)
    for one in analysis.configurations:
        values[upright.levels.index(one.levels[0]), along.levels.index(one.levels[1])] = one.score.mean
    figure, (ax,) = canvas(
        width=max(ONE_COLUMN, 1.2 + 0.58 * len(along.levels)), height=1.3 + 0.5 * len(upright.levels)
    )
    colors = _colors(analysis)
    scale = _range(analysis)
    ax.grid(visible=False)
    ax.spines[:].set_visible(False)
    ax.pcolormesh(np.ma.masked_invalid(values), cmap=colors, norm=scale, edgecolors="white", lw=2)
    for row, column in itertools.product(*map(range, values.shape)):
        _write_cell(ax, values[row, column], row, column, colors(scale(values[row, column])))
    best = analysis.configurations[0].levels
    place = (along.levels.index(best[1]), upright.levels.index(best[0]))
    ax.add_patch(Rectangle(place, 1, 1, fill=False, ec=COLORS[4], lw=2.6, zorder=4, clip_on=False))
    ax.set_xticks(np.arange(len(along.levels)) + 0.5, [shown(level, 16) for level in along.levels])
    ax.set_yticks(np.arange(len(upright.levels)) + 0.5, [shown(level, 22) for level in upright.levels])
    ax.set_xlabel(shown(along.name))
    ax.set_ylabel(shown(upright.name))
    bar = figure.colorbar(ScalarMappable(scale, colors), ax=ax, pad=0.02, aspect=18)
    bar.ax.tick_params(colors=FAINT, labelsize=8.5, length=0)
    bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
    name_panel(ax, figures.title(analysis.metric))
    return png(figure)


def plot_main_effects(analysis: Analysis) -> bytes | None:
    """A panel a factor: the mean of all configurations at each level, and a dot for each of them, as PNG."""
    factors = [factor for factor in analysis.factors if len(factor.levels) > 1][:6]
    if not factors:
        return None
    n_columns = min(3, len(factors))
    n_rows = -(-len(factors) // n_columns)
    width = TWO_COLUMNS if is_wide(analysis) else ONE_COLUMN
    figure, axes = canvas(
        n_columns, n_rows, width=width, height=(2.9 if is_wide(analysis) else 3.3) * n_rows, shared=True
    )
    for ax in axes[len(factors) :]:
        ax.set_visible(False)
    for place, (ax, factor) in enumerate(zip(axes, factors, strict=False)):
        _draw_effect(ax, analysis, factor)
        ax.set_xlabel(shown(factor.name))
        if place % n_columns == 0:
            ax.set_ylabel(shown(figures.title(analysis.metric), 40))
    return png(figure)


def is_wide(analysis: Analysis) -> bool:
    """Whether the main effects take the whole page: more than two of them, or one with many levels."""
    return len(analysis.factors) > 2 or any(len(factor.levels) > 6 for factor in analysis.factors)


def plot_parallel(analysis: Analysis) -> bytes | None:
    """Parallel coordinates: a line a configuration through all its levels to its metric, the best dark, as PNG."""
    if len(analysis.factors) < 2 or len(analysis.configurations) < 3:
        return None
    factors = list(analysis.factors)[:7]
    figure, (ax,) = canvas(width=TWO_COLUMNS, height=3.2)
    colors, scale = _colors(analysis), _range(analysis)
    n_axes, found = len(factors) + 1, list(analysis.configurations)
    for rank, one in reversed(list(enumerate(found))):
        heights = [_height(factor, level) for factor, level in zip(factors, one.levels, strict=False)]
        nudge = 0.035 * (rank / max(1, len(found) - 1) - 0.5)  # lines through the same level do not hide each other
        heights = [height + nudge for height in heights] + [_share(scale, one.score.mean)]
        patch = PathPatch(
            _curve(heights), fc="none", ec=colors(scale(one.score.mean)), lw=2.6 if rank == 0 else 1.2, alpha=0.95
        )
        ax.add_patch(patch)
    ax.grid(visible=False)
    ax.spines[:].set_visible(False)
    for place in range(n_axes):
        ax.axvline(place, color=FAINT, lw=0.9, zorder=1)
    for place, factor in enumerate(factors):
        levels = factor.levels if len(factor.levels) <= 8 else (factor.levels[0], factor.levels[-1])
        for level in levels:
            _write_level(ax, place, _height(factor, level), shown(level, 18), is_last=False)
    means = [one.score.mean for one in found]
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        _write_level(ax, n_axes - 1, share, f"{min(means) + share * (max(means) - min(means)):.4g}", is_last=True)
    ax.set_xticks(range(n_axes), [*(shown(factor.name, 24) for factor in factors), shown(analysis.metric, 24)])
    ax.tick_params(axis="x", colors=INK, labelsize=9)
    ax.set_yticks([])
    ax.set_xlim(-0.12, n_axes - 1 + 0.3)
    ax.set_ylim(-0.08, 1.08)
    return png(figure)


def _reach(rows: Sequence[Comparison]) -> tuple[float, float]:
    """The ends of the scale: zero, all means, and intervals but for those that would dwarf everything, as of two seeds."""
    means = [0.0, *(one.paired.difference.mean for one in rows)]
    span = max(means) - min(means) or 1.0
    ends = [end for one in rows for end in (one.paired.difference.low, one.paired.difference.high) if end is not None]
    near = [*means, *(max(min(means) - span, min(max(means) + span, end)) for end in ends)]
    margin = 0.06 * (max(near) - min(near))
    return min(near) - margin, max(near) + margin


def _draw_difference(ax: Axes, analysis: Analysis, one: Comparison, place: int, ends: tuple[float, float]) -> None:
    found = one.paired.difference
    holds = one.p_holm is not None and one.p_holm < LEVEL
    better = (found.mean > 0) == analysis.higher_is_better
    color = COLORS[0] if better else COLORS[1]
    if found.low is not None and found.high is not None:
        low, high = max(found.low, ends[0]), min(found.high, ends[1])
        ax.plot([low, high], [place, place], color=color, lw=1.5, solid_capstyle="butt")
        inset = 0.006 * (ends[1] - ends[0])
        if found.low < low:
            ax.plot(low + inset, place, "<", color=color, ms=4.5)
        if found.high > high:
            ax.plot(high - inset, place, ">", color=color, ms=4.5)
    ax.plot(found.mean, place, "o", ms=6, mfc=color if holds else "white", mec=color, mew=1.4, zorder=3)


def _write_cell(ax: Axes, value: float, row: int, column: int, color: Sequence[float]) -> None:
    if math.isnan(value):
        ax.text(column + 0.5, row + 0.5, "–", ha="center", va="center", color=FAINT, fontsize=9)
        return
    linear = [((part + 0.055) / 1.055) ** 2.4 for part in color[:3]]  # near enough for a choice between two inks
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    ink = "white" if luminance < 0.2 else INK
    text = f"{value:.3f}" if abs(value) < 1000 else compact(value)
    ax.text(column + 0.5, row + 0.5, text, ha="center", va="center", color=ink, fontsize=9)


def _draw_effect(ax: Axes, analysis: Analysis, factor: Factor) -> None:
    place = list(analysis.factors).index(factor)
    by_level = {
        level: [one.score.mean for one in analysis.configurations if one.levels[place] == level]
        for level in factor.levels
    }
    numbers = factor.numbers
    spread = numbers is not None and len(numbers) > 2
    xs = list(numbers) if numbers is not None and spread else list(range(len(factor.levels)))
    for x, scores in zip(xs, by_level.values(), strict=True):
        ax.plot([x] * len(scores), scores, "o", color=PALE, ms=4, mec="none")
    ax.plot(
        xs,
        [np.mean(scores) for scores in by_level.values()],
        "-" if spread else "--",
        color=COLORS[0],
        lw=1.6,
        marker="o",
        ms=6,
    )
    if numbers is not None and spread:
        if min(numbers) > 0 and max(numbers) / min(numbers) >= 8:
            ax.set_xlim(min(numbers) / 1.3, max(numbers) * 1.3)
            log_scale(ax, "x")
        if len(numbers) <= 7:
            ax.set_xticks(numbers, [shown(level, 9) for level in factor.levels])
        return
    ax.set_xlim(-0.4, len(xs) - 0.6)
    many = len(factor.levels) > 4 or max(map(len, factor.levels)) > 10
    ax.set_xticks(
        xs, [shown(level, 20) for level in factor.levels], rotation=30 if many else 0, ha="right" if many else "center"
    )


def _colors(analysis: Analysis) -> Colormap:
    """Light is worse and dark is better; the lightest end, which white paper swallows, is left out."""
    base = colormaps["viridis_r" if analysis.higher_is_better else "viridis"]
    ends = np.linspace(0.1, 1.0, 256) if analysis.higher_is_better else np.linspace(0.0, 0.9, 256)
    return LinearSegmentedColormap.from_list("metric", base(ends))


def _range(analysis: Analysis) -> Normalize:
    means = [one.score.mean for one in analysis.configurations]
    low, high = min(means), max(means)
    return Normalize(low, high if high > low else low + 1.0)


def _share(scale: Normalize, value: float) -> float:
    return float(scale(value))


def _height(factor: Factor, level: str) -> float:
    """Where a level is on its axis, from 0 to 1: by its number, its logarithm where they span much, else its rank."""
    numbers, place = factor.numbers, factor.levels.index(level)
    if numbers is None or numbers[0] == numbers[-1]:
        return place / max(1, len(factor.levels) - 1)
    if numbers[0] > 0 and numbers[-1] / numbers[0] >= 8:
        return math.log(numbers[place] / numbers[0]) / math.log(numbers[-1] / numbers[0])
    return (numbers[place] - numbers[0]) / (numbers[-1] - numbers[0])


def _curve(heights: Sequence[float]) -> Line:
    """From axis to axis in smooth bends, so that an eye can follow one line through a crossing."""
    points, codes = [(0.0, heights[0])], [Line.MOVETO]
    for place, (before, after) in enumerate(itertools.pairwise(heights)):
        points += [(place + 0.4, before), (place + 0.6, after), (place + 1.0, after)]
        codes += [Line.CURVE4] * 3
    return Line(points, codes)


def _write_level(ax: Axes, place: int, height: float, text: str, *, is_last: bool) -> None:
    ax.annotate(
        text, (place, height), (6 if is_last else -5, 0), textcoords="offset points", ha="left" if is_last else "right",
        va="center", color=INK, fontsize=8.5, bbox={"fc": "white", "ec": GRID, "lw": 0.5, "pad": 1.2, "alpha": 0.85}, zorder=5,
    )  # fmt: skip
