"""Studies of runs that take half a second, each in a folder of its own."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

QUICK = Path(__file__).with_name("quick.py")


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a study's commands are typed."""

    folder: Path
    script: Path = QUICK

    def start(self, *words: str) -> subprocess.Popen[str]:
        command = [sys.executable, str(self.script), "-m", *words]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        return subprocess.Popen(
            command, cwd=self.folder, text=True, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )

    def run(self, *words: str) -> tuple[int, str]:
        """Exit code and what was said."""
        process = self.start(*words)
        said, _ = process.communicate(timeout=120)
        return process.returncode, said

    def stop_when(self, ready: Callable[[], bool], *words: str) -> tuple[int, str]:
        """The same, with a SIGTERM to the study as soon as ``ready``."""
        process = self.start(*words)
        until(lambda: ready() or process.poll() is not None)
        process.send_signal(signal.SIGTERM)
        said, _ = process.communicate(timeout=120)
        return process.returncode, said

    def study(self) -> dict[str, Any]:
        """``study.json`` of the only study."""
        (file,) = self.folder.glob("multirun/*/study.json")
        return json.loads(file.read_text())

    def states(self) -> list[str]:
        """Of the jobs, in their order."""
        return [job["state"] for job in self.study()["jobs"]] if [*self.folder.glob("multirun/*/study.json")] else []

    def log(self, label: str) -> str:
        """What a job said."""
        (file,) = self.folder.glob(f"multirun/*/{label}.log")
        return file.read_text()


def until(ready: Callable[[], bool], seconds: float = 120) -> None:
    """Wait, but not for ever."""
    end = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)
