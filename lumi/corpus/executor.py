"""Where the tasks of a stage run: on this machine, on SLURM, or on Ray (``executor=local | slurm | ray``).

The same pipeline for all of them: a list of datatrove steps that is run once for each task, with the task's number. A task
that has finished leaves a mark in the stage's folder and is never run again, so a stage that was stopped goes on where it
was. What a task could not do it writes down, so that its message reaches the user whatever machine it ran on.
"""

import contextlib
import ctypes
import dataclasses
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from datatrove.executor.base import PipelineExecutor
from datatrove.executor.local import LocalPipelineExecutor
from datatrove.pipeline.base import PipelineStep
from datatrove.utils.stats import PipelineStats
from tqdm import tqdm

from lumi.corpus.blocks import read_json, write_json
from lumi.corpus.document import is_count
from lumi.errors import ConfigError, DataError, Interrupted, LumiError, ResourceError, join_violations

log = logging.getLogger(__name__)

_FAILURES = {kind.__name__: kind for kind in (ConfigError, DataError, ResourceError)}
_LOST_AFTER_POLLS = 3
"""So many times in a row a job has to be unknown to SLURM with tasks undone before it counts as lost."""


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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Slurm:
    """Jobs of a SLURM cluster: an array for each stage; this process submits them and waits.

    All paths have to be on a file system that the nodes share. Stopping this process leaves the jobs running; the same
    command waits for them, or goes on from what they did.

    Args:
        partition: where the jobs run.
        time: limit of a job, as SLURM writes it.
        workers: tasks that run at the same time; null is no limit.
        cpus_per_task, mem_per_cpu_gb: of each task; a worker stays below 2 GB.
        qos: quality of service.
        tasks_per_job: blocks that a job takes one after the other.
        env_command: shell line before a job begins; null activates the virtual environment of this process.
        sbatch_args: further options of sbatch, such as ``{account: lab}``.
        poll_seconds: between two looks at the tasks.
    """

    partition: str
    time: str = "12:00:00"
    workers: int | None = None
    cpus_per_task: int = 1
    mem_per_cpu_gb: int = 3
    qos: str | None = None
    tasks_per_job: int = 1
    env_command: str | None = None
    sbatch_args: dict[str, str] = dataclasses.field(default_factory=dict)
    poll_seconds: float = 15.0

    def __post_init__(self) -> None:
        """Raises ConfigError when a count is not positive."""
        found = [
            ConfigError(f"executor.{key}={value}", "must be a whole number of at least 1")
            for key in ("workers", "cpus_per_task", "mem_per_cpu_gb", "tasks_per_job")
            if (value := getattr(self, key)) is not None and not is_count(value)
        ]
        if found:
            raise join_violations(found)

    def threads(self, n_tasks: int) -> int:
        """What SLURM gives a task."""
        return self.cpus_per_task

    def run(self, title: str, pipeline: Sequence[PipelineStep], n_tasks: int, folder: Path) -> None:
        """As `Executor.run`."""
        from datatrove.executor.slurm import SlurmPipelineExecutor

        if shutil.which("sbatch") is None:
            raise ConfigError("executor=slurm", "needs sbatch on this machine", "run it on a login node of the cluster")

        class Submitted(SlurmPipelineExecutor):
            def launch_merge_stats(self) -> None:
                """Not another job for statistics that nobody reads."""

        activate = Path(sys.prefix, "bin", "activate")
        job = Submitted(
            list(pipeline),
            tasks=n_tasks,
            time=self.time,
            partition=self.partition,
            cpus_per_task=self.cpus_per_task,
            mem_per_cpu_gb=self.mem_per_cpu_gb,
            workers=self.workers or -1,
            qos=self.qos or "",
            tasks_per_job=self.tasks_per_job,
            job_name=re.sub(r"[^\w.-]+", "-", f"lumi {title}"),
            env_command=self.env_command or (f"source {activate}" if activate.is_file() else ":"),
            sbatch_args=dict(self.sbatch_args),
            logging_dir=str(folder.absolute()),
        )
        if not job.get_incomplete_ranks():
            return
        try:
            job.run()
        except (OSError, subprocess.CalledProcessError) as error:
            raise ConfigError("executor=slurm", f"sbatch refused the job ({error})", f"see {folder}") from None
        self._wait(title, job, folder)

    def _wait(self, title: str, job: PipelineExecutor, folder: Path) -> None:
        unknown, n_tasks = 0, job.world_size
        with tqdm(total=n_tasks, desc=title, unit=" tasks", disable=None) as bar:
            while todo := job.get_incomplete_ranks():
                bar.update(n_tasks - len(todo) - bar.n)
                _raise_failure(folder, todo)
                unknown = 0 if _is_queued(str(getattr(job, "job_id", ""))) else unknown + 1
                if unknown >= _LOST_AFTER_POLLS:
                    raise _undone(title, len(todo), n_tasks, folder)
                time.sleep(self.poll_seconds)
            bar.update(n_tasks - bar.n)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ray:
    """Tasks of a Ray cluster (``pip install 'lumi[ray]'``), on a file system that the nodes share.

    Args:
        address: of the cluster; null starts one on this machine, ``auto`` finds the one that runs here.
        workers: tasks that run at the same time; null is no limit.
        cpus_per_task, mem_per_cpu_gb: reserved for each task.
    """

    address: str | None = None
    workers: int | None = None
    cpus_per_task: int = 1
    mem_per_cpu_gb: float = 2.0

    def threads(self, n_tasks: int) -> int:
        """What Ray gives a task."""
        return self.cpus_per_task

    def run(self, title: str, pipeline: Sequence[PipelineStep], n_tasks: int, folder: Path) -> None:
        """As `Executor.run`."""
        try:
            import ray
            from datatrove.executor.ray import RayPipelineExecutor
        except ImportError:
            raise ConfigError("executor=ray", "needs the package ray", "pip install 'lumi[ray]'") from None

        if not ray.is_initialized():
            ray.init(address=self.address, log_to_driver=False, include_dashboard=False, logging_level=logging.WARNING)
        job = RayPipelineExecutor(
            list(pipeline),
            tasks=n_tasks,
            workers=self.workers or -1,
            cpus_per_task=self.cpus_per_task,
            mem_per_cpu_gb=self.mem_per_cpu_gb,
            logging_dir=str(folder.absolute()),
        )
        with _quiet():
            job.run()
        if todo := job.get_incomplete_ranks():
            _raise_failure(folder, todo)
            raise _undone(title, len(todo), n_tasks, folder)


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
            context.set_forkserver_preload(["lumi.corpus"])  # imported once, and not by every worker of every stage
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


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without datatrove's own lines on the terminal; what matters of them is shown by Lumi."""
    from loguru import logger

    logger.disable("datatrove")
    try:
        yield
    finally:
        logger.enable("datatrove")


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


def _raise_failure(folder: Path, ranks: Sequence[int]) -> None:
    for rank in ranks:
        if (path := _failure_file(folder, rank)).is_file():
            kind, *parts = read_json(path)
            raise _FAILURES.get(kind, DataError)(*parts)


def _undone(title: str, n_todo: int, n_tasks: int, folder: Path) -> DataError:
    return DataError(
        f"{title}: {n_todo:,} of {n_tasks:,} tasks did not finish",
        f"see the logs in {folder}",
        "the same command goes on",
    )


def _is_queued(job_id: str) -> bool:
    """Whether SLURM still knows the job as waiting or running."""
    found = subprocess.run(["squeue", "-h", "-j", job_id, "-o", "%i"], capture_output=True, text=True, check=False)  # noqa: S603, S607
    return found.returncode == 0 and bool(found.stdout.strip())
