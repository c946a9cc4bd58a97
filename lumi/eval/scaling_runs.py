"""From finished runs to a scaling law: what is read, law.json, scaling.md and the picture (``evaluate.py scaling=…``)."""

import dataclasses
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lumi.errors import CheckpointError, ConfigError, DataError
from lumi.eval.results import run_hashes
from lumi.eval.scaling import Law, Parabola, Point, Target, bootstrap, exponents, fit_law, interval, parabolas
from lumi.eval.table import markdown_table, number, percent
from lumi.manifest import write_atomic
from lumi.provenance import made_by

log = logging.getLogger(__name__)

LAW, REPORT, PICTURE = "law.json", "scaling.md", "scaling.png"
RESAMPLES = 100

_SAME = ("data", "tokenizer", "optim", "stage")
"""Settings in which the runs of one law may not differ: sizes, lengths and seeds are what it is about."""

_WORDS = (
    "L(N, D) = E + A / N^alpha + B / D^beta, in nats per token, with N all parameters (a tied matrix once) and D the tokens of "
    "training: approach 3 of arXiv:2203.15556, Huber's loss of the log-loss, L-BFGS from a grid of starts. Intervals hold 90 % "
    "of {n} laws of resampled runs. They say how well these runs fix the law, not whether the law is right beyond them."
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fitted:
    """A law with what is known about its uncertainty.

    Attributes:
        law: of all runs. resamples: laws of resampled runs.
        points: the runs. seq_len: of their windows, in tokens.
    """

    law: Law
    resamples: list[Law]
    points: list[Point]
    seq_len: int

    def predict(self, n_params: float, n_tokens: float) -> tuple[float, float, float]:
        """Expected loss in nats per token, with the ends of its 90 % interval."""
        low, high = interval([law.loss(n_params, n_tokens) for law in self.resamples])
        return self.law.loss(n_params, n_tokens), low, high


def read_run(folder: Path) -> tuple[Point, dict[str, Any]] | None:
    """A run's point and its settings; None, with a message, where it is not finished.

    Raises:
        CheckpointError: the folder is no run, or its ``run.json`` cannot be read.
    """
    try:
        state = json.loads((folder / "run.json").read_bytes())
        plan, metrics, settings = state["plan"], state["metrics"], state["settings"]
        if state["status"] != "finished":
            log.warning("%s is not finished and is left out", folder)
            return None
        n_tokens = plan.get("tokens", plan["total_steps"] * plan["tokens_per_step"])  # a curriculum's steps differ
        point = Point(
            n_params=plan["parameters"],
            n_tokens=n_tokens,
            flops=n_tokens * plan["flops_per_token"],
            loss=metrics["val/loss"],
            name=folder.name,
        )
    except (OSError, ValueError, OverflowError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{folder}", f"is not a run with a validation loss ({error!r})", "give folders below runs/"
        ) from None
    return point, settings


def fit_runs(folders: Sequence[Path], *, entropy: float = 0.0) -> Fitted:
    """The law of finished runs.

    Args:
        folders: of the runs.
        entropy: of the text in nats per token, below which E cannot be; 0 where it is not known.

    Raises:
        DataError: too few, or they differ in more than size, length and seed.
    """
    read = [found for folder in folders if (found := read_run(folder)) is not None]
    for _, settings in read[1:]:
        check_alike(read[0][1], settings, read[0][0].name)
    points = [point for point, _ in read]
    law = fit_law(points, floor=entropy)
    resamples = bootstrap(points, law, n_resamples=RESAMPLES, floor=entropy)
    return Fitted(law=law, resamples=resamples, points=points, seq_len=read[0][1]["data"]["seq_len"])


def check_alike(first: Mapping[str, Any], other: Mapping[str, Any], name: str) -> None:
    """A law compares sizes and lengths: everything else has to be the same.

    Raises:
        DataError: naming what differs.
    """
    for key in _SAME:
        if first.get(key) != other.get(key):
            raise DataError(
                f"scaling: {key} of {other.get('name')} is not that of {name}",
                "runs of one law differ in size, length and seed only",
                "fit them apart",
            )


def read_law(path: Path) -> Fitted:
    """A law that was written by `write_scaling`.

    Raises:
        ConfigError: there is none at this place.
    """
    try:
        found = json.loads((path / LAW if path.is_dir() else path).read_bytes())
        return Fitted(
            law=Law(**found["law"]),
            resamples=[Law(**one) for one in found["resamples"]],
            points=[Point(**one) for one in found["points"]],
            seq_len=found["seq_len"],
        )
    except (OSError, ValueError, OverflowError, KeyError, TypeError) as error:
        raise ConfigError(
            f"law={path}", f"is not a fitted law ({error!r})", "python evaluate.py scaling=… writes one"
        ) from None


def write_scaling(folder: Path, fitted: Fitted, targets: Sequence[Target], runs: Sequence[Path] = ()) -> str:
    """Write law.json, scaling.md and scaling.png; returns what scaling.md says.

    Args:
        runs: folders that the law was fitted to and that were held out; law.json names their hashes.
    """
    curves = parabolas(fitted.points)
    rows = [_predicted(fitted, target) for target in targets]
    facts = {
        "law": dataclasses.asdict(fitted.law),
        "unit": "nats per token",
        "seq_len": fitted.seq_len,
        "points": [dataclasses.asdict(point) for point in fitted.points],
        "parabolas": [dataclasses.asdict(curve) for curve in curves],
        "exponents": exponents(curves),
        "predictions": rows,
        "resamples": [dataclasses.asdict(law) for law in fitted.resamples],
        "made_from": {str(run): run_hashes(run) for run in runs},
        "settings": {"seq_len": fitted.seq_len, "predict": [target.name for target in targets]},
        "made_by": made_by(),
    }
    text = _render(fitted, curves, rows)
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / LAW, json.dumps(facts, indent=2) + "\n")
    from lumi.eval.scaling_plots import plot_scaling  # matplotlib: a run that only reads a law needs none

    write_atomic(folder / PICTURE, plot_scaling(fitted.points, fitted.law, curves, targets))
    write_atomic(folder / REPORT, text)
    return text


def _predicted(fitted: Fitted, target: Target) -> dict[str, Any]:
    loss, low, high = fitted.predict(target.n_params, target.n_tokens)
    return {
        **dataclasses.asdict(target),
        "predicted": loss,
        "interval": [low, high],
        "error": None if target.measured is None else loss / target.measured - 1,
        "beyond": target.n_params * target.n_tokens / max(p.n_params * p.n_tokens for p in fitted.points),
    }


def _render(fitted: Fitted, curves: Sequence[Parabola], rows: Sequence[Mapping[str, Any]]) -> str:
    parts = ["# Scaling law", _WORDS.format(n=len(fitted.resamples)), _constants_table(fitted)]
    if rows:
        parts += ["## Predictions", _predictions_table(rows)]
    parts += ["## Runs of one cost", _parabolas_table(fitted.law, curves), _exponents_text(fitted, curves)]
    parts += [
        f"![Loss by size at each cost, and predicted against measured]({PICTURE})",
        "## Runs",
        _points_table(fitted),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _constants_table(fitted: Fitted) -> str:
    rows = []
    for field in dataclasses.fields(Law):
        low, high = interval([getattr(law, field.name) for law in fitted.resamples])
        rows.append([field.name, *(f"{value:.4g}" for value in (getattr(fitted.law, field.name), low, high))])
    return markdown_table(["constant", "fitted", "from", "to"], rows)


def _predictions_table(rows: Sequence[Mapping[str, Any]]) -> str:
    header = [
        "model",
        "parameters",
        "tokens",
        "N x D beyond the runs",
        "predicted",
        "90 % interval",
        "measured",
        "error",
    ]
    cells = [
        [
            row["name"],
            f"{row['n_params']:,.0f}",
            f"{row['n_tokens']:,.0f}",
            f"{row['beyond']:.1f} x",
            number(row["predicted"], 3),
            " to ".join(number(end, 3) for end in row["interval"]),
            number(row["measured"], 3),
            percent(row["error"]),
        ]
        for row in rows
    ]
    return markdown_table(header, cells)


def _parabolas_table(law: Law, curves: Sequence[Parabola]) -> str:
    header = ["operations", "best size (parabola)", "its tokens", "tokens a parameter", "loss there", "best size (law)"]
    rows = []
    for curve in curves:
        try:
            by_law = f"{law.optimum(curve.flops)[0]:,.0f}"
        except DataError:
            by_law = number(None)
        if curve.n_params is None or curve.n_tokens is None:
            rows.append([f"{curve.flops:.2e}", "outside the sizes trained", *[number(None)] * 3, by_law])
            continue
        ratio = curve.n_tokens / curve.n_params
        figures = [f"{curve.n_params:,.0f}", f"{curve.n_tokens:,.0f}", number(ratio, 1), number(curve.loss, 3)]
        rows.append([f"{curve.flops:.2e}", *figures, by_law])
    return markdown_table(header, rows)


def _exponents_text(fitted: Fitted, curves: Sequence[Parabola]) -> str:
    law, found = fitted.law, exponents(curves)
    parts = []
    if found is not None:
        parts.append(f"Through the bottoms: best size ~ C^{found[0]:.2f}, best length ~ C^{found[1]:.2f}.")
    if min(law.alpha, law.beta) > 0:
        a = law.beta / (law.alpha + law.beta)
        parts.append(f"By the law: C^{a:.2f} and C^{1 - a:.2f}.")
    return " ".join(parts)


def _points_table(fitted: Fitted) -> str:
    rows = [
        [
            p.name,
            f"{p.n_params:,.0f}",
            f"{p.n_tokens:,.0f}",
            f"{p.flops:.2e}",
            number(p.loss, 3),
            number(said, 3),
            percent(said / p.loss - 1),
        ]
        for p in sorted(fitted.points, key=lambda p: (p.flops, p.n_params))
        for said in [fitted.law.loss(p.n_params, p.n_tokens)]
    ]
    return markdown_table(["run", "parameters", "tokens", "operations", "loss", "law", "difference"], rows)
