"""What all pictures of a study share: size, type, and a look for each configuration that a colour-blind reader can follow.

Widths are in inches of a page with two columns: a picture of one column still reads when it is printed 3.3 inches wide.
"""

import dataclasses
import io
import itertools

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

from lumi.eval.plots import FAINT, GRID, INK
from lumi.eval.study.analysis import Analysis
from lumi.eval.study.factors import Factor

ONE_COLUMN, TWO_COLUMNS = 4.4, 8.8
PALE = "#c3c8d0"
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
"""Okabe and Ito (2008): told apart with every common kind of colour vision."""
DASHES = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1.5, 2)))
MARKERS = ("o", "s", "^", "D", "v", "P")
MOST_CURVES, MOST_CROSSED = 12, 18
_MOST_LABEL = 34


@dataclasses.dataclass(frozen=True)
class Look:
    """Of a configuration in all pictures."""

    color: str
    dashes: str | tuple[int, tuple[float, ...]] = "-"
    marker: str = "o"
    is_pale: bool = False


def looks(analysis: Analysis) -> list[Look]:
    """One for each configuration: the factors as colour and dashes where that works, else the best ones in colours."""
    factors, found = analysis.factors, analysis.configurations
    if len(factors) == 1 and 3 <= len(found) <= MOST_CURVES and factors[0].numbers:
        places = [factors[0].levels.index(one.levels[0]) for one in found]
        shades = _colors_of(factors[0])
        return [Look(shades[place], marker=MARKERS[place % len(MARKERS)]) for place in places]
    if crossed := crossed_factors(analysis):
        colored, dashed = (factors[place] for place in crossed)
        shades = _colors_of(colored)
        pairs = [
            (colored.levels.index(one.levels[crossed[0]]), dashed.levels.index(one.levels[crossed[1]])) for one in found
        ]
        return [Look(shades[first], DASHES[second], MARKERS[second]) for first, second in pairs]
    if len(found) <= len(COLORS):
        return [Look(COLORS[place], DASHES[place % len(DASHES)], MARKERS[place]) for place in range(len(found))]
    named = [Look(color, marker=marker) for color, marker in zip(COLORS, MARKERS, strict=True)]
    return named + [Look(PALE, is_pale=True)] * (len(found) - len(named))


def crossed_factors(analysis: Analysis) -> tuple[int, int] | None:
    """Places of the two factors that colour and dashes can tell; None where there are others, or too many levels."""
    sizes = [len(factor.levels) for factor in analysis.factors]
    if len(sizes) != 2 or len(analysis.configurations) > MOST_CROSSED:
        return None
    order = (0, 1) if sizes[1] <= len(DASHES) else (1, 0)
    return order if sizes[order[0]] <= len(COLORS) and sizes[order[1]] <= len(DASHES) else None


def _colors_of(factor: Factor) -> list[str]:
    """Ordered shades for many numbers, distinct colours otherwise."""
    n_levels = len(factor.levels)
    if factor.numbers is None or (n_levels < 5 and len(COLORS) >= n_levels):
        return list(COLORS[:n_levels])
    return [to_hex(colormaps["viridis"](0.88 * place / (n_levels - 1))) for place in range(n_levels)]


def legend(figure: Figure, analysis: Analysis, *, is_wide: bool) -> None:
    """Below all panels: a row a factor where two are crossed, else the configurations that have a colour."""
    n_columns = 3 if is_wide else 1
    entries = [
        _line(look, one.name)
        for one, look in zip(analysis.configurations, looks(analysis), strict=True)
        if not look.is_pale
    ]
    if rest := len(analysis.configurations) - len(entries):
        entries.append(Line2D([], [], color=PALE, label=f"{rest} others"))
    if crossed := crossed_factors(analysis):
        colored, dashed = (analysis.factors[place] for place in crossed)
        colors = [
            Line2D([], [], color=color, lw=2.2, label=shown(f"{colored.name}={level}"))
            for level, color in zip(colored.levels, _colors_of(colored), strict=True)
        ]
        styles = zip(dashed.levels, DASHES, MARKERS, strict=False)
        others = [_line(Look(FAINT, dashes, marker), f"{dashed.name}={level}") for level, dashes, marker in styles]
        n_columns = max(len(colors), len(others)) if is_wide else 2
        pairs = itertools.zip_longest(colors, others, fillvalue=Line2D([], [], ls="", label=" "))
        entries = [entry for pair in pairs for entry in pair] if is_wide else [*colors, *others]
    figure.legend(
        handles=entries, loc="outside lower center", ncols=min(n_columns, len(entries)), frameon=False, fontsize=8.5,
        labelcolor=INK, handlelength=2.6,
    )  # fmt: skip


def _line(look: Look, name: str) -> Line2D:
    return Line2D([], [], color=look.color, ls=look.dashes, marker=look.marker, ms=4, label=shown(name))


def canvas(
    n_columns: int = 1, n_rows: int = 1, *, width: float = ONE_COLUMN, height: float = 3.2, shared: bool = False
) -> tuple[Figure, list[Axes]]:
    """A figure with its panels; ``shared`` gives all of them one scale upwards."""
    figure = Figure(figsize=(width, height), dpi=200, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    axes = list(figure.subplots(n_rows, n_columns, squeeze=False, sharey=shared).flat)
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
        ax.spines[["left", "bottom"]].set_color(GRID)
        ax.tick_params(colors=FAINT, labelsize=8.5, length=0)
        ax.xaxis.label.set(color=INK, fontsize=9)
        ax.yaxis.label.set(color=INK, fontsize=9)
        ax.grid(color=GRID, lw=0.7)
        ax.set_axisbelow(True)
    return figure, axes


def log_scale(ax: Axes, axis: str) -> None:
    """Equal distances are equal ratios, with a few round numbers beside them."""
    low, high = ax.get_xlim() if axis == "x" else ax.get_ylim()
    (ax.set_xscale if axis == "x" else ax.set_yscale)("log")
    (ax.set_xlim if axis == "x" else ax.set_ylim)(low, high)
    place = ax.xaxis if axis == "x" else ax.yaxis
    if high < 4 * low:  # so few powers of ten that their parts would be bare
        place.set_major_locator(FixedLocator(list(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high))))
        (ax.set_xlim if axis == "x" else ax.set_ylim)(low, high)
    else:
        steps = (1,) if high > 300 * low else (1, 2, 5) if high > 6 * low else (1, 1.5, 2, 3, 4, 5, 7)
        place.set_major_locator(LogLocator(base=10, subs=steps, numticks=12))
    place.set_minor_locator(NullLocator())
    place.set_minor_formatter(NullFormatter())
    place.set_major_formatter(FuncFormatter(lambda value, _: compact(value)))


def compact(value: float) -> str:
    """A number for an axis: ``0.003``, ``2.5``, ``40M``, ``2e+14``."""
    if value == 0:
        return "0"
    for limit, sign in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if limit <= abs(value) < 1e12:
            return f"{value / limit:.3g}{sign}"
    return f"{value:.3g}".replace("e+", "e")


def name_panel(ax: Axes, text: str) -> None:
    """Bold words over a panel, to the left."""
    ax.set_title(shown(text), loc="left", color=INK, fontsize=9.5, fontweight="bold", pad=8)


def png(figure: Figure) -> bytes:
    """The figure's bytes, the same for the same figure."""
    data = io.BytesIO()
    figure.savefig(data, format="png", metadata={"Software": None})
    return data.getvalue()


def shown(text: str, most: int = _MOST_LABEL) -> str:
    """Text for matplotlib: cut to a length, and no formula in it, whatever the run is called."""
    text = "".join(letter if letter.isprintable() else " " for letter in text)
    text = text if len(text) <= most else f"{text[: most - 1]}…"
    return text.replace("$", r"\$")
