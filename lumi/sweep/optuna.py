"""A search for good settings with Optuna (``sweep=optuna``): each run is a trial, and poor ones are stopped early.

The search is a journal in the study's folder; every decision is a function of it and of the seed, so a search that was
killed goes on as if nothing had happened. A run is stopped from outside, by the signal that anybody might send: it saves a
checkpoint and can be continued alone by its own command.
"""

import dataclasses
import importlib.util
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lumi.errors import ConfigError
from lumi.sweep.curve import Curve
from lumi.sweep.slots import diverged
from lumi.sweep.space import Dimension, number_text
from lumi.sweep.study import Job, Study

if TYPE_CHECKING:
    from optuna import Study as Search
    from optuna.pruners import BasePruner
    from optuna.trial import Trial

    from lumi.sweep.command import Command

log = logging.getLogger(__name__)

_KEPT_SHARE = 3  # asha: one in three goes on at each rung


@dataclasses.dataclass(frozen=True, kw_only=True)
class Optuna:
    """Settings of a search.

    Attributes:
        trials: in the whole study, pruned ones included; a greater number later continues it.
        metric: column of ``metrics.csv``; its last value counts.
        direction: minimize or maximize.
        sampler: ``tpe`` learns from the trials so far; ``random`` does not.
        startup_trials: drawn at random before ``tpe`` begins.
        prune: ``asha`` (successive halving: of the runs that came as far, the best third goes on), ``median`` (a run must be
            better than the median of the others at the same point), or null.
        prune_after: validations that every run may do.
        seed: of the search.
    """

    trials: int = 20
    metric: str = "val/loss"
    direction: Literal["minimize", "maximize"] = "minimize"
    sampler: Literal["tpe", "random"] = "tpe"
    startup_trials: int = 10
    prune: Literal["asha", "median"] | None = "asha"
    prune_after: int = 2
    seed: int = 0

    kind = "optuna"

    def __post_init__(self) -> None:
        """Raises ConfigError when a count is below 1, or the package is missing."""
        for key in ("trials", "startup_trials", "prune_after"):
            if getattr(self, key) < 1:
                raise ConfigError(f"sweep.{key}={getattr(self, key)}", "must be at least 1")
        if importlib.util.find_spec("optuna") is None:
            raise ConfigError(
                "sweep=optuna", "needs the package optuna", "pip install -c constraints.txt -e '.[optuna]'"
            )

    def run(self, command: "Command", study: Study) -> None:
        """Search until there are so many trials."""
        if not command.space.dimensions:
            raise ConfigError(
                "sweep=optuna", "has nothing to search", "such as optim.lr='tag(log,interval(1e-4,1e-2))'"
            )
        study.save()
        trials = _Trials(self, command, study)
        command.run(study, trials, total=self.trials, metric=self.metric)
        trials.report()

    def pruner(self) -> "BasePruner":
        """What decides which runs are stopped."""
        from optuna import pruners

        if self.prune == "asha":
            return pruners.SuccessiveHalvingPruner(min_resource=self.prune_after, reduction_factor=_KEPT_SHARE)
        if self.prune == "median":
            return pruners.MedianPruner(n_startup_trials=2, n_warmup_steps=self.prune_after - 1)
        return pruners.NopPruner()


def open_search(settings: Optuna, journal: Path, key: str) -> "Search":
    """The search that the journal holds, or a new one.

    Args:
        settings: of the sweep.
        journal: file.
        key: what may not change: the command and the objective.

    Raises:
        ConfigError: it was begun with another command.
    """
    import optuna
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    journal.parent.mkdir(parents=True, exist_ok=True)
    backend = JournalFileBackend(str(journal))
    search = optuna.create_study(
        storage=optuna.storages.JournalStorage(backend),
        study_name="search",
        direction=settings.direction,
        pruner=settings.pruner(),
        load_if_exists=True,
    )
    if (before := search.user_attrs.get("command", key)) != key:
        raise ConfigError(
            f"study={journal.parent.name}", f"is a search that was begun with {before}", "study=… begins another one"
        )
    search.set_user_attr("command", key)
    return search


class _Trials:
    """Feeds the launcher with trials, and the search with what they gave."""

    def __init__(self, settings: Optuna, command: "Command", study: Study) -> None:
        import optuna

        self.settings, self.command, self.study = settings, command, study
        self.at_once = command.slots
        key = f"{' '.join(sorted(command.space.typed))} ({settings.direction} {settings.metric})"
        self.search = open_search(settings, study.folder / "optuna.journal", key)
        trials = self.search.get_trials(deepcopy=False)
        states = optuna.trial.TrialState
        self._interrupted = [
            optuna.trial.Trial(self.search, one._trial_id) for one in trials if one.state == states.RUNNING
        ]
        done = sum(one.state in (states.COMPLETE, states.PRUNED) for one in trials)
        self._to_ask = settings.trials - done - len(self._interrupted)
        self._open: dict[int, Trial] = {}
        self._curves: dict[int, Curve] = {}
        self._twins: dict[int, list[Trial]] = {}

    def take(self) -> Job | None:
        """The next trial that needs a run; one that is there already is told at once."""
        while len(self._open) < self.at_once and (trial := self._next()) is not None:
            overrides = [f"{one.key}={suggest(trial, one)}" for one in self.command.space.dimensions]
            settings, run = self.command.describe(overrides)
            if self._is_known(trial, run):
                continue
            job = self._job(trial, overrides, run)
            self._open[job.number], self._curves[job.number] = trial, Curve(run, self.settings.metric)
            if not self.command.is_finished(settings, run):
                return job
            self.study.set(job, "finished")
            self.ended(job)
        return None

    def _is_known(self, trial: "Trial", run: Path) -> bool:
        """Whether another trial has the same settings; then it has, or will have, the same result."""
        same = next((one for one in self.study.jobs if one.run == str(run) and one.number != trial.number), None)
        if same is None:
            return False
        if same.number in self._open:
            self._twins.setdefault(same.number, []).append(trial)
            return True
        if same.state not in ("finished", "pruned"):
            return False
        curve = Curve(run, self.settings.metric)
        curve.update()
        self._tell(trial, same, curve)
        return True

    def _tell(self, trial: "Trial", job: Job, curve: Curve) -> None:
        from optuna.trial import TrialState

        if job.state == "finished":
            self.search.tell(trial, curve.last)
        else:
            self.search.tell(trial, state=TrialState.PRUNED if job.state == "pruned" else TrialState.FAIL)

    def _next(self) -> "Trial | None":
        if self._interrupted:
            return self._interrupted.pop(0)
        if self._to_ask < 1:
            return None
        self._to_ask -= 1
        # A sampler for each trial: one that went on drawing could not be continued.
        self.search.sampler = self._sampler(len(self.search.get_trials(deepcopy=False)))
        return self.search.ask()

    def _sampler(self, number: int) -> Any:
        from optuna.samplers import RandomSampler, TPESampler

        seed = (self.settings.seed * 1_000_003 + number) % 2**32
        if self.settings.sampler == "random":
            return RandomSampler(seed=seed)
        return TPESampler(seed=seed, n_startup_trials=self.settings.startup_trials)

    def _job(self, trial: "Trial", overrides: list[str], run: Path) -> Job:
        job = next((one for one in self.study.jobs if one.number == trial.number), None)
        if job is None:
            job = Job(number=trial.number, overrides=overrides, run=str(run))
            self.study.jobs.append(job)
        job.run = str(run)
        return job

    def prunes(self, job: Job) -> bool:
        """Report the validations that are new; stop at the first one at which the run is too far behind."""
        curve, trial = self._curves[job.number], self._open[job.number]
        curve.update()
        known = self.search.get_trials(deepcopy=False)[trial.number].intermediate_values
        for number, step in enumerate(sorted(curve.values), start=1):
            if number in known:
                continue
            trial.report(curve.values[step], number)
            if trial.should_prune():
                return True
        return False

    def ended(self, job: Job) -> None:
        """Tell the search; a run that was stopped with the study stays open, and is continued with it."""
        trial, curve = self._open.pop(job.number), self._curves.pop(job.number)
        curve.update()
        if diverged(job):
            self.study.set(job, "pruned", job.error)
        twins = self._twins.pop(job.number, [])
        if job.state == "stopped":
            return
        if job.state == "finished" and curve.last is None:
            self.study.set(job, "failed", f"sweep.metric={self.settings.metric} is not in {job.run}/metrics.csv")
        for one in (trial, *twins):
            self._tell(one, job, curve)

    def report(self) -> None:
        """Say which trial is the best."""
        from optuna.trial import TrialState

        if not self.search.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
            return
        best = self.search.best_trial
        job = next((one for one in self.study.jobs if one.number == best.number), None)
        where = f"{' '.join(job.overrides)} ({job.run})" if job else f"as trial {best.number}"
        log.info("best            %s %.4f: %s", self.settings.metric, best.value, where)


def suggest(trial: "Trial", dimension: Dimension) -> str:
    """The trial's value of a dimension, as the command line has it."""
    if dimension.choices:
        return str(trial.suggest_categorical(dimension.key, dimension.choices))
    if dimension.is_whole:
        return str(trial.suggest_int(dimension.key, int(dimension.low), int(dimension.high), log=dimension.log))
    value = trial.suggest_float(dimension.key, dimension.low, dimension.high, log=dimension.log)
    return number_text(float(f"{value:.4g}"))
