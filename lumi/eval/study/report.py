"""From the runs of a study to its report: report.md with pictures, report.html by itself, results.json and results.csv.

report_study(["multirun/lr"], metric="val/loss")
"""

import csv
import io
import json
import logging
import math
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lumi.errors import ConfigError
from lumi.eval.study.analysis import Analysis, analyse
from lumi.eval.study.document import Document, Picture, render_markdown
from lumi.eval.study.page import render_page
from lumi.eval.study.reading import read_study
from lumi.eval.study.record import as_record
from lumi.eval.study.sections import report_document
from lumi.eval.study.tables import results_table
from lumi.eval.table import markdown_table
from lumi.manifest import write_atomic

log = logging.getLogger(__name__)

STUDY_KEYS = ("compare", "metric", "baseline")
REPORT, PAGE, RESULTS, ROWS = "report.md", "report.html", "results.json", "results.csv"


def compare_study(settings: Mapping[str, Any]) -> Path:
    """`report_study` from the settings of ``evaluate.py``.

    Raises:
        ConfigError: a setting is of the wrong kind, or does not go with ``compare``.
        DataError: there is nothing to compare.
    """
    compare = settings["compare"]
    paths = [compare] if isinstance(compare, str) else compare
    if not isinstance(paths, list) or not paths or not all(isinstance(path, str) for path in paths):
        raise ConfigError(f"compare={compare}", "must be a study, a run, a pattern of runs, or a list of them")
    if settings["model"] not in (None, "???"):
        raise ConfigError(f"model={settings['model']}", "does not go with compare=…", "leave one of them out")
    if not isinstance(settings["metric"], str):
        raise ConfigError(f"metric={settings['metric']}", "must be the name of a metric", "such as val/loss")
    return report_study(paths, metric=settings["metric"], baseline=settings["baseline"], out=settings["out"])


def report_study(
    paths: Sequence[str], *, metric: str = "val/loss", baseline: Any = None, out: str | None = None
) -> Path:
    """Read, compare, draw and write.

    Args:
        paths: studies, runs, or patterns of them.
        metric: to compare by: a logged one, or one of `figures`.
        baseline: key → value, ``KEY=VALUE``, or the name of a run; None is the study's first configuration.
        out: folder of the report; None is ``report`` below the study.

    Returns:
        The folder of the report.

    Raises:
        DataError: there is nothing to compare.
        ConfigError: the metric or the baseline does not exist.
    """
    analysis = analyse(read_study(paths), metric, baseline)
    folder = Path(out) if out else analysis.study.folder / "report"
    document = report_document(analysis, _command(paths, analysis, baseline))
    _write(folder, analysis, document)
    table = results_table(analysis)
    log.info("\n%s", markdown_table(table.header, [[cell.text for cell in row] for row in table.rows]))
    log.info("report: %s (and %s, which opens anywhere)", folder / REPORT, PAGE)
    return folder


def _command(paths: Sequence[str], analysis: Analysis, baseline: Any) -> str:
    """What to type to get this report again, as Hydra reads it."""
    words = [f"compare={_typed(paths[0])}" if len(paths) == 1 else f"compare=[{','.join(map(_typed, paths))}]"]
    words.append(f"metric={_typed(analysis.metric)}")
    if isinstance(baseline, str) and "=" not in baseline:
        words.append(f"baseline={_typed(baseline)}")
    elif baseline is not None:
        levels = ", ".join(f"{name}: {_typed(level)}" for name, level in analysis.baseline.items())
        words.append(f"baseline={{{levels}}}")
    return f"python evaluate.py {shlex.join(words)}"


def _typed(text: str) -> str:
    """A value of Hydra's grammar, in quotes where it needs them."""
    if re.fullmatch(r"[A-Za-z0-9_./*?+-]+", text):
        return text
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _write(folder: Path, analysis: Analysis, document: Document) -> None:
    """The pictures first: a report never names one that is not there."""
    pictures = {block.file: block.png for block in document.blocks if isinstance(block, Picture)}
    for name, data in pictures.items():
        write_atomic(folder / name, data)
    record = as_record(analysis)
    write_atomic(
        folder / RESULTS, json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False, default=str) + "\n"
    )
    write_atomic(folder / ROWS, _rows(analysis))
    write_atomic(folder / REPORT, render_markdown(document))
    write_atomic(folder / PAGE, render_page(document))


def _rows(analysis: Analysis) -> str:
    """A row a run: what it is, its levels, and every figure unrounded."""
    runs = list(analysis.study.runs)
    left_out = {run.folder: run.state for run in analysis.left_out}
    levels = {id(run): one.levels for one in analysis.configurations for run in one.runs.values()}
    names = [factor.name for factor in analysis.factors]
    metrics = sorted({name for run in runs for name in run.values})
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["run", "folder", "state", "seed", *(f"factor:{name}" for name in names), *metrics])
    for run in runs:
        own = levels.get(id(run), [run.overrides.get(name, "") for name in names])
        values = [run.values.get(name, math.nan) for name in metrics]
        state = left_out.get(run.folder, run.state)
        shown = [repr(value) if math.isfinite(value) else "" for value in values]
        writer.writerow([run.name, run.folder, state, "" if run.seed is None else run.seed, *own, *shown])
    return text.getvalue()
