"""The contest: every contestant is a process of its own, and they take turns, A B A B …

While one works the others wait for a line from the driver. So whatever else the machine does meets all of them alike, and each
has its own libraries and its own memory.
"""

import contextlib
import dataclasses
import json
import os
import re
import select
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from benchmarks.measure import THREAD_VARIABLES

ROOT = Path(__file__).parents[2]
_START_SECONDS = 900.0  # a model is compiled
_TURN_SECONDS = 600.0
_TAIL_LINES = 3


class Failed(Exception):
    """It could not start, or ended too early."""


@dataclasses.dataclass(frozen=True)
class Contestant:
    """Who takes part.

    Attributes:
        name: in the tables.
        command: of its process, run from the root of the repository.
        memory_bytes: that it is expected to need at most.
    """

    name: str
    command: Sequence[str]
    memory_bytes: float = 1e9


@dataclasses.dataclass
class Result:
    """What was measured of one.

    Attributes:
        name: of the contestant.
        facts: what it said when it was ready, and its peaks at the end.
        turns: one dict a turn with ``amount``, ``seconds``, ``steps``, ``loss``; the n-th turns of a group followed each other.
        error: why it has none.
    """

    name: str
    facts: dict[str, Any] = dataclasses.field(default_factory=dict)
    turns: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    error: str = ""

    @property
    def rates(self) -> list[float]:
        """Amount of work a second, turn by turn."""
        return [turn["amount"] / turn["seconds"] for turn in self.turns]

    @property
    def rate(self) -> float:
        """The median."""
        return statistics.median(self.rates)

    @property
    def step_milliseconds(self) -> float:
        """Of an optimizer step, the median."""
        return 1000 * statistics.median(turn["seconds"] / turn["steps"] for turn in self.turns)


class Worker:
    """A contestant's process."""

    def __init__(self, contestant: Contestant, environment: Mapping[str, str], log: IO[bytes]) -> None:
        self.contestant, self._log = contestant, log
        self._buffer = b""
        self.process = subprocess.Popen(
            contestant.command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            cwd=ROOT,
            env=dict(environment),
        )

    def ready(self) -> dict[str, Any]:
        """Its facts, as soon as it is warm."""
        return self._hear("ready", _START_SECONDS)

    def go(self, n: int) -> dict[str, Any]:
        """A turn."""
        self._tell({"go": n})
        return {"steps": n, **self._hear("done", _TURN_SECONDS)}

    def stop(self) -> dict[str, Any]:
        """Its peaks."""
        self._tell({"stop": True})
        peaks = self._hear("stopped", _TURN_SECONDS)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout=60)
        return peaks

    def end(self) -> None:
        """For certain."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
        self._log.close()

    def _tell(self, message: dict[str, Any]) -> None:
        assert self.process.stdin is not None, "it was opened as a pipe"
        try:
            self.process.stdin.write(json.dumps(message).encode() + b"\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            raise Failed(self._reason()) from None

    def _hear(self, event: str, seconds: float) -> dict[str, Any]:
        deadline = time.monotonic() + seconds
        line = self._line(deadline)
        while not line.startswith(b'{"event": '):  # a library printed while it was imported
            line = self._line(deadline)
        message = json.loads(line)
        if message.pop("event") != event:
            raise Failed(f"said {message} instead of {event}")
        return message

    def _line(self, deadline: float) -> bytes:
        assert self.process.stdout is not None, "it was opened as a pipe"
        descriptor = self.process.stdout.fileno()
        while b"\n" not in self._buffer:
            if not select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise Failed("took too long")
            part = os.read(descriptor, 65536)
            if not part:
                raise Failed(self._reason())
            self._buffer += part
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line

    def _reason(self) -> str:
        """The last lines that it printed, without the folders of this machine."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout=30)
        text = Path(self._log.name).read_text(encoding="utf-8", errors="replace").strip().splitlines()
        tail = " / ".join(text[-_TAIL_LINES:]) or f"ended with {self.process.returncode}"
        return re.sub(r"(?:/[\w.+-]+)+/", "…/", tail)[:500]


class Load:
    """How busy others keep the machine while the workers run; on Linux only.

    Args:
        pids: of the workers.
    """

    def __init__(self, pids: Sequence[int]) -> None:
        self._pids = pids
        self._begin, self._busy, self._ours = time.monotonic(), _busy_ticks(), self._worker_ticks()

    def others_share(self) -> float:
        """Of the time that all cores had since this was made."""
        cores, ticks_a_second = os.cpu_count() or 1, os.sysconf("SC_CLK_TCK")
        whole = (time.monotonic() - self._begin) * cores * ticks_a_second
        others = _busy_ticks() - self._busy - (self._worker_ticks() - self._ours)
        return max(0.0, others / whole)

    def _worker_ticks(self) -> int:
        stats = [Path(f"/proc/{pid}/stat") for pid in self._pids]
        fields = [stat.read_text().rpartition(")")[2].split() for stat in stats if stat.is_file()]
        return sum(int(field[11]) + int(field[12]) for field in fields)


def _busy_ticks() -> int:
    """That all cores were not idle."""
    stat = Path("/proc/stat")
    if not stat.is_file():
        return 0
    user, nice, system, _, _, irq, soft_irq = map(int, stat.read_text().splitlines()[0].split()[1:8])
    return user + nice + system + irq + soft_irq


def environment(threads: int, given: Mapping[str, str] | None = None) -> dict[str, str]:
    """Of all workers: equally many threads, none that waits by spinning, and compilation within the process."""
    fixed = {"OMP_WAIT_POLICY": "PASSIVE", "TORCHINDUCTOR_COMPILE_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    silent = {"HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}
    return {**os.environ, **dict.fromkeys(THREAD_VARIABLES, str(threads)), **fixed, **silent, **(given or {})}


def race(
    contestants: Sequence[Contestant],
    *,
    rounds: int,
    steps: Callable[[dict[str, Any]], int],
    threads: int,
    say: Callable[[str], None],
) -> list[Result]:
    """Let them take turns.

    Args:
        rounds: turns of each.
        steps: of a turn, from the facts of the first one that started.
        say: is told what happens.
    """
    results = {one.name: Result(one.name) for one in contestants}
    with tempfile.TemporaryDirectory(prefix="bench-log-") as logs, worker_pool() as workers:
        for number, contestant in enumerate(contestants):
            log = (Path(logs) / f"{number}.log").open("wb")
            workers[contestant.name] = worker = Worker(contestant, environment(threads), log)
            with _noting(results, workers, contestant.name, say):
                results[contestant.name].facts = facts = worker.ready()
                say(f"  {contestant.name}: ready, a step took {facts['step_seconds']:.3f} s")
        if workers:
            n = steps(results[next(iter(workers))].facts)
            load = Load([worker.process.pid for worker in workers.values()])
            for turn in range(rounds):
                say(f"  round {turn + 1} of {rounds}, {n} steps each")
                for name, worker in list(workers.items()):
                    with _noting(results, workers, name, say):
                        results[name].turns.append(worker.go(n))
            share = load.others_share()
            for name in workers:
                results[name].facts["others_share"] = share
        for name, worker in list(workers.items()):
            with _noting(results, workers, name, say):
                results[name].facts["peaks"] = worker.stop()
    return list(results.values())


@contextlib.contextmanager
def worker_pool() -> Iterator[dict[str, Worker]]:
    """By name; whatever happens, none is left behind."""
    workers: dict[str, Worker] = {}
    try:
        yield workers
    finally:
        for worker in workers.values():
            worker.end()


@contextlib.contextmanager
def _noting(
    results: dict[str, Result], workers: dict[str, Worker], name: str, say: Callable[[str], None]
) -> Iterator[None]:
    """One that fails is out of the contest, and the others go on without it."""
    try:
        yield
    except Failed as error:
        results[name] = Result(name, error=str(error))
        workers.pop(name).end()
        say(f"  {name} is left out: {error}")


def groups(contestants: Sequence[Contestant], always: Sequence[str], room_bytes: float) -> list[list[Contestant]]:
    """Groups that fit into memory; each has those in ``always``, which the others are compared with."""
    common = [one for one in contestants if one.name in always]
    others = [one for one in contestants if one.name not in always]
    room = room_bytes - sum(one.memory_bytes for one in common)
    found: list[list[Contestant]] = [[]]
    for one in others:
        if found[-1] and sum(member.memory_bytes for member in found[-1]) + one.memory_bytes > room:
            found.append([])
        found[-1].append(one)
    return [[*common, *members] for members in found]
