"""The report of a study from its analysis: in which order things are said, and in which words."""

from collections.abc import Callable, Sequence

from lumi.eval.study import curves, effects, figures, tables
from lumi.eval.study.analysis import LEVEL, Analysis
from lumi.eval.study.document import Block, Commands, Document, Heading, Notes, Paragraph, Picture, Pieces, Strong
from lumi.eval.study.numbers import count, interval, operations, score, signed
from lumi.eval.study.remarks import remarks

_METHODS = (
    "A run's figure is its last value of the metric. Runs with equal settings and different seeds are replicates: their mean "
    "has a confidence interval by Student's t with n − 1 degrees of freedom. Configurations are compared with the baseline "
    "seed by seed, so that what a seed does to both cancels; p (t) is of the paired t test, p (exact) of the permutation test "
    "over all sign flips (up to 12 pairs). Holm's step-down adjustment keeps the chance of any false finding among the "
    "comparisons of a table below 5 %."
)
_COSTS = (
    "FLOPs are the operations of training, forward and backward: six for every weight that multiplies and every token, and "
    "those of attention; validation is not counted. Time is training time without validation, on whatever machine a run had. "
    "Tokens per second are tokens over that time."
)


def report_document(analysis: Analysis, command: str) -> Document:
    """All sections that there is something to say in."""
    blocks: list[Block] = [Paragraph(_abstract(analysis))]
    noted = remarks(analysis)
    blocks += [Notes(noted)] if noted else []
    blocks += [Heading("Results"), tables.results_table(analysis)]
    if analysis.comparisons:
        blocks += [
            Heading("Against the baseline"),
            tables.comparisons_table(analysis),
            *_pictures(analysis, _DIFFERENCES),
        ]
    blocks += [Heading("Learning curves"), *_pictures(analysis, _CURVES)]
    if any(analysis.fronts.values()):
        blocks += [Heading("What it costs"), tables.front_table(analysis), *_pictures(analysis, _FRONTS)]
    if analysis.factors:
        blocks += [Heading("What the factors do"), *_pictures(analysis, _effect_pictures(analysis))]
        blocks += [tables.effects_table(analysis)] if len(analysis.factors) > 1 and _few_levels(analysis) else []
    if analysis.left_out:
        blocks += [Heading("Not counted"), tables.left_out_table(analysis)]
    blocks += [Heading("What was varied"), tables.factors_table(analysis)]
    blocks += [
        Heading("How this was computed"),
        Paragraph([_METHODS]),
        Paragraph([_COSTS]),
        Commands(_commands(analysis, command)),
    ]
    return Document(analysis.study.name, _subtitle(analysis), blocks)


def _subtitle(analysis: Analysis) -> str:
    study = analysis.study
    parts = [
        f"{count(len(study.finished()), 'finished run')} of {len(study.runs)}",
        count(len(analysis.configurations), "configuration"),
    ]
    parts.append(count(len(analysis.seeds), "seed"))
    return " · ".join([*parts, *([f"begun {study.created}"] if study.created else [])])


def _abstract(analysis: Analysis) -> Pieces:
    """The outcome in three sentences."""
    best = analysis.configurations[0]
    if len(analysis.configurations) == 1:
        around = f" (95 % interval {interval(best.score)})" if best.score.n > 1 else ""
        return [
            f"All runs have the same settings but for their seed. {analysis.metric} is ",
            Strong(score(best.score.mean)),
            f"{around}.",
        ]
    word = "highest" if analysis.higher_is_better else "lowest"
    around = f"95 % interval {interval(best.score)}, n = {best.score.n}" if best.score.n > 1 else "one seed"
    pieces: list[str | Strong] = [
        f"The {word} {analysis.metric} is ",
        Strong(score(best.score.mean)),
        f" ({around}), with ",
        Strong(best.name),
        ".",
    ]
    against = next((one for one in analysis.comparisons if one.configuration == 0), None)
    if against is not None:
        found = against.paired.difference
        holds = against.p_holm is not None and against.p_holm < LEVEL
        verdict = "which holds" if holds else "which does not hold"
        sure = f", {verdict} at 5 % after Holm's adjustment" if against.p_holm is not None else ""
        pieces.append(f" That is {signed(found.mean)} against {analysis.configurations[against.baseline].name}{sure}.")
    front = analysis.fronts.get(figures.FLOPS)
    if front:
        spent = [analysis.configurations[place].figures[figures.FLOPS].mean for place in (front[0], front[-1])]
        cost = operations(spent[0]) if len(front) == 1 else f"{operations(spent[0])} to {operations(spent[1])}"
        pieces.append(
            f" The Pareto front of {analysis.metric} against compute has {count(len(front), 'configuration')}, {cost} FLOPs."
        )
    return pieces


_Plot = tuple[str, Callable[[Analysis], bytes | None], Pieces, bool]

_DIFFERENCES: list[_Plot] = [
    (
        "differences.png",
        effects.plot_differences,
        [
            Strong("Differences from the baseline. "),
            "Paired by seed, with 95 % intervals; filled where it holds at 5 % after Holm's adjustment. "
            "An arrow is an interval that goes on.",
        ],
        True,
    )
]
_CURVES: list[_Plot] = [
    (
        "curves.png",
        curves.plot_curves,
        [
            Strong("Learning curves. "),
            "Mean over seeds, and the range that they cover; one logarithmic scale upwards. "
            "Training losses are smoothed.",
        ],
        True,
    )
]
_FRONTS: list[_Plot] = [
    (
        "pareto.png",
        curves.plot_pareto,
        [
            Strong("The metric against its cost. "),
            "Filled: on the front (the line). Open: another configuration is cheaper and better. Dots are single seeds.",
        ],
        True,
    )
]
_HEAT_MAP: _Plot = (
    "heat_map.png",
    effects.plot_heat_map,
    [Strong("Both factors together. "), "Mean over seeds; the best is framed."],
    False,
)
_MAIN: _Plot = (
    "main_effects.png",
    effects.plot_main_effects,
    [Strong("One factor at a time. "), "The mean of the configurations at each level, which are the dots."],
    False,
)
_PARALLEL: _Plot = (
    "parallel.png",
    effects.plot_parallel,
    [
        Strong("All configurations. "),
        "A line each, through its levels to its metric; dark is better, the thick one the best.",
    ],
    True,
)


def _effect_pictures(analysis: Analysis) -> list[_Plot]:
    """A heat map of two factors, main effects unless it shows two scales already, parallel coordinates of more than one."""
    two_numbers = len(analysis.factors) == 2 and all(factor.numbers for factor in analysis.factors)
    file, plot, caption, _ = _MAIN
    main: list[_Plot] = [] if two_numbers else [(file, plot, caption, effects.is_wide(analysis))]
    return [_HEAT_MAP, *main, _PARALLEL]


def _pictures(analysis: Analysis, plots: Sequence[_Plot]) -> list[Picture]:
    drawn = [(file, plot(analysis), caption, wide) for file, plot, caption, wide in plots]
    return [Picture(file, data, caption, wide) for file, data, caption, wide in drawn if data is not None]


def _few_levels(analysis: Analysis) -> bool:
    return sum(len(factor.levels) for factor in analysis.factors) <= 40


def _commands(analysis: Analysis, command: str) -> list[str]:
    sweep = [f"# the sweep: {' '.join(analysis.study.sweep)}"] if analysis.study.sweep else []
    return [*sweep, command]
