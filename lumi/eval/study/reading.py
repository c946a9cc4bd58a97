"""The runs of a study as they lie on disk: finished ones with their figures, the others with what became of them."""

import dataclasses
import json
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from lumi.errors import DataError, did_you_mean
from lumi.eval.plots import Series, read_metrics
from lumi.eval.study.figures import last_values, measured

log = logging.getLogger(__name__)

STUDY = "study.json"
FINISHED, DIVERGED = "finished", "diverged"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """One run, or a job that has left none yet.

    Attributes:
        folder: of the run.
        number: of the job in its study.
        overrides: that the study gave it.
        state: ``finished``, or why its figures do not count: waiting, running, failed, pruned, stopped, unreadable …
        error: what it ended with.
        settings: dotted key → value, lists as JSON; empty where there is no config.
        values: metric → last value, see `figures`.
        curves: metric → tokens and values.
        flops_per_token: forward and backward, where the run planned them.
    """

    folder: Path
    number: int | None = None
    overrides: Mapping[str, str] = dataclasses.field(default_factory=dict)
    state: str
    error: str = ""
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    values: Mapping[str, float] = dataclasses.field(default_factory=dict)
    curves: Mapping[str, Series] = dataclasses.field(default_factory=dict)
    flops_per_token: float | None = None

    @property
    def seed(self) -> Any:
        """What replicates are told apart by."""
        return self.settings.get("seed", self.overrides.get("seed"))

    @property
    def name(self) -> str:
        """As people say it."""
        return self.folder.name or f"job {self.number}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Study:
    """Runs that belong together; the attributes are those of ``study.json``."""

    name: str
    folder: Path
    runs: Sequence[Run]
    created: str = ""
    kind: str = ""
    sweep: Sequence[str] = ()

    def finished(self, metric: str | None = None) -> list[Run]:
        """Runs whose figures count; given a metric, those that have a finite value of it."""
        return [
            run
            for run in self.runs
            if run.state == FINISHED and (metric is None or math.isfinite(run.values.get(metric, math.nan)))
        ]


def read_study(paths: Sequence[str]) -> Study:
    """The runs that these paths, patterns or studies name, each once.

    Raises:
        DataError: a path is neither a study nor a run, or there is nothing at all.
    """
    studies = [_read_one(path) for name in paths for path in _expand(name)]
    runs = {
        run.folder.resolve() if run.folder.name else (n, run.number): run
        for n, s in enumerate(studies)
        for run in s.runs
    }
    if not runs:
        raise DataError(
            f"compare={', '.join(paths)}", "holds no run", "give a study, such as multirun/NAME, or run folders"
        )
    if len(studies) == 1 and studies[0].kind:
        return studies[0]
    if len(paths) == 1 and len(studies) == 1:
        return dataclasses.replace(studies[0], name=studies[0].folder.name)
    return Study(name=f"{len(runs)} runs", folder=Path("runs"), runs=list(runs.values()))


def _expand(name: str) -> Iterator[Path]:
    """The folders that a path or a pattern means; a pattern passes over what is no run."""
    if Path(name).exists():
        yield Path(name)
        return
    found = [path for path in sorted(_matches(name)) if _is_study(path) or _is_run(path)]
    if not found:
        near = sorted(
            {
                str(path.parent)
                for pattern in ("multirun/*/study.json", "runs/*/run.json")
                for path in Path().glob(pattern)
            }
        )
        rule = "matches no run" if set("*?[") & set(name) else "does not exist"
        raise DataError(f"compare={name}", rule, did_you_mean(name, near) if near else "there are no studies here")
    yield from found


def _matches(pattern: str) -> Iterator[Path]:
    """Paths of a pattern, from the root where it begins there."""
    path = Path(pattern)
    return Path(path.anchor).glob(str(path.relative_to(path.anchor)) if path.anchor else pattern)


def _read_one(path: Path) -> Study:
    if path.name == STUDY and path.is_file():
        path = path.parent
    if _is_study(path):
        return _read_jobs(path)
    if _is_run(path):
        return Study(name=path.name, folder=path.parent, runs=[_read_run(path)])
    below = [item for item in sorted(path.iterdir()) if _is_run(item)] if path.is_dir() else []
    if not below:
        raise DataError(
            f"compare={path}",
            f"is neither a study (no {STUDY}) nor a run (no config.yaml), and holds no runs",
            "give a study, such as multirun/NAME, or run folders, such as 'runs/*'",
        )
    return Study(name=path.name, folder=path, runs=[_read_run(item) for item in below])


def _read_jobs(folder: Path) -> Study:
    try:
        found = json.loads((folder / STUDY).read_bytes())
        jobs = list(found["jobs"])
        runs = [_read_job(folder, job) for job in jobs]
        sweep = found.get("sweep") or {}
        overrides = [str(word) for word in sweep.get("overrides") or ()]
        kind = str(sweep.get("kind") or "study")
    except (ValueError, OverflowError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{folder / STUDY}", f"is not the table of a study ({error!r})") from None
    name, created = str(found.get("name") or folder.name), str(found.get("created") or "")
    unique = {run.folder.resolve() if run.folder.name else run.number: run for run in runs}
    return Study(name=name, folder=folder, runs=list(unique.values()), created=created, kind=kind, sweep=overrides)


def _read_job(study: Path, job: Mapping[str, Any]) -> Run:
    """A job with its run; what the run itself says counts, where it is finished."""
    overrides = {key.lstrip("+~"): value for key, _, value in (str(word).partition("=") for word in job["overrides"])}
    number, state, error = job.get("number"), str(job.get("state") or "waiting"), str(job.get("error") or "")
    folder = _place(study, job.get("run"))
    if folder is None or not _is_run(folder):
        gone = state == FINISHED
        state, error = ("missing", f"{folder} is not here") if gone else (state, error)
        return Run(folder=folder or Path(), number=number, overrides=overrides, state=state, error=error)
    run = _read_run(folder)
    values = run.values
    if "perf/seconds" not in values and isinstance(job.get("seconds"), int | float):
        values = {**values, "perf/seconds": float(job["seconds"])}
    ended = run.state in (FINISHED, "unreadable")
    return dataclasses.replace(
        run,
        number=number,
        overrides=overrides,
        values=values,
        state=run.state if ended or state == FINISHED else state,
        error=run.error if ended else error,
    )


def _place(study: Path, run: Any) -> Path | None:
    """Where a run is: paths are from the folder that the study was started in, two above its own."""
    if not run:
        return None
    places = [Path(str(run)), study.resolve().parent.parent / str(run)]
    return next((place for place in places if place.exists()), places[0])


def _read_run(folder: Path) -> Run:
    try:
        state = json.loads((folder / "run.json").read_bytes()) if (folder / "run.json").exists() else {}
        # The same settings as in config.yaml, fifty times faster to read.
        settings = state.get("settings") or yaml.safe_load((folder / "config.yaml").read_bytes())
        plan, status = state.get("plan") or {}, str(state.get("status") or "running")
        curves = read_metrics(folder / "metrics.csv") if (folder / "metrics.csv").exists() else {}
        values = measured(folder, plan, last_values(curves, state.get("metrics") or {}))
        flat = dict(_flatten(settings))
    except (DataError, OSError, ValueError, AttributeError, TypeError, yaml.YAMLError) as error:
        log.warning("%s cannot be read and is left out: %s", folder, error)
        return Run(folder=folder, state="unreadable", error=str(error).splitlines()[0])
    return Run(
        folder=folder,
        state=status,
        settings=flat,
        values=values,
        curves=curves,
        flops_per_token=plan.get("flops_per_token"),
    )


def _flatten(node: Mapping[str, Any], key: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys of the leaves; what is no plain value becomes JSON, so that it can be compared."""
    for name, value in node.items():
        path = f"{key}.{name}" if key else str(name)
        if isinstance(value, Mapping) and value:
            yield from _flatten(value, path)
        else:
            yield path, value if isinstance(value, str | int | float | None) else json.dumps(value, default=str)


def _is_study(path: Path) -> bool:
    return (path / STUDY).is_file()


def _is_run(path: Path) -> bool:
    return (path / "run.json").is_file() or (path / "config.yaml").is_file()
