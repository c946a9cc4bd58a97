"""A disk of a given size, mounted where only one child process sees it; the kernel itself says that it is full."""

import ctypes
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

_NEWNS, _NEWUSER, _READ_ONLY, _REMOUNT, _PRIVATE_BELOW = 0x20000, 0x10000000, 1, 32, 1 << 18 | 1 << 14
_PAGE = 4096


class NotAllowed(RuntimeError):
    """This machine lets nobody but root mount something."""


def in_child(action: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What an action in a forked child returns, as JSON; its own death is an assertion here."""
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        answer: dict[str, Any] = {"died": "without a word"}
        try:
            answer = action()
        except NotAllowed as error:
            answer = {"not allowed": str(error)}
        except BaseException as error:  # noqa: BLE001  # the parent raises it again
            answer = {"died": f"{type(error).__name__}: {error}"}
        finally:
            os.write(theirs, json.dumps(answer).encode())
            os._exit(0)
    os.close(theirs)
    with os.fdopen(ours, "rb") as pipe:
        answer = json.loads(pipe.read() or b'{"died": "killed"}')
    os.waitpid(child, 0)
    if "not allowed" in answer:
        raise NotAllowed(answer["not allowed"])
    assert "died" not in answer, answer["died"]
    return answer


class SmallDisk:
    """A file system in memory, of this process alone; only for a child that ends with it.

    Args:
        place: a folder to mount it at.
        n_bytes: its size.
        n_files: files and folders that it can hold; None is as many as fit.
    """

    def __init__(self, place: Path, n_bytes: int, n_files: int | None = None) -> None:
        self.place, self._libc = place, ctypes.CDLL(None, use_errno=True)
        user, group = os.getuid(), os.getgid()
        if user != 0 and self._libc.unshare(_NEWUSER) == 0:
            Path("/proc/self/setgroups").write_text("deny")
            Path("/proc/self/uid_map").write_text(f"0 {user} 1")
            Path("/proc/self/gid_map").write_text(f"0 {group} 1")
        if self._libc.unshare(_NEWNS) != 0:
            raise NotAllowed(os.strerror(ctypes.get_errno()))
        self._mount(b"none", b"/", None, _PRIVATE_BELOW, None)
        place.mkdir(parents=True, exist_ok=True)
        self._options = f",nr_inodes={n_files}" if n_files else ""
        self._mount(b"tmpfs", os.fsencode(place), b"tmpfs", 0, self._sized(n_bytes))

    def resize(self, n_bytes: int) -> None:
        """Take or free some space; the number of files is no limit any more."""
        self._options = self._options and ",nr_inodes=100000"
        self._mount(b"tmpfs", os.fsencode(self.place), b"tmpfs", _REMOUNT, self._sized(n_bytes))

    def freeze(self) -> None:
        """Allow nothing but reading."""
        self._mount(b"tmpfs", os.fsencode(self.place), b"tmpfs", _REMOUNT | _READ_ONLY, None)

    def used_bytes(self) -> int:
        """That are taken."""
        facts = os.statvfs(self.place)
        return (facts.f_blocks - facts.f_bfree) * facts.f_frsize

    def _sized(self, n_bytes: int) -> bytes:
        return f"size={max(_PAGE, n_bytes)}{self._options}".encode()

    def _mount(self, *arguments: Any) -> None:
        if self._libc.mount(*arguments) != 0:
            raise NotAllowed(os.strerror(ctypes.get_errno()))
