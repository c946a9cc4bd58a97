"""The rows of a file, whatever its format: each with its place, and its text or the fault that keeps it from having one."""

import dataclasses
import difflib
import io
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from lumi.corpus.json_list import JsonList
from lumi.corpus.row_rules import checked_text, too_large
from lumi.corpus.streams import BOM, PACKINGS, Oversized, open_stream, read_errors, read_lines, read_whole
from lumi.corpus.text import Fault, decode_utf8
from lumi.errors import DataError

_FORMATS = {".txt": "txt", ".md": "txt", ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "json", ".parquet": "parquet"}
_ESCAPED_BYTE = re.compile("[\udc80-\udcff]")


class Row(NamedTuple):
    """What stands at one place of a file.

    Attributes:
        label: distinguishes the row within its file: its line, or its number; empty when the file is one row.
        line: on which it begins, from 1; None where there are no lines.
        text: its text, or why it has none.
    """

    label: str
    line: int | None
    text: str | Fault

    def place(self) -> str:
        """How a person finds it, to be written after the file's name: ``:12``, ``:1 (row 12)`` or `` row 12``."""
        line = self.line
        if isinstance(self.text, Fault) and self.text.line is not None:
            line = (line or 1) + self.text.line - 1
        if line is None:
            return f" row {self.label}" if self.label else ""
        return f":{line}" if self.label in ("", f"{self.line}") else f":{line} (row {self.label})"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ReadOptions:
    """How rows become texts; the keys of `lumi.corpus.Files` of the same names."""

    text_key: list[str]
    separator: str
    document: str
    encoding: str
    max_doc_bytes: int


def file_format(path: Path) -> str | None:
    """``txt``, ``jsonl``, ``json`` or ``parquet`` by the name of a file, or None when it is none that we know."""
    suffix = path.suffix.lower()
    if suffix in PACKINGS:
        suffix = Path(path.stem).suffix.lower()
        return None if suffix == ".parquet" else _FORMATS.get(suffix)
    return _FORMATS.get(suffix)


def known_formats() -> str:
    """The suffixes, for messages."""
    return f"{' '.join(_FORMATS)}, also with {' '.join(PACKINGS)} (parquet without)"


def parquet_rows(path: Path) -> int:
    """How many rows a parquet file says it has.

    Raises:
        DataError: it is unreadable, cut short or damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.read_metadata(path).num_rows
    except (pa.ArrowException, OSError) as error:
        rule = f"is cut short or damaged ({str(error).partition(chr(10))[0]})"
        raise DataError(f"{path}", rule, "fetch or write it again") from None


def read_rows(path: Path, options: ReadOptions) -> Iterator[Row]:
    """Every row of ``path``, in order, in memory bounded by the largest row.

    Raises:
        DataError: the file as a whole cannot be used: unreadable, cut short, damaged, of an unknown format, a broken JSON
            list, or a parquet file without the column.
    """
    reader = _READERS.get(file_format(path) or "")
    if reader is None:
        raise DataError(f"{path}", "is of a format that is not known", f"known: {known_formats()}")
    with read_errors(path):
        for row in reader(path, options):
            yield (
                row if isinstance(row.text, Fault) else row._replace(text=checked_text(row.text, options.max_doc_bytes))
            )


def _text_file(path: Path, options: ReadOptions) -> Iterator[Row]:
    with open_stream(path, options.encoding) as stream:
        match options.document:
            case "file":
                data = read_whole(stream, options.max_doc_bytes)
                yield Row("", None, _plain_text(data, options))
            case "line":
                for number, line in read_lines(stream, options.max_doc_bytes):
                    if line and not (isinstance(line, bytes) and line.isspace()):
                        yield Row(f"{number}", number, _plain_text(line, options))
            case _:
                yield from _paragraphs(stream, options)


def _paragraphs(stream: io.BufferedReader, options: ReadOptions) -> Iterator[Row]:
    """Runs of lines between lines that are blank."""
    lines: list[bytes] = []
    first, size = 1, 0

    def paragraph() -> Row:
        data = b"\n".join(lines) if size <= options.max_doc_bytes else Oversized(size)
        return Row(f"{first}", first, _plain_text(data, options))

    for number, line in read_lines(stream, options.max_doc_bytes):
        if isinstance(line, bytes) and (not line or line.isspace()):
            if size:
                yield paragraph()
            lines, size = [], 0
            continue
        first = first if size else number
        size += (1 if size else 0) + (len(line) if isinstance(line, bytes) else line.n_bytes)
        if isinstance(line, bytes) and size <= options.max_doc_bytes:
            lines.append(line)
    if size:
        yield paragraph()


def _plain_text(data: bytes | Oversized, options: ReadOptions) -> str | Fault:
    if isinstance(data, Oversized):
        fault = too_large(data.n_bytes, options.max_doc_bytes)
        if options.document == "file":
            return dataclasses.replace(fault, fix=f"source.document=paragraph or {fault.fix}")
        return fault
    text = decode_utf8(data)
    # Newlines around a text separate it from others in its file; those within it are its own.
    return text if isinstance(text, Fault) else text.removeprefix(BOM).strip("\n")


def _json_lines(path: Path, options: ReadOptions) -> Iterator[Row]:
    with open_stream(path, options.encoding) as stream:
        for number, line in read_lines(stream, options.max_doc_bytes):
            if isinstance(line, Oversized):
                text = too_large(line.n_bytes, options.max_doc_bytes)
            elif not line or line.isspace():
                continue  # between rows, or the end of files that were joined
            else:
                text = _json_text(line, options)
            yield Row(f"{number}", number, text)


def _json_text(line: bytes, options: ReadOptions) -> str | Fault:
    text = decode_utf8(line)
    if isinstance(text, Fault):
        return text
    try:
        row = json.loads(text.removeprefix(BOM))
    except json.JSONDecodeError as error:
        return Fault(reason="invalid JSON", rule=f"is not JSON: {error.msg} at character {error.pos + 1:,}")
    except ValueError as error:  # an integer of more digits than Python converts
        return Fault(reason="invalid JSON", rule=f"cannot be read: {error}")
    except RecursionError:
        return Fault(reason="invalid JSON", rule="is nested too deeply")
    return _row_text(row, options)


def _row_text(row: Any, options: ReadOptions) -> str | Fault:
    """The texts under the keys, joined; null and empty ones are left out of the join."""
    if not isinstance(row, dict):
        rule = f"is {_json_type(row)}, not an object with the key {options.text_key[0]!r}"
        return Fault(reason="not an object", rule=rule)
    parts = []
    for key in options.text_key:
        if key not in row:
            return _missing_key(key, list(row))
        value = row[key]
        if value is not None and not isinstance(value, str):
            return Fault(reason="wrong type", rule=f"{key} is {_json_type(value)}, not a string")
        if value:
            parts.append(value)
    return options.separator.join(parts)


def _missing_key(key: str, keys: list[str]) -> Fault:
    shown = [repr(name)[1:-1] for name in keys[:20]]  # a key may hold control characters and surrogates
    near = difflib.get_close_matches(key, shown, n=1)
    fix = f"source.text_key={near[0]}" if near else "set source.text_key to what holds the text"
    return Fault(reason="missing key", rule=f"has no {key!r}; it has: {', '.join(shown) or 'nothing'}", fix=fix)


def _json_type(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")


def _json_file(path: Path, options: ReadOptions) -> Iterator[Row]:
    with open_stream(path, options.encoding) as stream:
        rows = JsonList(stream, f"{path}", options.max_doc_bytes, options.text_key).rows()
        for number, (line, row) in enumerate(rows, start=1):
            text = row if isinstance(row, str) else _row_text(row, options)
            if isinstance(text, str) and not text.isascii() and (byte := _ESCAPED_BYTE.search(text)):
                rule = f"is not UTF-8 (byte 0x{ord(byte[0]) - 0xDC00:02x})"
                text = Fault(reason="invalid UTF-8", rule=rule, fix="source.encoding=latin-1")
            yield Row(f"{number}", line, text)


def _parquet_file(path: Path, options: ReadOptions) -> Iterator[Row]:
    import pyarrow as pa  # only here: a second of import that the other formats do not need
    import pyarrow.parquet as pq

    number = 0
    try:
        with pq.ParquetFile(path) as file:
            _check_columns(path, file.schema_arrow, options)
            # Few rows at a time: a row may be a book.
            for batch in file.iter_batches(batch_size=64, columns=options.text_key):
                # As bytes, because pyarrow does not check that its strings are UTF-8 before they become Python's.
                columns = [batch.column(key).cast(pa.large_binary()).to_pylist() for key in options.text_key]
                for values in zip(*columns, strict=True):
                    number += 1
                    yield Row(f"{number}", None, _joined(values, options))
    except (pa.ArrowException, OSError) as error:
        rule = f"is cut short or damaged ({str(error).partition(chr(10))[0]})"
        raise DataError(f"{path}", rule, "fetch or write it again") from None


def _check_columns(path: Path, schema: Any, options: ReadOptions) -> None:
    from pyarrow import types

    for key in options.text_key:
        if key not in schema.names:
            fault = _missing_key(key, schema.names)
            raise DataError(f"{path}", fault.rule, fault.fix)
        kind = schema.field(key).type
        kind = kind.value_type if types.is_dictionary(kind) else kind
        if not any(
            check(kind) for check in (types.is_string, types.is_large_string, types.is_binary, types.is_large_binary)
        ):
            raise DataError(f"{path}", f"{key!r} holds {kind}, not strings", "choose another source.text_key")


def _joined(values: tuple[bytes | None, ...], options: ReadOptions) -> str | Fault:
    parts = []
    for value in values:
        text = decode_utf8(value or b"")
        if isinstance(text, Fault):
            return dataclasses.replace(text, fix="", line=None)
        if text:
            parts.append(text)
    return options.separator.join(parts)


_READERS: dict[str, Callable[[Path, ReadOptions], Iterator[Row]]] = {
    "txt": _text_file,
    "jsonl": _json_lines,
    "json": _json_file,
    "parquet": _parquet_file,
}
