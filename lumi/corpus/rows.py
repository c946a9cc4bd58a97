"""JSON rows of local files, whole: what chat and preference mappings read (.json, .jsonl, .parquet; .gz .zst .xz)."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lumi.corpus.json_list import JsonList
from lumi.corpus.paths import find_files
from lumi.corpus.readers import file_format
from lumi.corpus.row_rules import hash_files
from lumi.corpus.streams import BOM, Oversized, open_stream, read_errors, read_lines
from lumi.corpus.text import Fault, decode_utf8
from lumi.errors import DataError

_MOST_BYTES = 16_000_000
_KNOWN = ".jsonl .ndjson .json (also .gz .zst .xz), .parquet"


def read_json_rows(path: str | list[str]) -> Iterator[tuple[str, dict[str, Any] | str]]:
    """(place, row) of every row of every file; a row that cannot be read is a string that says why.

    Raises:
        DataError: a file is missing or damaged as a whole.
    """
    patterns = [path] if isinstance(path, str) else path
    for name, file in find_files(patterns, lambda found: _format(found) is not None, _KNOWN).items():
        with read_errors(file):
            for line, row in _rows(file):
                yield f"{name}:{line}", row if isinstance(row, dict) else f"is not a JSON object: {str(row)[:60]}"


def rows_settings(
    path: str | list[str] | None, dataset: str | None, subset: str | None, split: str, revision: str | None
) -> dict[str, Any]:
    """What names the rows of local files, by hash, or of a data set on the hub.

    Raises:
        DataError: a file is missing or cannot be read.
    """
    if path is None:
        return {"dataset": dataset, "subset": subset, "split": split, "revision": revision}
    return {"files": hash_files(find_files([path] if isinstance(path, str) else path, lambda _: True, "any"))}


def field(row: Any, path: str) -> Any:
    """The value under a dotted path, None where there is none; whole numbers index lists: ``input.messages.0``."""
    for key in path.split("."):
        if isinstance(row, list) and key.lstrip("-").isdigit() and -len(row) <= int(key) < len(row):
            row = row[int(key)]
        elif isinstance(row, dict):
            row = row.get(key)
        else:
            return None
    return row


def _format(path: Path) -> str | None:
    found = file_format(path)
    return found if found in ("jsonl", "json", "parquet") else None


def _rows(path: Path) -> Iterator[tuple[int, Any]]:
    match _format(path):
        case "jsonl":
            with open_stream(path) as stream:
                for number, line in read_lines(stream, _MOST_BYTES):
                    if isinstance(line, Oversized) or line.strip():
                        yield number, _parsed(line)
        case "json":
            with open_stream(path) as stream:
                yield from JsonList(stream, f"{path}", _MOST_BYTES, []).rows()
        case "parquet":
            yield from _parquet(path)
        case _:
            raise DataError(f"{path}", "is of no known format", f"known are {_KNOWN}")


def _parsed(line: bytes | Oversized) -> Any:
    if isinstance(line, Oversized):
        return f"{line.n_bytes:,} bytes, more than {_MOST_BYTES:,}"
    text = decode_utf8(line)  # json.loads would guess at UTF-16, line by line
    if isinstance(text, Fault):
        return text.rule
    try:
        return json.loads(text.removeprefix(BOM))
    except (ValueError, RecursionError) as error:
        return f"{error}"


def _parquet(path: Path) -> Iterator[tuple[int, Any]]:
    import pyarrow as pa  # only here: a second of import that the other formats do not need
    import pyarrow.parquet as pq

    number = 0
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=64):
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
    except (pa.ArrowException, OSError) as error:
        reason = str(error).partition("\n")[0]
        raise DataError(f"{path}", f"is cut short or damaged ({reason})", "fetch or write it again") from None
