"""Every figure of a run under a name of its own: what it logged, what it was planned with, what its evaluation found.

Logged metrics keep their names and stand with their last value. ``plan/…`` is computed from the run's plan, ``eval/…`` comes
from ``eval/results.json``.
"""

import logging
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lumi.errors import DataError
from lumi.eval.answers import accuracies
from lumi.eval.plots import Series
from lumi.eval.results import RESULTS, read_results

log = logging.getLogger(__name__)

TOKENS, SECONDS, SPEED = "progress/tokens", "perf/seconds", "perf/tokens_per_second"
FLOPS, SIX_N_D, PARAMETERS = "plan/flops", "plan/flops_6nd", "plan/parameters"
EVAL_BITS, VAL_BITS = "eval/bits_per_byte", "val/bits_per_byte"

_HIGHER = ("accuracy", "exact", "per_second", "mfu", "reward", "margin", "preferred", "stopped", "f1", "percent")
"""Parts of the names of metrics that are better when they are higher; all others are losses or costs."""

_UNITS = {
    "val/loss": "validation loss (nats per token)",
    "train/loss": "training loss (nats per token)",
    "val/perplexity": "validation perplexity (per token)",
    VAL_BITS: "validation bits per byte",
    EVAL_BITS: "held-out bits per byte",
    SECONDS: "training time (s)",
    SPEED: "tokens per second",
    FLOPS: "training compute (FLOPs)",
    PARAMETERS: "parameters",
    TOKENS: "training tokens",
}


def higher_is_better(metric: str) -> bool:
    """Whether more of a metric is better, by its name."""
    if not {"loss", "perplexity", "bits_per_byte"}.isdisjoint(metric.split("/")):
        return False  # whatever the source after it is called
    return any(word in metric.lower() for word in _HIGHER)


def is_cost(metric: str) -> bool:
    """Whether a metric says what was spent, not what it gave."""
    return metric.startswith(("perf/", "plan/", "progress/", "optim/"))


def title(metric: str) -> str:
    """A metric in words with its unit where it is known, else its name."""
    return _UNITS.get(metric, metric)


def last_values(curves: Mapping[str, Series], metrics: Mapping[str, Any]) -> dict[str, float]:
    """The last value of every metric: what the run says at its end, else the last row that has it."""
    last = {name: float(values[-1]) for name, (_, values) in curves.items()}
    said = {name: float(value) for name, value in metrics.items() if isinstance(value, int | float)}
    return {**last, **said}


def measured(folder: Path, plan: Mapping[str, Any], logged: Mapping[str, float]) -> dict[str, float]:
    """All figures of a run.

    Args:
        folder: of the run.
        plan: of its run.json.
        logged: of `last_values`.
    """
    return {**logged, **_planned(plan, logged), **_evaluated(folder)}


def _planned(plan: Mapping[str, Any], logged: Mapping[str, float]) -> dict[str, float]:
    """Parameters and operations; 6 N D (arXiv:2001.08361) stands beside the run's own count, which has attention too."""
    tokens = logged.get(TOKENS) or plan.get("total_steps", 0) * plan.get("tokens_per_step", 0)
    parameters, per_token = plan.get("parameters"), plan.get("flops_per_token")
    found: dict[str, float] = {}
    if tokens:
        found[TOKENS] = float(tokens)
    if parameters:
        found[PARAMETERS] = float(parameters)
        found["plan/non_embedding_parameters"] = float(plan.get("non_embedding") or parameters)
    if parameters and tokens:
        found[SIX_N_D] = 6.0 * parameters * tokens
        found[FLOPS] = float(per_token * tokens) if per_token else found[SIX_N_D]
    if tokens and (seconds := logged.get(SECONDS)):
        found[SPEED] = tokens / seconds  # over the whole run; the logged one is of the last rows
    return found


def _evaluated(folder: Path) -> dict[str, float]:
    """Figures of an evaluation, where there was one that this version can read."""
    path = folder / "eval" / RESULTS
    if not path.exists():
        return {}
    try:
        found = read_results(path)
        return {
            f"eval/{name}": value for name, value in _eval_figures(found) if value is not None and math.isfinite(value)
        }
    except (DataError, KeyError, TypeError) as error:
        log.warning("%s is left out: %s", path, error)
        return {}


def _eval_figures(found: Mapping[str, Any]) -> Iterable[tuple[str, float | None]]:
    sources, texts = found["sources"], found["texts"]
    for name, part in sources.items():
        yield f"bits_per_byte/{name}", part["score"]["bits_per_byte"]
    for name, part in texts.items():
        yield f"bits_per_byte/{name}", part["score"]["bits_per_byte"]
    if found["mixture"] is not None:
        yield "bits_per_byte", found["mixture"]["bits_per_byte"]
    elif len(sources) == 1:
        (part,) = sources.values()
        yield "bits_per_byte", part["score"]["bits_per_byte"]
    for name, (share, _, _) in accuracies(found).items():
        yield f"{name}, accuracy" if "preferred" not in name else name, share
    for name, part in found["tasks"].items():
        yield f"{name}, accuracy", part.get("accuracy")
