"""What a disk refuses, as a message: no space, no inodes, a limit on sizes, no permission, a device that fails.

Every writer of Lumi stands within `disk_errors`. Libraries that write through C or Rust do not raise what Python would:
safetensors has an error of its own with the system's number in its text, PyTorch a RuntimeError about a position, NumPy an
OSError without a number. All of them mean the same to whoever reads the message.
"""

import contextlib
import errno
import os
import re
from collections.abc import Iterator
from pathlib import Path

from lumi.errors import LumiError, ResourceError

_FULL = (errno.ENOSPC, errno.EDQUOT)
_REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS)
_NUMBER = re.compile(r"\(os error (\d+)\)")
_CUT_SHORT = re.compile(
    r"\d+ requested and \d+ written|inline_container\.cc:\d+\] \. unexpected pos|failed writing file"
)
"""NumPy and PyTorch, where less was written than they gave: the reason is lost."""
_FIX = "free some space, then run the same command again"


@contextlib.contextmanager
def disk_errors(target: Path, *, work: Path | None = None) -> Iterator[None]:
    """Turn what a disk refuses within the block into a message with the path and the bytes.

    Args:
        target: what is being written; named where the error does not say which file.
        work: what is removed when the block fails: its bytes are needed, and free again afterwards.

    Raises:
        ResourceError: there is no space, or the disk refuses for another reason.
    """
    try:
        yield
    except LumiError:
        raise
    except Exception as error:
        found = _explained(error, target, work)
        if found is None:
            raise
        raise found from error


def check_space(target: Path, needed_bytes: int, fix: str = _FIX) -> None:
    """Refuse to begin what cannot end.

    Args:
        target: that will be written.
        needed_bytes: it will take at the least.

    Raises:
        ResourceError: less is free.
    """
    free = free_bytes(target)
    if needed_bytes > free:
        raise ResourceError(
            f"no space left for {target} (it needs about {needed_bytes:,} bytes, {free:,} bytes are free)",
            "nothing was begun",
            fix,
        )


def free_bytes(path: Path) -> int:
    """On the file system of a path that need not exist yet."""
    facts = os.statvfs(_existing(path))
    return facts.f_bavail * facts.f_frsize


def _explained(error: Exception, target: Path, work: Path | None) -> ResourceError | None:
    """The message; None for an error that is not the disk's."""
    number, filename = _number_of(error, target)
    path = filename or target
    text = os.strerror(number) if number else ""
    if number in _FULL:
        return _no_space(target, work)
    if number == errno.EFBIG:
        rule = (
            f"may not become as large as it has to ({text}): a limit of this process (ulimit -f) or of the file system"
        )
        return ResourceError(f"{path}", rule, "raise the limit, then run the same command again")
    if number in _REFUSED:
        return ResourceError(f"{path}", f"cannot be used ({text})", "change its permissions, or use another folder")
    if number == errno.EIO:
        return ResourceError(
            f"{path}", f"its disk gives an error ({text})", "check the disk; what is whole stays whole"
        )
    return None


def _no_space(target: Path, work: Path | None) -> ResourceError:
    facts = os.statvfs(_existing(target))
    if facts.f_files and not facts.f_favail:
        files = f"{facts.f_files:,} files are there, and no more fit"
        return ResourceError(
            f"no space left while writing {target} (no inodes: {files})", "nothing half-written stays", _FIX
        )
    written = _bytes_below(work) if work is not None else 0
    free = facts.f_bavail * facts.f_frsize + written
    sizes = f"it needs more than the {free:,} bytes that are free"
    return ResourceError(f"no space left while writing {target} ({sizes})", "nothing half-written is left behind", _FIX)


def _number_of(error: Exception, target: Path) -> tuple[int | None, str | None]:
    """The system's number of an error, and the file that it names."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno, error.filename if isinstance(error.filename, str) else None
    if match := _NUMBER.search(str(error)):
        return int(match[1]), None
    if not _CUT_SHORT.search(str(error)):
        return None, None
    before = error.__cause__ or error.__context__
    if isinstance(before, OSError) and before.errno is not None:
        return before.errno, None
    return (errno.ENOSPC if free_bytes(target) < 2**20 else errno.EFBIG), None


def _existing(path: Path) -> Path:
    """A path, or the nearest folder above it that is there."""
    path = path.absolute()
    return next((place for place in (path, *path.parents) if place.exists()), Path("/"))


def _bytes_below(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
