"""Pictures of a run and of several models, drawn without pyplot: no global state, no window."""

import csv
import io
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, FormatStrFormatter, LogLocator, MaxNLocator, NullLocator, PercentFormatter

from lumi.errors import DataError

INK, FAINT, GRID = "#1f2937", "#6b7280", "#e5e7eb"
TRAIN, VAL = "#93b4e8", "#1d4ed8"
MODELS = ("#1d4ed8", "#ea580c", "#7c3aed", "#db2777", "#0891b2", "#4d7c0f")
LEVELS = {"unigram": "#9ca3af", "n-gram": "#d97706", "xz": "#b45309", "exact": "#059669"}
PALE = {"n-gram": "#fde6c4", "xz": "#f1d9c5", "exact": "#bfe9d8"}

_BITS = "val/bits_per_byte"
_COARSE, _FINE = (1, 1.5, 2, 3, 4, 6, 8), (1, 1.2, 1.4, 1.6, 1.8, 2, 2.25, 2.5, 3, 3.5, 4, 5, 6, 7, 8, 9)

Series = tuple[np.ndarray, np.ndarray]
"""Tokens or steps, and values."""


def read_metrics(path: Path) -> dict[str, Series]:
    """Every column of a ``metrics.csv`` against the tokens seen (against steps where tokens were not logged).

    Raises:
        DataError: the file is missing, or is not a table of numbers with a ``step`` column.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            # A row that is too short was cut by a kill.
            rows = [row for row in csv.DictReader(file) if None not in row.values()]
        names = list(rows[0]) if rows else ["step"]
        columns = {name: np.array([float(row[name] or "nan") for row in rows]) for name in names}
        steps = columns.pop("step")
    except FileNotFoundError:
        raise DataError(f"{path}", "does not exist", "give the metrics.csv of a run") from None
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}", f"is not a table of metrics by step ({error!r})") from None
    tokens = columns.get("progress/tokens", np.full(len(rows), np.nan))
    known = np.isfinite(tokens)
    place = np.interp(steps, steps[known], tokens[known]) if known.any() else steps
    measured = {name: np.isfinite(values) for name, values in columns.items()}
    return {name: (place[there], columns[name][there]) for name, there in measured.items() if there.any()}


def plot_loss(metrics: Mapping[str, Series], references: Mapping[str, Mapping[str, float | None]]) -> bytes:
    """The loss over training, and for each source its bits per byte among the references, as PNG.

    Args:
        metrics: of `read_metrics`.
        references: source → name (``unigram``, ``n-gram``, ``xz``, ``exact``) → bits per byte, drawn as a level line.
    """
    sources = [name for name in references if f"{_BITS}/{name}" in metrics]
    panels = [(name, metrics[f"{_BITS}/{name}"]) for name in sources]
    if not panels and _BITS in metrics:
        panels = [("", metrics[_BITS])]
    figure, axes = new_figure(1 + len(panels))
    _draw_losses(axes[0], metrics)
    only = next(iter(references), "") if len(references) == 1 else ""
    for ax, (name, series) in zip(axes[1:], panels, strict=True):
        _draw_bits(ax, name or only, series, references.get(name or only, {}))
    return png(figure)


def plot_comparison(
    models: Mapping[str, Mapping[str, float]], references: Mapping[str, Mapping[str, float | None]]
) -> bytes:
    """Bits per byte of several models, a panel a source, with the references as pale bars below them, as PNG.

    Args:
        models: model → source → bits per byte.
        references: source → name → bits per byte.
    """
    sources = list(dict.fromkeys(source for scores in models.values() for source in scores))
    figure, axes = new_figure(max(1, len(sources)), height=1.0 + 0.36 * (len(models) + 3))
    for ax, source in zip(axes, sources, strict=False):
        bars = [
            (model, scores[source], color)
            for (model, scores), color in zip(models.items(), itertools.cycle(MODELS), strict=False)
            if source in scores
        ]
        # Unigram is left out: it is so far off that the others would look alike.
        levels = {name: value for name, value in references.get(source, {}).items() if name != "unigram"}
        bars += [(name, value, PALE[name]) for name, value in levels.items() if value is not None]
        names, values, colors = zip(*bars, strict=True)
        drawn = ax.barh(range(len(bars)), values, height=0.66, color=colors)
        ax.set_yticks(range(len(bars)), names)
        ax.bar_label(drawn, fmt="%.3f", padding=4, color=INK, fontsize=9)
        ax.invert_yaxis()
        ax.grid(visible=False, axis="y")
        ax.set_xlim(0, 1.14 * max(values))
        title(ax, f"{source} · bits per byte, lower is better")
    return png(figure)


def plot_shares(models: Mapping[str, Mapping[str, tuple[float, float, float]]]) -> bytes:
    """Shares from 0 to 1 of several models, a group of bars a measure, with their intervals, as PNG.

    Args:
        models: model → measure → share, lower and upper end of its interval.
    """
    measures = list(dict.fromkeys(name for shares in models.values() for name in shares))
    thickness = 0.8 / max(1, len(models))
    figure, (ax,) = new_figure(1, height=1.2 + len(measures) * max(0.3, 0.16 * len(models)))
    for number, ((model, shares), color) in enumerate(zip(models.items(), itertools.cycle(MODELS), strict=False)):
        there = [row for row, name in enumerate(measures) if name in shares]
        values = np.array([shares[measures[row]] for row in there]).reshape(-1, 3)  # share, low, high
        places = np.array(there) + (number - (len(models) - 1) / 2) * thickness
        errors = np.abs(values[:, 1:] - values[:, :1]).T
        ax.barh(places, values[:, 0], height=0.9 * thickness, color=color, label=model)
        ax.errorbar(values[:, 0], places, xerr=errors, fmt="none", ecolor=INK, elinewidth=0.7)
    ax.set_yticks(range(len(measures)), measures)
    ax.invert_yaxis()
    ax.grid(visible=False, axis="y")
    ax.set_xlim(0, 1)
    ax.margins(y=0.01)
    ax.xaxis.set_major_formatter(PercentFormatter(1.0))
    ax.legend(frameon=False, labelcolor=INK, loc="upper center", bbox_to_anchor=(0.4, -0.05), ncols=3)
    title(ax, "share with 95 % interval")
    return png(figure)


def _draw_losses(ax: Axes, metrics: Mapping[str, Series]) -> None:
    """Training and validation loss in nats per token."""
    if "train/loss" in metrics:
        ax.plot(*metrics["train/loss"], color=TRAIN, lw=1.0, label="training")
    if "val/loss" in metrics:
        ax.plot(*metrics["val/loss"], color=VAL, lw=1.6, marker="o", ms=2.5, label="validation")
    if ax.lines:
        ax.legend(frameon=False, labelcolor=INK)
    title(ax, "loss · nats per token")
    _scales(ax)


def _draw_bits(ax: Axes, source: str, series: Series, levels: Mapping[str, float | None]) -> None:
    """Bits per byte of one source, with level lines for what else is known of it."""
    ax.plot(*series, color=VAL, lw=1.6, marker="o", ms=2.5, zorder=3)
    labels = [(float(series[1][-1]), "model", VAL)]
    for name, value in levels.items():
        if value is not None:
            ax.axhline(value, color=LEVELS[name], lw=1.1, ls=(0, (5, 3)), zorder=1)
            labels.append((value, name, LEVELS[name]))
    title(ax, f"{source or 'validation'} · bits per byte")
    _scales(ax)
    _label_right(ax, sorted(labels))


def _label_right(ax: Axes, labels: Sequence[tuple[float, str, str]]) -> None:
    """Names and values of what is at the right edge, in ascending order and moved apart where they would overlap."""
    low, high = np.log(ax.get_ylim())
    place = -np.inf
    for value, name, color in labels:
        place = max((np.log(value) - low) / (high - low), place + 0.06)
        ax.annotate(
            f"{name} {value:.3f}",
            (1.0, place),
            (6, 0),
            xycoords="axes fraction",
            textcoords="offset points",
            color=color,
            fontsize=9,
            fontweight="bold" if name == "model" else "normal",
            va="center",
        )


def _scales(ax: Axes) -> None:
    """Tokens along, logarithm up: equal distances are equal ratios, and the last percent stays visible."""
    ax.set_yscale("log")
    low, high = ax.get_ylim()
    ax.yaxis.set_major_locator(LogLocator(base=10, subs=_COARSE if high > 4 * low else _FINE))
    ax.yaxis.set_major_formatter(FormatStrFormatter("%g"))
    ax.yaxis.set_minor_locator(NullLocator())
    ax.set_xlabel("training tokens")
    ax.xaxis.set_major_formatter(EngFormatter(sep=""))
    ax.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    ax.margins(x=0.01)


def title(ax: Axes, text: str) -> None:
    """What a panel shows, above its left edge."""
    ax.set_title(text, loc="left", color=INK, fontsize=10.5, fontweight="bold", pad=10)


def new_figure(n_panels: int, height: float = 3.6) -> tuple[Figure, list[Axes]]:
    """A figure with up to three panels a row."""
    n_columns = min(3, n_panels)
    n_rows = -(-n_panels // n_columns)
    figure = Figure(figsize=(5.6 * n_columns, height * n_rows), dpi=150, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    grid = figure.subplots(n_rows, n_columns, squeeze=False)
    axes = list(grid.flat)
    for ax in axes[n_panels:]:
        ax.set_visible(False)
    for ax in axes[:n_panels]:
        ax.spines[["top", "right"]].set_visible(False)
        ax.spines[["left", "bottom"]].set_color(GRID)
        ax.tick_params(colors=FAINT, labelsize=9, length=0)
        ax.xaxis.label.set_color(FAINT)
        ax.grid(color=GRID, lw=0.8)
        ax.set_axisbelow(True)
    return figure, axes[:n_panels]


def png(figure: Figure) -> bytes:
    """The file's bytes, the same for the same figure."""
    data = io.BytesIO()
    figure.savefig(data, format="png", metadata={"Software": None})
    return data.getvalue()
