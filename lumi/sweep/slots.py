"""Jobs as child processes, so many at a time (``slots=2``): the launcher that a study uses unless told otherwise.

A crash or a leak of one job harms no other. A signal to the study is passed on once to each job, which saves its state and
ends; the same command goes on from there. The processors are divided among the slots, and so are GPUs where there are several.
"""

import ctypes
import dataclasses
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Protocol

from lumi.errors import ConfigError, Interrupted, NumericError
from lumi.sweep.curve import Curve
from lumi.sweep.screen import Screen
from lumi.sweep.study import Job, State, Study

_POLL_SECONDS = 0.2
_STOPPED = (-signal.SIGTERM, -signal.SIGINT, 128 + signal.SIGTERM, 128 + signal.SIGINT)
_TAIL_BYTES = 8192
_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG of sys/prctl.h


class Feed(Protocol):
    """Where jobs come from: a grid's list, or a search that decides as results come in."""

    @property
    def at_once(self) -> int | None:
        """So many jobs may be out at the same time; None: no limit."""
        ...

    def take(self) -> Job | None:
        """The next job to begin, None when there is none now."""
        ...

    def prunes(self, job: Job) -> bool:
        """Whether a running job is not worth going on with."""
        ...

    def ended(self, job: Job) -> None:
        """Told of every job when it has ended."""
        ...


class Process(Protocol):
    """A job that was begun: a `subprocess.Popen`, or one of another machine."""

    def poll(self) -> int | None:
        """Its exit code, None while it runs."""
        ...

    def send_signal(self, number: int, /) -> None:
        """Pass a signal on."""
        ...

    def terminate(self) -> None:
        """Ask it to save its state and to end."""
        ...


@dataclasses.dataclass
class _Running:
    job: Job
    slot: int
    process: Process
    began: float
    curve: Curve
    is_pruned: bool = False


class Slots:
    """Runs a study's jobs.

    Args:
        study: is told of every change.
        script: what runs one of them, as an argument list; a job's overrides are appended.
        slots: processes at the same time.
        metric: shown beside a running job.
        total: jobs of the study, None where a search decides.

    Attributes:
        success: what a job is that ended well.
    """

    success: State = "finished"

    def __init__(
        self, study: Study, script: Sequence[str], *, slots: int, metric: str = "val/loss", total: int | None = None
    ) -> None:
        self.study, self.script, self.slots, self.metric = study, list(script), slots, metric
        self.screen = Screen(study, total)
        self._environments = environments(slots, os.environ, processors(), devices())
        self._running: list[_Running] = []
        self._signal: int | None = None
        self._news = ""  # a handler must not print: the line that it interrupts may be half-written

    def run(self, feed: Feed) -> None:
        """Until the feed is empty and all jobs have ended.

        Raises:
            Interrupted: a signal asked the study to stop; the jobs have saved their state.
        """
        handlers = {number: signal.signal(number, self._stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            while self._fill(feed) or self._running:
                time.sleep(_POLL_SECONDS)
                if self._news:
                    self.screen.say(self._news)
                    self._news = ""
                for running in list(self._running):
                    self._look(running, feed)
                self.screen.show([(one.job, one.curve, time.monotonic() - one.began) for one in self._running])
        finally:
            for running in self._running:  # only when something unforeseen was raised
                running.process.terminate()
            for number, handler in handlers.items():
                signal.signal(number, handler)
            self.screen.close()
        if self._signal is not None:
            raise Interrupted(
                f"study={self.study.name} was stopped by {signal.Signals(self._signal).name}",
                self.study.counts(),
                "the same command continues it",
                signal_number=self._signal,
            )

    def _fill(self, feed: Feed) -> bool:
        """Begin jobs in the free slots; whether one was begun."""
        free = [slot for slot in range(self.slots) if slot not in [one.slot for one in self._running]]
        begun = False
        while free and self._signal is None and (job := feed.take()) is not None:
            self._begin(job, free.pop(0))
            begun = True
        return begun

    def _begin(self, job: Job, slot: int) -> None:
        self.study.set(job, "running")
        command = [*self.script, *self.study.words(job)]
        process = self.start(command, self.study.log_file(job), slot)
        curve = Curve(Path(job.run), self.metric)
        self._running.append(_Running(job, slot, process, time.monotonic(), curve))
        if self._signal is not None:  # it came while the process was being started
            process.terminate()
        self.screen.tell(job)

    def start(self, command: list[str], log: Path, slot: int) -> Process:
        """Begin a job whose output goes to a file."""
        with log.open("ab") as file:
            return subprocess.Popen(  # noqa: S603  # our own script
                command,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env=self._environments[slot],
                start_new_session=True,  # Ctrl-C reaches the study, which passes it on once
                preexec_fn=die_with_parent(),  # noqa: PLW1509  # there are no threads here
            )

    def _look(self, running: _Running, feed: Feed) -> None:
        """Note how a job gets on, and whether it has ended."""
        code = running.process.poll()
        if running.curve.update() and not running.is_pruned and code is None and feed.prunes(running.job):
            running.is_pruned = True
            running.process.terminate()
        if code is None:
            return
        self._running.remove(running)
        state, error = self._outcome(running, code)
        self.study.set(running.job, state, error, seconds=time.monotonic() - running.began)
        self.screen.tell(running.job, running.curve.last)
        feed.ended(running.job)

    def _outcome(self, running: _Running, code: int) -> tuple[State, str | None]:
        if code == 0:
            return self.success, None
        if code in _STOPPED:
            return ("pruned" if running.is_pruned and self._signal is None else "stopped"), None
        if self._signal is not None and code == -signal.SIGKILL:
            return "stopped", None
        return "failed", last_error(self.study.log_file(running.job), code)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        """Pass a signal on: the first one as SIGTERM, a second one ends the jobs at once."""
        again = self._signal is not None
        self._signal = self._signal or number
        for running in self._running:
            running.process.send_signal(signal.SIGKILL if again else signal.SIGTERM)
        self._news = "killed" if again else "stopping: each job saves its state (once more: kill them)"


def last_error(log: Path, code: int) -> str:
    """Why a process failed: the last line of its output that names an error, else how it ended."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _TAIL_BYTES))
        lines = file.read().decode(errors="replace").splitlines()
    if code < 0:
        name = signal.Signals(-code).name
        hint = ": too little memory?" if -code == signal.SIGKILL else ""
        return f"killed by {name}{hint}"
    errors = [number for number, line in enumerate(lines) if re.match(r"[A-Za-z_.]*(Error|Mismatch|Exception)\b", line)]
    if errors:
        return "\n".join(lines[errors[-1] :]).strip()
    return next((line.strip() for line in reversed(lines) if line.strip()), f"exit code {code}")


def diverged(job: Job) -> bool:
    """Whether a job failed because its numbers did, which is a result, not a mistake."""
    return job.state == "failed" and (job.error or "").startswith(NumericError.__name__)


def environments(
    slots: int, inherited: Mapping[str, str], n_processors: int, devices: Sequence[str]
) -> list[dict[str, str]]:
    """What each slot's processes are given: a share of the processors, and of the GPUs where there are several."""
    shares = []
    for slot in range(slots):
        share = dict(inherited)
        if slots > 1:
            share.setdefault("OMP_NUM_THREADS", str(max(1, n_processors // slots)))
            if len(devices) > 1:
                share["CUDA_VISIBLE_DEVICES"] = ",".join(share_of(devices, slot, slots))
        shares.append(share)
    return shares


def share_of(devices: Sequence[str], slot: int, slots: int) -> list[str]:
    """GPUs of one slot: an equal part of them, or one that several slots share."""
    if slots >= len(devices):
        return [devices[slot % len(devices)]]
    return list(devices[slot * len(devices) // slots : (slot + 1) * len(devices) // slots])


def processors() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def devices() -> list[str]:
    """GPUs of this machine as CUDA names them, without waiting for torch."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [one for one in given.split(",") if one]
    if not (tool := shutil.which("nvidia-smi")):
        return []
    asked = [tool, "--query-gpu=index", "--format=csv,noheader"]
    done = subprocess.run(asked, capture_output=True, text=True, check=False)  # noqa: S603
    return done.stdout.split() if done.returncode == 0 else []


def check_slots(slots: object) -> int:
    """``slots=…`` as a number.

    Raises:
        ConfigError: it is none, or below 1.
    """
    if not isinstance(slots, int) or isinstance(slots, bool) or slots < 1:
        raise ConfigError(f"slots={slots}", "must be a whole number from 1", "slots=1 trains one run after the other")
    return slots


def child_script(arguments: Sequence[str]) -> list[str]:
    """The command that runs one job of the study that ``arguments`` (of this process) began."""
    from hydra._internal.utils import get_args  # the only place that knows its flags

    given = get_args(list(arguments[1:]))
    flags = {
        "--config-path": given.config_path,
        "--config-name": given.config_name,
        "--config-dir": given.config_dir,
    }
    chosen = [word for flag, value in flags.items() if value for word in (flag, value)]
    return [sys.executable, arguments[0], *chosen]


def die_with_parent() -> Callable[[], None] | None:
    """A function for the child: when the study is killed (kill -9), the kernel sends the job a SIGTERM."""
    if not sys.platform.startswith("linux"):
        return None
    prctl, parent = ctypes.CDLL(None).prctl, os.getpid()

    def ask() -> None:
        prctl(_DIE_WITH_PARENT, signal.SIGTERM)
        if os.getppid() != parent:  # it was killed before the kernel was asked
            os.kill(os.getpid(), signal.SIGTERM)

    return ask
