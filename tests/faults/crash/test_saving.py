"""K5 and K8: a kill inside a save, at random and before every single operation, loses nothing that was reported."""

import contextlib
import os
import re
import select
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

from tests.faults.crash.saving import (
    STEP_BYTES,
    Saves,
    faults_after_the_next_save,
    faults_of,
    save_and_tell,
    small_decoder,
)
from tests.faults.crash.trials import Kills
from tests.faults.ledger import Report

SEED = 5
CALLS = ("openat", "write", "fsync", "rename", "renameat2", "mkdir", "unlink", "unlinkat", "rmdir", "close", "lseek")
STRACE = shutil.which("strace")
SHM = Path("/dev/shm")
DECODER = small_decoder()


def told(pipe: int) -> int:
    """The last step that was reported through a pipe, 0 for none."""
    last = b""
    while select.select([pipe], [], [], 0)[0] and (more := os.read(pipe, 1 << 16)):
        last = more
    return int.from_bytes(last[-STEP_BYTES:], "little")


@contextlib.contextmanager
def temporary_files_in(folder: Path | None):
    """Python's temporary directory, on another file system; None leaves it."""
    before, tempfile.tempdir = tempfile.tempdir, str(folder) if folder else tempfile.tempdir
    try:
        yield
    finally:
        tempfile.tempdir = before


@pytest.mark.matrix("K5")
@pytest.mark.parametrize("elsewhere", [None, SHM], ids=["", "TMPDIR on another file system"])
@pytest.mark.parametrize("n_kills", [10, pytest.param(500, marks=pytest.mark.faults)])
def test_a_save_killed_at_any_moment_loses_nothing(
    tmp_path: Path, row: Report, n_kills: int, elsewhere: Path | None
) -> None:
    if elsewhere and not elsewhere.is_dir():
        pytest.skip("there is no other file system")
    folder, found, inside, first = tmp_path / "run", [], 0, 1
    begin = time.monotonic()
    for step in range(1, 4):
        Saves(tmp_path / "measured", DECODER).save(step)
    kills = Kills(SEED, time.monotonic() - begin)  # of three saves, though there is no end of them
    for _ in range(n_kills):
        ours, theirs = os.pipe()
        with temporary_files_in(elsewhere):
            assert kills.kill(lambda step=first, pipe=theirs: save_and_tell(folder, DECODER, step, pipe))
        inside += any(".tmp-" in path.name for path in (folder / "checkpoints").glob(".*"))
        found += faults_of(folder, told(ours))
        found += faults_after_the_next_save(folder, DECODER)
        first = max(int(path.name[5:13]) for path in (folder / "checkpoints").glob("step_*")) + 1
        for end in (ours, theirs):
            os.close(end)
    row(trials=n_kills, failures=len(found), seed=SEED, note=f"{inside} hit inside a save {found[:3] or ''}".strip())


def kill_at(call: str, number: int, folder: Path) -> str:
    """Save step 3 in a child that dies at its so-manieth system call of a kind; what strace saw."""
    ready, go = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.read(go[0], 1)  # until strace is there
            saves = Saves(folder, DECODER)
            os.write(ready[1], b"x")
            os.read(go[0], 1)
            saves.save(3)
        finally:
            os._exit(0)
    try:
        os.write(go[1], b"x")
        os.read(ready[0], 1)
        log = folder.parent / "trace"
        inject = ["-e", f"inject={call}:signal=KILL:when={number}"] if number else []
        assert STRACE
        command = [STRACE, "-f", "-p", str(child), "-o", str(log), "-e", f"trace={','.join(CALLS)}", *inject]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as tracer:
            assert tracer.stderr is not None
            attached = "attached" in tracer.stderr.readline()
            os.write(go[1], b"x")
            os.waitpid(child, 0)
            tracer.wait(timeout=20)
    finally:
        for end in (*ready, *go):
            os.close(end)
    if not attached:
        pytest.skip("a process may not be traced here")
    return log.read_text()


def before_step_3(folder: Path) -> None:
    """A run with steps 1 and 2."""
    shutil.rmtree(folder, ignore_errors=True)
    saves = Saves(folder, DECODER)
    for step in (1, 2):
        saves.save(step)


@pytest.mark.matrix("K8")
@pytest.mark.faults
@pytest.mark.skipif(STRACE is None, reason="needs strace")
def test_a_save_killed_at_every_single_system_call_recovers(tmp_path: Path, row: Report) -> None:
    folder, found, trials = tmp_path / "run", [], 0
    before_step_3(folder)
    trace = kill_at("", 0, folder)
    counts = {call: len(re.findall(rf"^\d+ +{call}\(", trace, re.MULTILINE)) for call in CALLS}
    for call, count in counts.items():
        for number in range(1, count + 1):
            before_step_3(folder)
            killed = f"+++ killed by {signal.SIGKILL.name}" in kill_at(call, number, folder)
            assert killed, f"{call} {number} of {count} was not reached"
            found += faults_of(folder, 2)
            found += faults_after_the_next_save(folder, DECODER)
            trials += 1
    said = ", ".join(f"{count} {call}" for call, count in counts.items() if count)
    row(trials=trials, failures=len(found), note=f"every one of {said} {found[:3] or ''}".strip())
