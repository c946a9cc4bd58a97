"""What has to be said before anybody believes a table: too few seeds, selection, edges of a range, what is missing."""

import math

from lumi.eval.study import figures
from lumi.eval.study.analysis import LEVEL, Analysis
from lumi.eval.study.document import Pieces, Strong
from lumi.eval.study.numbers import count, score

_MOST_NAMED = 6


def remarks(analysis: Analysis) -> list[Pieces]:
    """All that apply, the weightiest first."""
    found = [
        _seeds(analysis),
        _exact_test(analysis),
        _selection(analysis),
        *_edges(analysis),
        _tokenizers(analysis),
        _lengths(analysis),
        _missing(analysis),
        _replaced(analysis),
    ]
    return [remark for remark in found if remark]


def not_told_apart(analysis: Analysis) -> list[int]:
    """Configurations whose difference from the best one may be chance."""
    return [one.configuration for one in analysis.with_best if one.p_holm is None or one.p_holm >= LEVEL]


def _seeds(analysis: Analysis) -> Pieces:
    counts = [one.score.n for one in analysis.configurations]
    if max(counts) == 1:
        return [
            Strong("One seed each. "),
            "No figure has an interval, and no difference can be told from chance; add seed=0,1,2 to the sweep.",
        ]
    if min(counts) == max(counts):
        return []
    fewer = [one.name for one in analysis.configurations if one.score.n < max(counts)]
    return [
        Strong("Unequal seeds. "),
        f"Fewer than {max(counts)} seeds: {_some(fewer)}. Differences use the seeds that both sides have.",
    ]


def _exact_test(analysis: Analysis) -> Pieces:
    sizes = [one.paired.difference.n for one in analysis.comparisons if one.paired.p_exact is not None]
    if not sizes or min(sizes) > 5:
        return []
    least = 2.0 ** (1 - min(sizes))
    return [
        Strong("Few seeds. "),
        f"With {count(min(sizes), 'pair')} the exact test cannot give less than {least:g}; the t test can, by assuming that "
        "differences are normally distributed, which so few cannot show.",
    ]


def _selection(analysis: Analysis) -> Pieces:
    found = analysis.configurations
    if len(found) < 2 or not analysis.told_apart:
        return []
    pieces = [
        Strong("Selection. "),
        f"The best of {len(found)} was chosen by the same runs that it is reported with, so its mean is flattered.",
    ]
    if analysis.held_out is not None:
        honest, flattered = score(analysis.held_out), score(found[0].score.mean)
        said = "it stays the same" if honest == flattered else f"the choice is worth {honest} instead of {flattered}"
        pieces.append(f" Chosen on all seeds but one and measured on that one, {said}.")
    close = not_told_apart(analysis)
    if len(close) == len(found) - 1:
        pieces.append(" No other configuration is told apart from it at 5 % (Holm).")
    elif close:
        pieces.append(
            " Not told apart from it at 5 % (Holm), or with too few common seeds to be: "
            f"{_some([found[place].name for place in close])}."
        )
    return pieces


def _edges(analysis: Analysis) -> list[Pieces]:
    """Numeric factors whose best level is the last one tried."""
    found: list[Pieces] = []
    for factor, level in zip(analysis.factors, analysis.configurations[0].levels, strict=True):
        if factor.numbers and len(factor.levels) >= 3 and level in (factor.levels[0], factor.levels[-1]):
            side = "lowest" if level == factor.levels[0] else "highest"
            found.append(
                [
                    Strong("Edge. "),
                    f"The best {factor.name}={level} is the {side} that was tried; the optimum may lie beyond it.",
                ]
            )
    return found


def _tokenizers(analysis: Analysis) -> Pieces:
    per_token = analysis.metric.split("/")[-1] in ("loss", "perplexity")
    if not per_token or not any(key.startswith("tokenizer") for factor in analysis.factors for key in factor.keys):
        return []
    return [
        Strong("Tokenizers differ. "),
        f"{analysis.metric} is per token and does not compare between them; take metric={figures.VAL_BITS}.",
    ]


def _lengths(analysis: Analysis) -> Pieces:
    tokens = [one.figures[figures.TOKENS].mean for one in analysis.configurations if figures.TOKENS in one.figures]
    if not tokens or min(tokens) <= 0 or max(tokens) / min(tokens) < 1.02:
        return []
    return [
        Strong("Lengths differ. "),
        f"Runs saw {min(tokens):,.0f} to {max(tokens):,.0f} tokens: compare at equal compute or time, by the Pareto front.",
    ]


def _missing(analysis: Analysis) -> Pieces:
    pieces: list[str | Strong] = []
    if analysis.left_out:
        states = [run.state for run in analysis.left_out]
        said = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
        pieces += [Strong("Not all runs count. "), f"Of {count(len(analysis.study.runs), 'run')}: {said}."]
    n_wanted = math.prod(len(factor.levels) for factor in analysis.factors)
    if analysis.study.kind == "grid" and n_wanted > len(analysis.configurations):
        pieces.append(f" {n_wanted - len(analysis.configurations)} of {n_wanted} combinations have no finished run.")
    return pieces


def _replaced(analysis: Analysis) -> Pieces:
    if not analysis.replaced:
        return []
    names = _some([run.name for run in analysis.replaced])
    return [Strong("Repeated. "), f"Runs with the settings and the seed of a later one do not count: {names}."]


def _some(names: list[str]) -> str:
    more = len(names) - _MOST_NAMED
    return "; ".join(names[:_MOST_NAMED]) + (f"; and {more} more" if more > 0 else "")
