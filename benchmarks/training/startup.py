"""Part ``startup``: seconds until a command has done the first thing that was asked of it, files in the page cache."""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from benchmarks.measure import Table
from benchmarks.training.driver import ROOT, Failed
from benchmarks.training.options import Options
from benchmarks.training.pretrain import make_text, run_overrides

_POLL_SECONDS = 0.01
_PATIENCE_SECONDS = 300.0


def measure_startup(options: Options, arch: str, folder: Path) -> Table:
    """The first step, ``--help``, and imports alone, in turns."""
    make_text(options, arch)
    environment = {**os.environ, "OMP_NUM_THREADS": str(options.threads)}
    python = sys.executable

    def first_step(number: int) -> float:
        return seconds_to_first_step(run_overrides(options, arch, folder, f"run-{number}"), folder, number, environment)

    def ended(*command: str) -> Callable[[int], float]:
        return lambda _: seconds_to_end(command, environment)

    measured: dict[str, Callable[[int], float]] = {
        f"train.py arch={arch}, to the first step": first_step,
        "train.py --help": ended(python, "train.py", "--help"),
        "import lumi.run": ended(python, "-c", "import lumi.run"),
        "import torch": ended(python, "-c", "import torch"),
        "python": ended(python, "-c", ""),
    }
    seconds: dict[str, list[float]] = {name: [] for name in measured}
    for number in range(options.rounds + 1):
        for name, measure in measured.items():
            options.say(f"{name}, {number} of {options.rounds}")
            taken = measure(number)
            if number:  # the first time prepares data and warms caches
                seconds[name].append(taken)
    rows = [
        {"command": name, "seconds": statistics.median(times), "from": min(times), "to": max(times)}
        for name, times in seconds.items()
    ]
    note = f"medians of {options.rounds} fresh processes each, in turns; the data is prepared, nothing is compiled"
    return Table(title="Start", rows=rows, notes=[note], raw=seconds)


def seconds_to_first_step(overrides: Sequence[str], folder: Path, number: int, environment: Mapping[str, str]) -> float:
    """Until the first row of metrics, which stands for the first optimizer step, is on disk.

    Raises:
        Failed: it never was.
    """
    metrics = folder / "runs" / f"run-{number}" / "metrics.csv"
    command = [sys.executable, "train.py", *overrides, "trainer.compile=false"]
    with (folder / "log").open("wb") as log:
        begin = time.time()
        process = subprocess.Popen(command, cwd=ROOT, env=dict(environment), stdout=log, stderr=log)
        try:
            while not metrics.exists():
                if process.poll() is not None or time.time() - begin > _PATIENCE_SECONDS:
                    raise Failed(f"train.py ended with {process.poll()} before its first step")
                time.sleep(_POLL_SECONDS)
            return metrics.stat().st_mtime - begin
        finally:
            process.kill()
            process.wait()


def seconds_to_end(command: Sequence[str], environment: Mapping[str, str]) -> float:
    """Of the whole process."""
    begin = time.perf_counter()
    subprocess.run(command, cwd=ROOT, env=dict(environment), check=True, capture_output=True)
    return time.perf_counter() - begin
