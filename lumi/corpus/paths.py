"""From what a user typed for a path to the files that it means, in an order that does not depend on the machine."""

# os.path.abspath keeps symbolic links (whose targets may have other names) and glob leaves hidden files out: Path does not.
# ruff: noqa: PTH100, PTH207

import difflib
import glob
import os
from collections.abc import Callable
from pathlib import Path

from lumi.corpus.streams import read_errors
from lumi.errors import DataError


def find_files(patterns: list[str], is_known: Callable[[Path], bool], known: str) -> dict[str, Path]:
    """The files that ``patterns`` stand for: name → path, sorted by name.

    A pattern is taken as the file or folder of exactly that name if there is one, so that names with ``*`` or ``[`` in them
    work, and else as a glob with ``**``. A folder stands for all files of known formats below it, hidden ones excepted.
    A file's name is its path below the deepest folder that holds them all: moving the folder changes no name.

    Args:
        patterns: relative to the working directory; ``~`` is the home directory.
        is_known: whether the format of a file is one that can be read; files of other formats are passed over, unless
            they are named exactly, which leaves it to the reader to say what is wrong.
        known: the formats, for the message.

    Raises:
        DataError: a pattern means no file, or only files of unknown formats.
    """
    found: set[Path] = set()
    for pattern in patterns:
        with read_errors(Path(pattern)):  # a folder that may not be entered, a name that is too long
            path = Path(pattern)
            path = path if path.exists() else path.expanduser()
            if path.is_file():
                usable = [path]
            else:
                files = _files_below(path) if path.is_dir() else _matches(path)
                usable = [file for file in files if is_known(file)]
                if not usable:
                    raise _nothing(pattern, path, files, known)
        found.update(Path(os.path.abspath(file)) for file in usable)
    root = os.path.commonpath([file.parent for file in found])
    return dict(sorted((_name(file.relative_to(root)), file) for file in found))


def _name(path: Path) -> str:
    # Linux lets a file name be any bytes; here it becomes an id and a key in JSON.
    return os.fsencode(path.as_posix()).decode("utf-8", "backslashreplace")


def _files_below(folder: Path) -> list[Path]:
    files = []
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        files += [Path(parent, name) for name in names if not name.startswith(".")]
    return [file for file in files if file.is_file()]


def _matches(pattern: Path) -> list[Path]:
    files = []
    for match in map(Path, glob.iglob(str(pattern), recursive=True)):
        files += _files_below(match) if match.is_dir() else [match] if match.is_file() else []
    return files


def _nothing(pattern: str, path: Path, files: list[Path], known: str) -> DataError:
    found = f"source.path={pattern!r}"
    if files:
        names = ", ".join(sorted({file.name for file in files})[:5])
        return DataError(found, f"holds no file of a known format, only: {names}", f"known: {known}")
    if path.is_dir():
        return DataError(found, "is a folder without files", f"known: {known}")
    # The deepest folder that exists, and the part below it that does not.
    missing = path
    while not missing.parent.exists():
        missing = missing.parent
    rule = "matches no file" if glob.has_magic(pattern) else "does not exist"
    return DataError(found, f"{rule} (in {Path.cwd()})", _nearest(missing))


def _nearest(missing: Path) -> str:
    if not missing.parent.is_dir():
        return f"{missing.parent} is a file, not a folder"
    names = sorted(name for name in (entry.name for entry in missing.parent.iterdir()) if not name.startswith("."))
    near = difflib.get_close_matches(missing.name, names, n=3, cutoff=0.5)
    if near:
        return f"did you mean {' or '.join(repr(str(missing.parent / name)) for name in near)}?"
    if not names:
        return f"{missing.parent} is empty"
    folder = "it" if missing.parent == Path() else str(missing.parent)
    return f"{folder} holds: {', '.join(names[:10])}{', …' if len(names) > 10 else ''}"
