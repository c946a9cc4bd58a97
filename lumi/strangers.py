"""Small files that somebody else may have written: read in bounded memory, and only what they seem to be.

Whoever sends an artefact chooses its JSON and the names in its manifest. A link to a device never ends, a name may lead out of
the folder, and a list a million levels deep ends Python's recursion; here each of them is one message instead.
"""

import json
import stat
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lumi.errors import DataError

LARGEST_JSON_BYTES = 64 * 2**20
"""No JSON of ours comes near it: parsed, it takes up to ten times as much memory."""
_LONGEST_PART_BYTES = 255  # what file systems allow
_LONGEST_NAME_BYTES = 1024


def read_bounded(path: Path, limit_bytes: int = LARGEST_JSON_BYTES) -> bytes:
    """The bytes of a regular file, at most so many.

    Raises:
        DataError: it is a link, a device or a pipe, or larger.
        OSError: it is not there or cannot be read.
    """
    facts = path.lstat()
    if not stat.S_ISREG(facts.st_mode):
        raise DataError(f"{path}", "is not a regular file", "copy the file itself to this place")
    if facts.st_size > limit_bytes:
        raise DataError(
            f"{path} has {facts.st_size:,} bytes",
            f"at most {limit_bytes:,} are read of such a file",
            "it was not made by Lumi: make it again",
        )
    with path.open("rb") as file:
        return file.read(limit_bytes)


def read_object(
    path: Path, error: type[DataError] = DataError, *, what: str = "a readable JSON object", fix: str = ""
) -> dict[str, Any]:
    """The JSON object in a file.

    Args:
        error: class of what is raised.
        what: it should be, for the message.
        fix: what a person can do when it is no such file.

    Raises:
        DataError: it is missing, unreadable, not JSON, nested too deeply, or something else than an object.
    """
    try:
        found = json.loads(read_bounded(path))
    except OSError as problem:
        raise error(f"{path}", f"is not {what} ({problem.strerror or problem})", fix) from None
    except (ValueError, RecursionError) as problem:
        raise error(f"{path}", f"is not {what} ({problem})", fix) from None
    if not isinstance(found, dict):
        raise error(f"{path}", f"is not {what}, but a JSON {type(found).__name__}", fix)
    return found


def check_names(manifest: Path, names: Iterable[str]) -> None:
    """Refuse names of files that lead out of a folder, or that another file system would take for one another.

    Args:
        manifest: the file that names them, for messages.

    Raises:
        DataError: at the first name that breaks a rule.
    """
    seen: dict[str, str] = {}
    for name in names:
        if fault := _fault(name):
            raise DataError(f"{manifest} names the file {name[:80]!r}", f"names must stay inside the folder: {fault}")
        twin = seen.setdefault(unicodedata.normalize("NFC", name).casefold(), name)
        if twin != name:
            raise DataError(
                f"{manifest} names the files {twin!r} and {name!r}",
                "names must differ by more than case and accents' form",
            )


def _fault(name: str) -> str | None:
    """What is wrong with a name, if anything is."""
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        return "it is not Unicode"
    parts = name.split("/")
    if name.startswith("/") or any(part in ("", ".", "..") for part in parts):
        return "each part must be a plain name"
    if "\\" in name or any(unicodedata.category(char) in ("Cc", "Cf", "Zl", "Zp") for char in name):
        return "no backslash and no invisible character"
    if size > _LONGEST_NAME_BYTES or any(len(part.encode()) > _LONGEST_PART_BYTES for part in parts):
        return f"it has {size:,} bytes"
    return None


def is_inside(folder: Path, name: str) -> bool:
    """Whether this is a regular file in the folder itself: no link on the way to it, no device."""
    *above, last = name.split("/")
    try:
        for part in above:
            folder = folder / part
            if stat.S_ISLNK(folder.lstat().st_mode):
                return False
        return stat.S_ISREG((folder / last).lstat().st_mode)
    except OSError:
        return False
