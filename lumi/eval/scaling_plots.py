"""Pictures of a scaling law: loss by size at each cost with its parabola, and predicted against measured."""

import itertools
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import EngFormatter, LogLocator, NullLocator

from lumi.eval.plots import FAINT, GRID, INK, MODELS, new_figure, png, title
from lumi.eval.scaling import Law, Parabola, Point, Target


def plot_scaling(points: Sequence[Point], law: Law, curves: Sequence[Parabola], targets: Sequence[Target]) -> bytes:
    """Two panels as PNG: the parabolas of approach 2, and the law of approach 3 against what was measured."""
    figure, (left, right) = new_figure(2)
    _draw_parabolas(left, points, curves)
    _draw_law(right, points, law, targets)
    return png(figure)


def _draw_parabolas(ax: Axes, points: Sequence[Point], curves: Sequence[Parabola]) -> None:
    for curve, color in zip(curves, itertools.cycle(MODELS), strict=False):
        group = [p for p in points if 0.85 < p.flops / curve.flops < 1.15]
        sizes = np.array([p.n_params for p in group])
        ax.plot(sizes, [p.loss for p in group], "o", color=color, ms=4, label=f"{curve.flops:.0e} operations")
        along = np.geomspace(sizes.min(), sizes.max(), 60)
        ax.plot(along, [curve.at(n) for n in along], color=color, lw=1.2)
        if curve.n_params is not None and curve.loss is not None:
            ax.plot([curve.n_params], [curve.loss], "v", color=color, ms=8, mfc="white")
    ax.set_xscale("log")
    ax.xaxis.set_major_locator(LogLocator(base=10, subs=(1, 2, 5)))
    ax.xaxis.set_major_formatter(EngFormatter(sep=""))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xlabel("parameters")
    ax.legend(frameon=False, labelcolor=INK, fontsize=9)
    title(ax, "validation loss at one cost · nats per token")


def _draw_law(ax: Axes, points: Sequence[Point], law: Law, targets: Sequence[Target]) -> None:
    said = [law.loss(p.n_params, p.n_tokens) for p in points]
    ax.plot([p.loss for p in points], said, "o", color=MODELS[0], ms=4, label="fitted")
    held = [(t.measured, law.loss(t.n_params, t.n_tokens), t.name) for t in targets if t.measured is not None]
    if held:
        ax.plot([m for m, _, _ in held], [s for _, s, _ in held], "D", color=MODELS[1], ms=6, label="held out")
    for measured, value, name in held:
        ax.annotate(name, (measured, value), (8, -4), textcoords="offset points", color=FAINT, fontsize=9)
    ends = [*(p.loss for p in points), *said, *(m for m, _, _ in held)]
    line = (min(ends) * 0.97, max(ends) * 1.03)
    ax.plot(line, line, color=GRID, lw=1.2, zorder=0)
    ax.set_xlabel("measured")
    ax.legend(frameon=False, labelcolor=INK, fontsize=9)
    title(ax, "loss by the law against measured")
