"""What results.json holds: every figure of the report, unrounded.

Layout::

schema_version, lumi_version
made_from       run → SHA-256 of the files that its figures were read from
settings, made_by   of this report
study           name, folder, created, kind, sweep
metric          name, higher_is_better
factors         name, keys, levels
configurations  best first: name, levels, score and figures as n, mean, sd, low, high; runs: seed → folder and figures
baseline        factor → level
comparisons     configuration minus baseline: seeds, difference, p, p_exact, p_holm
with_best       the same against the best configuration
fronts          cost → names on the Pareto front, cheapest first
held_out        the best on a seed that did not choose it | null
left_out        runs that do not count: name, state, error, overrides, figures
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from lumi import __version__
from lumi.eval.results import run_hashes
from lumi.eval.study.analysis import Analysis, Comparison, Configuration
from lumi.eval.study.reading import Run
from lumi.provenance import made_by

SCHEMA_VERSION = 1


def as_record(analysis: Analysis) -> dict[str, Any]:
    """Plain JSON; figures that are not finite become null."""
    study, found = analysis.study, analysis.configurations
    names = [one.name for one in found]
    return _plain(
        {
            "schema_version": SCHEMA_VERSION,
            "lumi_version": __version__,
            "made_from": {str(run.folder): run_hashes(run.folder) for run in study.runs},
            "settings": {"metric": analysis.metric, "baseline": analysis.baseline},
            "made_by": made_by(),
            "study": {
                "name": study.name,
                "folder": study.folder,
                "created": study.created,
                "kind": study.kind,
                "sweep": study.sweep,
            },
            "metric": {"name": analysis.metric, "higher_is_better": analysis.higher_is_better},
            "factors": [{"name": one.name, "keys": one.keys, "levels": one.levels} for one in analysis.factors],
            "configurations": [_configuration(analysis, one) for one in found],
            "baseline": analysis.baseline,
            "comparisons": [_comparison(one, names) for one in analysis.comparisons],
            "with_best": [_comparison(one, names) for one in analysis.with_best],
            "fronts": {cost: [names[place] for place in front] for cost, front in analysis.fronts.items()},
            "held_out": analysis.held_out,
            "left_out": [
                {**_run(run), "name": run.name, "state": run.state, "error": run.error, "overrides": run.overrides}
                for run in analysis.left_out
            ],
        }
    )


def _configuration(analysis: Analysis, one: Configuration) -> dict[str, Any]:
    return {
        "name": one.name,
        "levels": {factor.name: level for factor, level in zip(analysis.factors, one.levels, strict=True)},
        "score": dataclasses.asdict(one.score),
        "figures": {name: dataclasses.asdict(found) for name, found in one.figures.items()},
        "runs": {str(seed): _run(run) for seed, run in one.runs.items()},
    }


def _comparison(one: Comparison, names: Sequence[str]) -> dict[str, Any]:
    return {
        "configuration": names[one.configuration],
        "baseline": names[one.baseline],
        "seeds": one.seeds,
        "difference": dataclasses.asdict(one.paired.difference),
        "p": one.paired.p,
        "p_exact": one.paired.p_exact,
        "p_holm": one.p_holm,
    }


def _run(run: Run) -> dict[str, Any]:
    return {"folder": run.folder, "figures": run.values}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, str | int) else str(value)
