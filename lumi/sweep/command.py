"""A study from its command: what is shared and what is swept, which runs are missing, and where they are trained."""

import importlib.util
import itertools
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

from lumi.config import build, check_keys, resolve
from lumi.errors import ConfigError, Interrupted, LumiError
from lumi.identity import is_finished, run_folder
from lumi.lock import folder_lock
from lumi.settings import ROOT_KEYS
from lumi.sweep.plugins import SlotsLauncher
from lumi.sweep.slots import Feed, check_slots, child_script
from lumi.sweep.space import read_space
from lumi.sweep.study import JobsFailed, State, Study, count_states, study_name

log = logging.getLogger(__name__)

_PACKAGES = {
    "hydra_joblib_launcher": ("hydra/launcher=joblib", "joblib"),
    "hydra_submitit_launcher": ("hydra/launcher=submitit_slurm", "slurm"),
}
"""Plugin -> what asks for it, and Lumi's extra that installs it."""


class Command:
    """What was typed, and the means to compose and to run jobs of it: all that a sweep sees of Hydra.

    Args:
        context: of Hydra.
        task: what a job calls, for launchers that pass it on.
        config: composed without what is swept.
        overrides: what was typed.
    """

    def __init__(self, context: HydraContext, task: TaskFunction, config: DictConfig, overrides: Sequence[str]) -> None:
        self._context, self._task, self._config = context, task, config
        parser = OverridesParser.create(config_loader=context.config_loader)
        self.space = read_space(parser.parse_overrides(list(overrides)))
        self.slots = check_slots(config.slots)
        self.success: State = "planned" if config.plan or config.get("doctor") is True else "finished"

    def execute(self) -> None:
        """Train what is missing."""
        sweep = build(OmegaConf.to_container(self._config.sweep, resolve=True), "sweep")
        if self.success == "planned" and sweep.kind != "grid":
            raise ConfigError(f"sweep={sweep.kind}", "trains, and plan=true and doctor=true do not", "sweep=grid")
        study = Study(
            root=Path(self._config.hydra.sweep.dir),
            name=study_name(self._config.study, self.space, sweep.kind),
            kind=sweep.kind,
            overrides=self.space.typed,
            arguments=self.space.arguments,
        )
        with folder_lock(study.folder):
            sweep.run(self, study)

    def describe(self, overrides: Sequence[str]) -> tuple[dict[str, Any], Path]:
        """The settings of a job, and the folder of its run."""
        composed = self._context.config_loader.load_sweep_config(self._config, [*self.space.arguments, *overrides])
        with open_dict(composed):
            del composed["hydra"]
        settings = resolve(composed)
        check_keys(settings, ROOT_KEYS)
        return settings, run_folder(settings)

    is_finished = staticmethod(is_finished)

    def run(self, study: Study, feed: Feed, *, total: int | None = None, metric: str = "val/loss") -> None:
        """Run what the feed gives, where ``hydra/launcher`` says.

        Raises:
            JobsFailed: some of them did; the others are done.
        """
        failed_before = [job.number for job in study.jobs if job.state == "failed"]
        log.info("study           %s: %s", study.folder, study.counts())
        launcher = self._launcher(study)
        if isinstance(launcher, SlotsLauncher):
            slots = launcher.runner(study, child_script(sys.argv), slots=self.slots, metric=metric, total=total)
            slots.success = self.success
            slots.run(feed)
        else:
            run_batches(study, launcher, feed, self.success)
        failed = [job for job in study.jobs if job.state == "failed" and job.number not in failed_before]
        log.info("study           %s: %s", study.folder, study.counts())
        if sum(job.state == "finished" for job in study.jobs) > 1:
            log.info("compare         python evaluate.py compare=%s", study.folder)
        if failed:
            lines = "\n".join(f"  - {job.label}: {job.error} (run {job.run})" for job in failed)
            raise JobsFailed(
                f"study={study.name}: {len(failed)} of {len(study.jobs)} jobs failed:\n{lines}\n",
                "the others are not affected",
                f"the same command tries these again; their output is in {study.folder}",
            )

    def _launcher(self, study: Study) -> Launcher:
        config = self._config
        with open_dict(config):
            config.hydra.sweep.dir = str(study.folder)
        for package, (asked, extra) in _PACKAGES.items():
            wanted = f".{package}." in str(config.hydra.launcher._target_)
            if wanted and importlib.util.find_spec(f"hydra_plugins.{package}") is None:
                raise ConfigError(
                    asked,
                    f"needs the package {package.replace('_', '-')}",
                    f"pip install -c constraints.txt -e '.[{extra}]'",
                )
        return Plugins.instance().instantiate_launcher(
            hydra_context=self._context, task_function=self._task, config=config
        )


def run_batches(study: Study, launcher: Launcher, feed: Feed, success: State = "finished") -> None:
    """Run jobs by a launcher that takes them all at once and returns when all have ended; well is ``success``."""
    while batch := list(itertools.islice(iter(feed.take, None), feed.at_once)):
        for job in batch:
            study.set(job, "running")
        results: Sequence[JobReturn | Exception]
        try:
            results = launcher.launch([study.words(job) for job in batch], batch[0].number)
        except RuntimeError as error:  # a job that vanished: submitit and joblib then give no result at all
            results = [error] * len(batch)
        for job, result in zip(batch, results, strict=True):
            error = result if isinstance(result, Exception) else _error(result)
            if error is None:
                study.set(job, success)
            else:
                said = f"{type(error).__name__}: {error}".splitlines()
                study.set(job, "stopped" if isinstance(error, Interrupted) else "failed", said[0])
            feed.ended(job)
        log.info("study           %s: %s", study.folder, count_states(job.state for job in batch))


def _error(result: JobReturn) -> Exception | None:
    if result.status == JobStatus.COMPLETED:
        return None
    error = result._return_value  # its property would raise it
    return error if isinstance(error, Exception) else LumiError(f"the job ended with {result.status.name}")
