"""Where the tasks of a stage run: on this machine (``executor=local``), or on a cluster (`lumi.corpus.engine.cluster`).

The same pipeline for all of them: a list of datatrove steps that is run once for each task, with the task's number. A task
that has finished leaves a mark in the stage's folder and is never run again, so a stage that was stopped goes on where it
was. What a task could not do it writes down, so that its message reaches the user whatever machine it ran on.
"""

import contextlib
import ctypes
import dataclasses
import logging
import os
import signal
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from datatrove.executor.local import LocalPipelineExecutor
from datatrove.pipeline.base import PipelineStep
from datatrove.utils.stats import PipelineStats
from tqdm import tqdm

from lumi.corpus.document import is_count
from lumi.corpus.engine.blocks import read_json, write_json
from lumi.errors import ConfigError, DataError, Interrupted, LumiError, ResourceError

log = logging.getLogger(__name__)

_FAILURES = {kind.__name__: kind for kind in (ConfigError, DataError, ResourceError)}


class Executor(Protocol):
    """Runs all tasks of a stage and returns when they are done."""

    def threads(self, n_tasks: int) -> int:
        """Threads that a task may use by itself."""
        ...

    def run(self, title: str, pipeline: Sequence[PipelineStep], n_tasks: int, folder: Path) -> None:
        """Run ``pipeline`` for every task from 0 to ``n_tasks - 1`` that has no mark in ``folder`` yet.

        Raises:
            LumiError: what stopped a task.
        """
        ...


class Task(PipelineStep):
    """The last step of a pipeline: it takes what flows and writes. Its errors are written down for the one who waits."""

    name = "task"
    type = "corpus"

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def work(self, data: Any, rank: int) -> None:
        """All of one task."""
        raise NotImplementedError

    def run(self, data: Any, rank: int = 0, world_size: int = 1) -> Iterator[Any]:
        """Do the work; nothing flows on."""
        failure = _failure_file(self.folder, rank)
        failure.unlink(missing_ok=True)
        try:
            self.work(data, rank)
        except LumiError as error:
            write_json(failure, [type(error).__name__, error.found, error.rule, error.fix])
            raise
        except FileNotFoundError as error:
            parts = (f"{error.filename}", "has disappeared since it was written", "the same command makes it again")
            write_json(failure, [DataError.__name__, *parts])
            raise DataError(*parts) from None
        return iter(())


@dataclasses.dataclass(frozen=True, kw_only=True)
class Local:
    """Processes on this machine.

    Args:
        workers: how many; null takes all cores. It changes no byte of the result.
    """

    workers: int | None = None

    def __post_init__(self) -> None:
        """Raises ConfigError when there would be no worker."""
        if self.workers is not None and not is_count(self.workers):
            raise ConfigError(f"executor.workers={self.workers}", "must be a whole number of at least 1, or null")

    def threads(self, n_tasks: int) -> int:
        """The cores, shared among the workers."""
        return max(1, _n_cores() // min(max(1, n_tasks), self.workers or _n_cores()))

    def run(self, title: str, pipeline: Sequence[PipelineStep], n_tasks: int, folder: Path) -> None:
        """As `Executor.run`; a single task runs in this process."""
        workers = min(n_tasks, self.workers or _n_cores())
        _InProcesses(list(pipeline), tasks=n_tasks, workers=workers, logging_dir=str(folder)).run_titled(title)


class _InProcesses(LocalPipelineExecutor):
    """datatrove's local executor with a progress bar, and with workers that end with this process."""

    def run_titled(self, title: str) -> None:
        ranks = self.get_incomplete_ranks()
        bar = tqdm(total=self.tasks, initial=self.tasks - len(ranks), desc=title, unit=" tasks", delay=2, disable=None)
        with bar:
            if min(self.workers, len(ranks)) <= 1:
                for rank in ranks:
                    self._run_for_rank(rank)
                    bar.update()
                return
            import multiprocess  # datatrove's own: it pickles what the standard library's cannot

            context = multiprocess.get_context("forkserver")  # pyright: ignore[reportAttributeAccessIssue]
            context.set_forkserver_preload(
                ["lumi.corpus", "lumi.corpus.engine.pack"]
            )  # imported once, and not by every worker of every stage
            with context.Pool(min(self.workers, len(ranks)), initializer=_start_worker) as pool:
                for _ in pool.imap_unordered(self._run_for_rank, ranks):
                    bar.update()

    def _run_for_rank(self, rank: int, local_rank: int = 0, node_rank: int = -1) -> PipelineStats:
        """As datatrove's, without its log file for each task, whose opening takes longer than a small task."""
        data: Any = None
        for step in self.pipeline:
            data = step(data, rank, self.world_size)  # pyright: ignore[reportCallIssue]
        deque(data, maxlen=0)
        self.mark_rank_as_completed(rank)
        return PipelineStats()


def _start_worker() -> None:
    """A worker leaves ctrl-C to the process that leads, and does not outlive it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    libc = ctypes.CDLL(None)
    if hasattr(libc, "prctl"):
        libc.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG; the fork server, its parent, ends with the leader


@contextlib.contextmanager
def stop_on_signals() -> Iterator[None]:
    """SIGTERM ends the block as ctrl-C does, at once and cleanly: what is not complete was never visible.

    Raises:
        Interrupted: a signal came; the exit code is 128 plus its number.
    """

    def stop(number: int, _: Any) -> None:
        name = signal.Signals(number).name
        raise Interrupted(
            f"stopped by {name}", "what is done is kept", "the same command goes on", signal_number=number
        )

    try:
        before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not the main thread: signals go elsewhere
        before = {}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def mark_done(folder: Path, is_done: Sequence[bool]) -> None:
    """Set the marks of a stage's tasks by what is really there: a result may have disappeared, or its task be a new one."""
    marks = folder / "completions"
    marks.mkdir(parents=True, exist_ok=True)
    for rank, done in enumerate(is_done):
        mark = marks / f"{rank:05d}"
        if done:
            mark.touch()
        else:
            mark.unlink(missing_ok=True)


def _n_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _failure_file(folder: Path, rank: int) -> Path:
    return folder / "failures" / f"{rank:05d}.json"


def raise_failure(folder: Path, ranks: Sequence[int]) -> None:
    """Raise what one of these tasks has written down, if one has."""
    for rank in ranks:
        if (path := _failure_file(folder, rank)).is_file():
            kind, *parts = read_json(path)
            raise _FAILURES.get(kind, DataError)(*parts)
