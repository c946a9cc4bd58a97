"""One writer per folder, however the first one ends."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lumi.errors import LockedError
from lumi.lock import folder_lock

HOLD = """
import os, sys
from pathlib import Path
from lumi.lock import folder_lock
read, write = os.pipe()
with folder_lock(Path(sys.argv[1])):
    if "fork" in sys.argv:
        if not os.fork():
            os.close(1)      # a data worker: it outlives its parent until it notices
            os.write(write, b".")
            sys.stdin.read()
            os._exit(0)
        os.read(read, 1)     # it has begun
    print(os.getpid(), flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def hold() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """``hold(folder)``: another process that holds the lock until its standard input is closed."""
    processes: list[subprocess.Popen[str]] = []

    def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", HOLD, str(folder), *arguments]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        processes.append(process)
        assert process.stdout is not None
        assert int(process.stdout.readline()) == process.pid
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def test_a_second_process_is_refused_and_told_the_pid_of_the_first(hold, tmp_path):
    first = hold(tmp_path / "run")
    with pytest.raises(LockedError, match=rf"run is being written by process {first.pid} on ") as caught:  # noqa: SIM117
        with folder_lock(tmp_path / "run"):
            pytest.fail("two writers")
    assert caught.value.exit_code == 4


def test_another_folder_is_free(hold, tmp_path):
    hold(tmp_path / "run")
    with folder_lock(tmp_path / "other"):
        pass


def test_the_lock_is_free_when_the_holder_is_done(hold, tmp_path):
    hold(tmp_path / "run").communicate("")
    with folder_lock(tmp_path / "run"):
        pass


def test_the_lock_is_free_when_the_holder_is_killed(hold, tmp_path):
    first = hold(tmp_path / "run")
    first.kill()
    first.wait()
    with folder_lock(tmp_path / "run"):
        pass


def test_a_worker_that_outlives_its_killed_parent_does_not_hold_the_lock(hold, tmp_path):
    first = hold(tmp_path / "run", "fork")
    first.kill()
    first.wait()
    with folder_lock(tmp_path / "run"):
        pass


def test_a_worker_that_ends_does_not_free_the_lock_of_its_parent(tmp_path):
    with folder_lock(tmp_path / "run"):
        child = os.fork()
        if not child:
            os._exit(0)
        os.waitpid(child, 0)
        with pytest.raises(LockedError), folder_lock(tmp_path / "run"):
            pytest.fail("two writers")


def test_waiting_queues_behind_the_holder(hold, tmp_path):
    first = hold(tmp_path / "run")
    waiting = subprocess.Popen(
        [sys.executable, "-c", HOLD.replace("argv[1])", "argv[1]), wait=True"), str(tmp_path / "run")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with pytest.raises(subprocess.TimeoutExpired):
        waiting.wait(timeout=0.5)
    first.communicate("")
    assert waiting.communicate("", timeout=10)[0] == f"{waiting.pid}\n"


def test_an_error_inside_frees_the_lock(tmp_path):
    with pytest.raises(ValueError, match="mine"), folder_lock(tmp_path / "run"):
        raise ValueError("mine")
    with folder_lock(tmp_path / "run"):
        pass


def test_the_folder_may_be_replaced_while_it_is_locked(tmp_path):
    (tmp_path / "run").mkdir()
    with folder_lock(tmp_path / "run"):
        (tmp_path / "run").rename(tmp_path / "old")
        with pytest.raises(LockedError), folder_lock(tmp_path / "run"):
            pytest.fail("two writers")


def test_a_lock_whose_text_is_damaged_still_says_that_it_is_held(tmp_path):
    with folder_lock(tmp_path / "run"):
        (tmp_path / ".run.lock").write_text('{"pid":')
        with pytest.raises(LockedError, match="written by another process"), folder_lock(tmp_path / "run"):
            pytest.fail("two writers")
