"""Jobs as processes of a Ray cluster (``hydra/launcher=ray``), on a file system that its nodes share.

Ray decides when and on which node a job begins; all else is as with slots: a job's own process and log, signals that are passed
on, curves that are watched, a study that goes on where it was stopped.
"""

import dataclasses
import logging
import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lumi.errors import ConfigError
from lumi.sweep.slots import Process, Slots, die_with_parent
from lumi.sweep.study import Study


@dataclasses.dataclass(frozen=True, kw_only=True)
class Resources:
    """What a job is given.

    Attributes:
        address: of the cluster; None starts one on this machine, ``auto`` finds the one that runs here.
        num_cpus: reserved for each job, and its threads.
        num_gpus: the same; a part of one has several jobs share it.
        at_once: jobs that are handed to Ray at a time; it begins those that it has room for.
    """

    address: str | None = None
    num_cpus: float = 1
    num_gpus: float = 0
    at_once: int = 64

    def __post_init__(self) -> None:
        """Raises ConfigError for amounts that cannot be."""
        for key, above, is_fine in (
            ("num_cpus", "above 0", self.num_cpus > 0),
            ("num_gpus", "at least 0", self.num_gpus >= 0),
            ("at_once", "at least 1", self.at_once >= 1),
        ):
            if not is_fine:
                raise ConfigError(f"hydra.launcher.{key}={getattr(self, key)}", f"must be {above}")


class RaySlots(Slots):
    """Runs a study's jobs on a Ray cluster.

    Args:
        study, script, metric, total: as `Slots`.
        resources: of each job.

    Raises:
        ConfigError: Ray is not installed, or no cluster is at the address.
    """

    def __init__(
        self, study: Study, script: Sequence[str], resources: Resources, *, metric: str, total: int | None
    ) -> None:
        super().__init__(study, script, slots=resources.at_once, metric=metric, total=total)
        self._resources = resources
        self._ray = _connected(resources)

    def start(self, command: list[str], log: Path, slot: int) -> Process:
        """Hand a job to Ray."""
        threads = {"OMP_NUM_THREADS": str(max(1, int(self._resources.num_cpus)))}
        amounts = {"num_cpus": self._resources.num_cpus, "num_gpus": self._resources.num_gpus}
        runner = self._ray.remote(_Runner).options(**amounts)
        return _Remote(self._ray, runner.remote(command, Path.cwd(), log.absolute(), threads), log)


class _Runner:
    """On a node, in a process of Ray's: one job as its child."""

    def __init__(self, command: list[str], folder: Path, log: Path, environment: dict[str, str]) -> None:
        with log.open("ab") as file:
            self._process = subprocess.Popen(  # noqa: S603  # our own script
                command,
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env={**os.environ, **environment},
                start_new_session=True,
                preexec_fn=die_with_parent(),  # noqa: PLW1509  # it makes two system calls
            )

    def poll(self) -> int | None:
        return self._process.poll()

    def send_signal(self, number: int) -> None:
        self._process.send_signal(number)


class _Remote:
    """A job from here: as a `subprocess.Popen` that never makes its caller wait."""

    def __init__(self, ray: Any, runner: Any, log: Path) -> None:
        self._ray, self._runner, self._log = ray, runner, log
        self._answer = runner.poll.remote()
        self._begun = False
        self._code: int | None = None

    def poll(self) -> int | None:
        """The exit code; None while it waits for its resources or runs."""
        if self._code is None and self._ray.wait([self._answer], timeout=0)[0]:
            self._code, self._begun = self._answered(), True
            if self._code is None:
                self._answer = self._runner.poll.remote()
            else:
                self._ray.kill(self._runner)  # gives its resources back
        return self._code

    def send_signal(self, number: int) -> None:
        """To the job; one that Ray has not begun will not be."""
        if self._begun:
            self._runner.send_signal.remote(int(number))
        else:
            self._ray.kill(self._runner)
            self._code = -int(number)

    def terminate(self) -> None:
        """Ask it to save its state and to end."""
        self.send_signal(signal.SIGTERM)

    def _answered(self) -> int | None:
        try:
            return self._ray.get(self._answer)
        except self._ray.exceptions.RayError as error:  # its node is gone, or it could not be begun there
            with self._log.open("a") as file:
                file.write(f"\n{type(error).__name__}: {str(error).splitlines()[0]}\n")
            return 1


def _connected(resources: Resources) -> Any:
    try:
        import ray
    except ImportError:
        raise ConfigError(
            "hydra/launcher=ray", "needs the package ray", "pip install -c constraints.txt -e '.[ray]'"
        ) from None
    if not ray.is_initialized():
        quiet = {"log_to_driver": False, "include_dashboard": False, "logging_level": logging.WARNING}
        try:
            ray.init(address=resources.address or "local", **quiet)
        except (ConnectionError, ValueError) as error:
            found = f"hydra.launcher.address={resources.address}"
            raise ConfigError(found, f"no cluster was found ({error})", "ray start --head, or address=null") from None
    return ray
