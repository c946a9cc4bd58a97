"""Timing side by side: contestants take turns, so that whatever else the machine does slows all of them alike."""

import dataclasses
import gc
import importlib.metadata
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS")
_PACKAGES = ("lumi", "datatrove", "datasketch", "rensa", "sentencepiece", "numpy", "zstandard", "xxhash", "ftfy")

Seconds = dict[str, list[float]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table:
    """A result as it is printed, and as it was measured.

    Args:
        title: of the table.
        rows: column → value, one dict a row; all rows have the same columns.
        notes: what the figures are of, a line each.
        raw: seconds of every contestant and repeat, and whatever else was counted.
    """

    title: str
    rows: Sequence[Mapping[str, Any]]
    notes: Sequence[str] = ()
    raw: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def markdown(self) -> str:
        """The table with its title and notes."""
        head = list(self.rows[0])
        lines = [head, ["---", *["---:"] * (len(head) - 1)], *([_cell(row[key]) for key in head] for row in self.rows)]
        body = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        notes = "".join(f"\n- {note}" for note in self.notes)
        return f"## {self.title}\n\n{body}\n{notes}\n"


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if not isinstance(value, float):
        return f"{value:,}" if isinstance(value, int) else str(value)
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def alternate(
    contestants: Mapping[str, Callable[[Any], object]], repeats: int, prepare: Callable[[], Any] = lambda: None
) -> Seconds:
    """Seconds of each contestant, one for each repeat, in turns: A B A B …

    Args:
        contestants: name → what is timed; it is given what ``prepare`` returns, which is not timed.
        repeats: how often all of them have a turn.
        prepare: makes what a turn uses up.
    """
    seconds: Seconds = {name: [] for name in contestants}
    gc.collect()
    gc.freeze()  # what was imported is not searched for garbage during a turn
    for _ in range(repeats):
        for name, run in contestants.items():
            argument = prepare()
            start = time.perf_counter()
            run(argument)
            seconds[name].append(time.perf_counter() - start)
    gc.unfreeze()
    return seconds


def rate(amount: float, seconds: Sequence[float]) -> float:
    """The median of ``amount`` a second."""
    return amount / statistics.median(seconds)


def speedup(seconds: Sequence[float], reference: Sequence[float]) -> float:
    """How many times faster than the reference: the median over the repeats, whose two turns followed each other."""
    return statistics.median(theirs / ours for ours, theirs in zip(seconds, reference, strict=True))


def percent(part: float, whole: float) -> float | None:
    """A share in percent, or None of nothing."""
    return 100 * part / whole if whole else None


def n_bytes(texts: Sequence[str]) -> int:
    """UTF-8 bytes of all texts."""
    return sum(len(text.encode()) for text in texts)


def single_threaded() -> None:
    """Begin this program again with one thread for every library that has its own; processes are counted by themselves."""
    if any(os.environ.get(name) != "1" for name in THREAD_VARIABLES):
        environment = {**os.environ, **dict.fromkeys(THREAD_VARIABLES, "1")}
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)


def n_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def machine() -> dict[str, Any]:
    """What the figures depend on besides the program."""
    cpu_info = Path("/proc/cpuinfo")
    names = cpu_info.read_text().splitlines() if cpu_info.is_file() else []
    model = next((line.split(":", 1)[1].strip() for line in names if line.startswith("model name")), "")
    return {"system": platform.platform(), "cpu": model, "cores": n_cores(), "load": os.getloadavg()}


def versions() -> dict[str, str]:
    """Of Python, of Lumi's commit, and of the packages that are compared."""
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    found = {"python": platform.python_version(), "commit": commit.stdout.strip()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
