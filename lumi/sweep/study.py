"""The folder of a study, and the rules of its names.

    multirun/<study>/
      study.json                            every job: its overrides, run, state, error
      00-arch_nano-lr_1e-3-seed_0  →        a link to the run's folder below runs/
      00-arch_nano-lr_1e-3-seed_0.log       what the job said
      optuna.journal, wandb.yaml, .submitit/  where they are used

A run's own folder stays below ``runs/``, named after its settings: another study, or a single command, finds it again.
"""

import dataclasses
import json
import os
import re
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

from lumi.errors import ConfigError, DataError, LumiError
from lumi.manifest import fingerprint, write_atomic
from lumi.provenance import made_by
from lumi.sweep.space import Space

State = Literal["waiting", "running", "finished", "planned", "failed", "pruned", "stopped"]

_LONGEST_LABEL = 100
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class JobsFailed(LumiError):
    """Some jobs of a study failed; the others are done."""


@dataclasses.dataclass(kw_only=True)
class Job:
    """One run of a study.

    Attributes:
        number: from 0, in the order of the grid or of the search.
        overrides: what it differs in from the others.
        run: its folder, relative to where the command was typed.
        state: waiting, running, finished, planned (it was measured and nothing was trained), failed, pruned or stopped.
        error: why it failed, or was stopped.
        seconds: that its process has taken, over all tries.
    """

    number: int
    overrides: list[str]
    run: str
    state: State = "waiting"
    error: str | None = None
    seconds: float | None = None

    @property
    def label(self) -> str:
        """Its name within the study."""
        return job_label(self.number, self.overrides)


class Study:
    """What is known of a study's jobs; every change is on disk at once.

    Args:
        root: where studies are kept.
        name: of this one.
        kind: of the sweep.
        overrides: what was typed.
        arguments: those of them that all jobs share.
    """

    def __init__(self, *, root: Path, name: str, kind: str, overrides: Sequence[str], arguments: Sequence[str]) -> None:
        self.folder, self.name, self.kind = root / name, name, kind
        self.overrides, self.arguments = list(overrides), list(arguments)
        self.created = time.strftime("%Y-%m-%d %H:%M:%S")
        self.jobs: list[Job] = []
        if self.file.exists():
            self._read()

    @property
    def file(self) -> Path:
        """``study.json``."""
        return self.folder / "study.json"

    def _read(self) -> None:
        try:
            before = json.loads(self.file.read_bytes())
            self.created, sweep = before["created"], before["sweep"]
            self.jobs = [Job(**job) for job in before["jobs"]]
        except (ValueError, KeyError, TypeError):
            raise DataError(f"{self.file}", "is not readable", "remove it: finished runs are found again") from None
        if sweep["kind"] != self.kind:
            raise ConfigError(
                f"study={self.name}", f"was begun with sweep={sweep['kind']}", "study=… begins another one"
            )
        for job in self.jobs:
            if job.state == "running":  # its study was killed
                job.state = "stopped"

    def add(self, overrides: Sequence[str], run: Path, number: int | None = None) -> Job:
        """The job with these overrides: the one that is there, or a new one."""
        job = next((one for one in self.jobs if one.overrides == list(overrides)), None)
        if job is None:
            number = max((one.number for one in self.jobs), default=-1) + 1 if number is None else number
            job = Job(number=number, overrides=list(overrides), run=str(run))
            self.jobs.append(job)
        job.run = str(run)  # conf/ may have changed since
        return job

    def log_file(self, job: Job) -> Path:
        """Where its output goes."""
        return self.folder / f"{job.label}.log"

    def words(self, job: Job) -> list[str]:
        """What a job is called with; it is told whose it is, so that loggers group the runs of a study."""
        return [f"++study={self.name}", *self.arguments, *job.overrides]

    def link(self, job: Job) -> None:
        """Let the job's name lead to its run."""
        path, target = self.folder / job.label, os.path.relpath(job.run, self.folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        if path.is_symlink() and os.readlink(path) != target:  # noqa: PTH115  # the text, not a path
            path.unlink()
        if not path.is_symlink():
            path.symlink_to(target)

    def set(self, job: Job, state: State, error: str | None = None, seconds: float = 0.0) -> None:
        """Note what became of a job."""
        job.state, job.error = state, error
        if seconds:
            job.seconds = round((job.seconds or 0.0) + seconds, 1)
        self.link(job)
        self.save()

    def save(self) -> None:
        """Write ``study.json``."""
        state: dict[str, Any] = {
            "name": self.name,
            "created": self.created,
            "sweep": {"kind": self.kind, "overrides": self.overrides},
            "jobs": [dataclasses.asdict(job) for job in self.jobs],
            "made_by": made_by(),
        }
        write_atomic(self.file, json.dumps(state, indent=2, ensure_ascii=False) + "\n")

    def counts(self) -> str:
        """``4 finished, 1 failed``."""
        return count_states(job.state for job in self.jobs)


def count_states(states: Iterable[str]) -> str:
    """How many jobs are in each state, in words."""
    states = list(states)
    order = ("running", "waiting", "finished", "planned", "pruned", "stopped", "failed")
    return ", ".join(f"{states.count(state)} {state}" for state in order if state in states) or "no job"


def study_name(given: str | None, space: Space, kind: str) -> str:
    """``study=…``, or the swept keys with a hash of the command: the same command finds its study again.

    Raises:
        ConfigError: the given name is no name of a folder.
    """
    if given is not None:
        if not _NAME.fullmatch(str(given)):
            raise ConfigError(f"study={given}", "must be letters, digits, '.', '_' and '-'")
        return str(given)
    keys = [short_key(one.key, [other.key for other in space.dimensions]) for one in space.dimensions]
    return "-".join([*keys, fingerprint([kind, sorted(space.typed)])[:6]])[-_LONGEST_LABEL:].lstrip("-._")


def job_label(number: int, overrides: Sequence[str]) -> str:
    """``03-arch_nano-lr_1e-3-seed_0``: no sign in it that a command line would need quotes for."""
    keys = [override.partition("=")[0] for override in overrides]
    parts = [f"{short_key(one.partition('=')[0], keys)}_{one.partition('=')[2]}" for one in overrides]
    text = "-".join(re.sub(r"[^A-Za-z0-9.+-]+", "_", part).strip("_") for part in parts)
    return f"{number:02d}-{text}"[:_LONGEST_LABEL].rstrip("-")


def short_key(key: str, keys: Sequence[str]) -> str:
    """The last word of a key, where no other one ends with it."""
    word = key.lstrip("+~").partition("@")[0].replace("/", ".")
    ending = word.rpartition(".")[2]
    alone = sum(other.lstrip("+~").partition("@")[0].replace("/", ".").rpartition(".")[2] == ending for other in keys)
    return ending if alone == 1 else word.replace(".", "_")
