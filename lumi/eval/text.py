"""Local evaluation texts, in plain form or as the hub's data sets come: rows with a ``text`` column."""

import gzip
import io
import json
import lzma
from collections.abc import Iterator
from pathlib import Path

from lumi.errors import DataError

_ROWS = (".jsonl", ".ndjson")


def read_text(path: Path, *, key: str = "text") -> str:
    """The whole text of a file.

    A ``.jsonl`` file gives its rows' ``key`` column, each row ending with a newline (the hub's WikiText rows mostly
    carry their own, and blank lines are rows without text); anything else is plain UTF-8. Both may be ``.gz`` or
    ``.xz``.

    Raises:
        DataError: the file is missing, damaged, empty, not UTF-8, or a row is not JSON or lacks the key.
    """
    suffixes = [suffix.lower() for suffix in path.suffixes[-2:]]
    try:
        with _open(path) as file:
            data = file.read()
        text = data.decode("utf-8-sig")
    except FileNotFoundError:
        raise DataError(f"{path}", "does not exist", "give the path of a text or jsonl file") from None
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}, byte {error.start}", "is not UTF-8", "convert the file, for example with iconv"
        ) from None
    except (OSError, EOFError, lzma.LZMAError) as error:
        raise DataError(f"{path}", f"cannot be read ({error})") from None
    if any(suffix in _ROWS for suffix in suffixes):
        text = "".join(row if row.endswith("\n") else f"{row}\n" for row in _rows(text, path, key))
    if not text:
        raise DataError(f"{path}", "is empty", "evaluate a file with text in it")
    return text


def _open(path: Path) -> io.BufferedIOBase:
    if path.suffix == ".gz":
        return gzip.open(path)
    return lzma.open(path) if path.suffix == ".xz" else path.open("rb")


def _rows(lines: str, path: Path, key: str) -> Iterator[str]:
    for number, line in enumerate(lines.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise DataError(f"{path}:{number}", f"is not JSON ({error})") from None
        if not isinstance(row, dict) or not isinstance(row.get(key), str):
            raise DataError(f"{path}:{number}", f"has no text under {key!r}", "name the column that holds the text")
        yield row[key]
