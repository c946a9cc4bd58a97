"""Evaluation texts, in plain form or as the hub's data sets come: rows with a ``text`` column."""

import dataclasses
import gzip
import io
import json
import lzma
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lumi.corpus.hub import open_rows
from lumi.corpus.paths import find_files
from lumi.corpus.rows import rows_settings
from lumi.errors import ConfigError, DataError

_ROWS = (".jsonl", ".ndjson")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextTask:
    """A public text that is scored whole, such as WikiText-2 (``tasks=[wikitext2]``).

    Args:
        name: of its figures.
        dataset, subset, split, revision: on the hub.
        path: a local file instead: plain text, or the same rows (.jsonl, .parquet).
        key: column of the text.
    """

    name: str
    dataset: str | None = None
    subset: str | None = None
    split: str = "test"
    revision: str | None = None
    path: str | None = None
    key: str = "text"

    def __post_init__(self) -> None:
        """Raises ConfigError when it says nowhere to read."""
        if self.path is None and self.dataset is None:
            raise ConfigError(f"task.{self.name}", "needs a path or a dataset")

    def texts(self) -> Iterator[str]:
        """Its lines, for a corpus that must not contain them."""
        return filter(str.strip, self.read().splitlines())

    def settings(self) -> dict[str, Any]:
        """Everything that decides `texts`: the rows by name, or by the hash of the file."""
        return {"key": self.key, **rows_settings(self.path, self.dataset, self.subset, self.split, self.revision)}

    def read(self) -> str:
        """The whole text.

        Raises:
            DataError: it cannot be read.
        """
        if self.path is not None and not self.path.endswith(".parquet"):
            files = find_files([self.path], lambda _: True, "plain text, .jsonl, also .gz and .xz")
            return "".join(read_text(file, key=self.key) for file in files.values())
        rows = open_rows(self.path, self.dataset, self.subset, self.split, self.revision, key=f"task.{self.name}")
        return _joined(_column(place, row, self.key) for place, row in rows)


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
        text = _joined(_rows(text, path, key))
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
        yield _column(f"{path}:{number}", row, key)


def _column(place: str, row: Any, key: str) -> str:
    if not isinstance(row, dict) or not isinstance(row.get(key), str):
        raise DataError(place, f"has no text under {key!r}", "name the column that holds the text")
    return row[key]


def _joined(rows: Iterator[str]) -> str:
    """WikiText's rows mostly carry their own newline, and blank lines are rows without text."""
    return "".join(row if row.endswith("\n") else f"{row}\n" for row in rows)
