"""One writer per folder: the second process is told who the first one is, instead of mixing their files."""

import contextlib
import fcntl
import functools
import json
import os
import socket
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from lumi.disk import disk_errors
from lumi.errors import LockedError


@contextlib.contextmanager
def folder_lock(folder: Path, *, wait: bool = False) -> Iterator[None]:
    """Hold the right to write ``folder`` while the block runs.

    The lock is the kernel's (flock), so it ends with the process however that ends; the file's text only tells who holds
    it. It stands beside the folder, because the folder itself may be replaced by a rename.

    Args:
        wait: queue behind the holder instead of failing (jobs of a sweep that share an artefact).

    Raises:
        LockedError: another process holds it, and ``wait`` is False.
        ResourceError: the disk is full, or may not be written.
    """
    path = folder.parent / f".{folder.name}.lock"
    with contextlib.ExitStack() as stack:
        with disk_errors(path):
            folder.parent.mkdir(parents=True, exist_ok=True)
            file = stack.enter_context(path.open("a+"))
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            file.seek(0)
            raise LockedError(
                f"{folder} is being written by {_holder(file.read())}",
                "one writer at a time",
                "wait for it, or use another name",
            ) from None
        with disk_errors(path):
            _sign(file)
        # A forked data worker inherits the open file, and would hold the lock for seconds after its parent was killed.
        os.register_at_fork(after_in_child=functools.partial(_let_go, weakref.ref(file)))
        yield


def _sign(file: TextIO) -> None:
    """Say who holds it."""
    file.seek(0)
    file.truncate()
    json.dump({"host": socket.gethostname(), "pid": os.getpid(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}, file)
    file.flush()


def _let_go(reference: "weakref.ref[TextIO]") -> None:
    if (file := reference()) is not None:
        file.close()


def _holder(text: str) -> str:
    try:
        who = json.loads(text)
        return f"process {who['pid']} on {who['host']} since {who['since']}"
    except (ValueError, KeyError, TypeError):
        return "another process"
