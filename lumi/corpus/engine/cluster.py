"""Stages on a cluster: SLURM job arrays, or Ray tasks (``executor=slurm | ray``).

Both need a file system that all nodes share. The process that leads waits for a stage before it begins the next.
"""

import contextlib
import dataclasses
import logging
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from datatrove.executor.base import PipelineExecutor
from datatrove.pipeline.base import PipelineStep
from tqdm import tqdm

from lumi.corpus.document import is_count
from lumi.corpus.engine.executor import raise_failure
from lumi.errors import ConfigError, DataError, join_violations

_LOST_AFTER_POLLS = 3
"""So many times in a row a job has to be unknown to SLURM with tasks undone before it counts as lost."""


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
                raise_failure(folder, todo)
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
            raise_failure(folder, todo)
            raise _undone(title, len(todo), n_tasks, folder)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without datatrove's own lines on the terminal; what matters of them is shown by Lumi."""
    from loguru import logger

    logger.disable("datatrove")
    try:
        yield
    finally:
        logger.enable("datatrove")


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
