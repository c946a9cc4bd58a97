"""Every combination of the values (``sweep=grid``, the default)."""

import dataclasses
import logging
from typing import TYPE_CHECKING

from lumi.errors import ConfigError
from lumi.sweep.study import Job, Study

if TYPE_CHECKING:
    from lumi.sweep.command import Command

log = logging.getLogger(__name__)

_MANY = 20


@dataclasses.dataclass(frozen=True, kw_only=True)
class Grid:
    """All combinations; has no settings of its own."""

    kind = "grid"

    def run(self, command: "Command", study: Study) -> None:
        """Train what is missing."""
        jobs: list[Job] = []
        users: dict[str, Job] = {}
        combinations = list(command.space.grid())
        if len(combinations) > _MANY:
            log.info("composing       %d jobs, a fifth of a second each", len(combinations))
        for overrides in combinations:
            settings, run = command.describe(overrides)
            job = study.add(overrides, run)
            if (other := users.setdefault(job.run, job)) is not job:
                raise ConfigError(
                    f"{' '.join(other.overrides)} and {' '.join(overrides)}",
                    f"would both be {job.run}",
                    "leave name=… out, and sweep over what changes a number",
                )
            if command.is_finished(settings, run):
                study.set(job, "finished", seconds=0.0)
            else:
                job.state, job.error = "waiting", None
                jobs.append(job)
        study.save()
        command.run(study, Queue(jobs), total=len(users))


class Queue:
    """Jobs in their order; none is stopped before its end."""

    at_once: int | None = None

    def __init__(self, jobs: list[Job]) -> None:
        self._jobs = list(jobs)

    def take(self) -> Job | None:
        """The next job to begin."""
        return self._jobs.pop(0) if self._jobs else None

    def prunes(self, job: Job) -> bool:
        """Whether a running job is not worth going on with."""
        return False

    def ended(self, job: Job) -> None:
        """Told of every job when it has ended."""
