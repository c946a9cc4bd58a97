"""Local files as a source: ``python prepare.py source=files source.path='texts/*.txt'``.

Text, Markdown, JSON lines, JSON lists and parquet, also compressed. Reading streams: memory is bounded by the largest
document, not by the files. Every row becomes a document or is accounted for.
"""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lumi.corpus.document import Document, Rejected, SourceSettings, broken_rules, is_count
from lumi.corpus.paths import find_files
from lumi.corpus.readers import ReadOptions, file_format, known_formats, read_rows
from lumi.corpus.row_rules import RowFaults, hash_files, is_number, is_words
from lumi.corpus.text import Fault
from lumi.errors import ConfigError, join_violations

# Raised whenever the same files would give other documents than before.
READER_VERSION = 1


@dataclasses.dataclass(kw_only=True)
class Files(SourceSettings):
    r"""The documents of local files.

    Formats by suffix: ``.txt .md`` (plain text), ``.jsonl .ndjson`` (one object a line), ``.json`` (a list of objects or of
    strings, or an object that holds one list), ``.parquet``; each but parquet also ``.gz .zst .xz``.

    Rules for rows. CRLF and CR become ``\n``, a byte order mark is dropped. Blank lines between JSON lines are no rows. A
    row without text (empty, white space, null) or shorter than ``min_chars`` is counted as rejected and never an error.
    Invalid UTF-8, invalid JSON, a missing key, a value that is no string, a NUL character, a lone surrogate, and more bytes
    than ``max_doc_bytes`` are faults, which ``on_error`` decides about. Compressed files that are cut short, broken JSON
    lists and damaged parquet files are errors always.

    Args:
        path: a file, folder or glob (``**`` too) relative to the working directory, or a list of these. A name that
            exists as typed is taken literally. A folder stands for all files of known formats below it.
        name: of the corpus, and of its loss in the logs.
        text_key: key of the text in JSON rows and parquet columns, or several, whose texts are joined.
        separator: between joined texts.
        document: what a document is in plain text: ``file``, ``paragraph`` (between blank lines) or ``line``.
        encoding: of all the files but parquet, a name that Python knows.
        on_error: ``fail`` stops at the first fault with its file and line; ``skip`` counts it and goes on.
        max_rejected_ratio: with ``skip``, the share of faulty rows above which the build stops (from 100 rows on).
        min_chars: shorter texts are rejected.
        max_doc_bytes: largest line, JSON row or text in UTF-8 bytes; it bounds the memory (5 to 12 times as much).
        weight, tokens, max_chars, language, category, licence, notes: as in `Source`.

    Raises:
        ConfigError: a setting has the wrong type or value; all of them in one error.
    """

    path: str | list[str]
    name: str = "files"
    text_key: str | list[str] = "text"
    separator: str = "\n\n"
    document: str = "file"
    encoding: str = "utf-8"
    on_error: str = "fail"
    max_rejected_ratio: float = 0.01
    min_chars: int = 1
    max_doc_bytes: int = 16_000_000

    def __post_init__(self) -> None:
        if violations := [*self.violations(), *self._violations()]:
            raise join_violations(violations)

    def settings(self) -> dict[str, Any]:
        """The options that decide the documents, and name and SHA-256 of every file, but not where the files are.

        Raises:
            DataError: there is no file, or one cannot be read.
        """
        options = dataclasses.asdict(self._options())
        keys = {"on_error": self.on_error, "min_chars": self.min_chars, "reader_version": READER_VERSION}
        return {"kind": "files", **options, **keys, "files": hash_files(self._files())}

    def documents(self) -> Iterator[Document | Rejected]:
        """One document a row, in the order of the files' names.

        Raises:
            DataError: a faulty row and ``on_error=fail``; too many of them and ``on_error=skip``; a file that is missing
                or damaged as a whole.
        """
        faults = RowFaults(self.name, self.on_error, self.max_rejected_ratio)
        for name, path in self._files().items():
            for row in read_rows(path, self._options()):
                faults.n_rows += 1
                text = row.text
                if isinstance(text, str) and len(text) < self.min_chars:
                    text = Fault(reason="too short", rule=f"has {len(text)} characters", harmless=True)
                if isinstance(text, str):
                    yield Document(text=text, id=f"{name}:{row.label}" if row.label else name)
                else:
                    yield faults.rejected(text, where=f"{name}{row.place()}", place=f"{path}{row.place()}")
        faults.check()

    def _files(self) -> dict[str, Path]:
        patterns = [self.path] if isinstance(self.path, str) else self.path
        return find_files(patterns, lambda path: file_format(path) is not None, known_formats())

    def _options(self) -> ReadOptions:
        return ReadOptions(
            text_key=[self.text_key] if isinstance(self.text_key, str) else list(self.text_key),
            separator=self.separator,
            document=self.document,
            encoding=self.encoding,
            max_doc_bytes=self.max_doc_bytes,
        )

    def _violations(self) -> list[ConfigError]:
        words, text = "must be a string or a list of strings", "must be a string"
        rules = {
            "path": (is_words(self.path), words),
            "text_key": (is_words(self.text_key), words),
            "separator": (isinstance(self.separator, str), text),
            "document": (self.document in ("file", "paragraph", "line"), "must be file, paragraph or line"),
            "on_error": (self.on_error in ("fail", "skip"), "must be fail or skip"),
            "encoding": (
                _is_encoding(self.encoding),
                "must be a text encoding of Python: utf-8, latin-1, cp1252, utf-16, …",
            ),
            "max_rejected_ratio": (is_number(self.max_rejected_ratio, 0, 1), "must be a number from 0 to 1"),
            "min_chars": (is_count(self.min_chars), "must be a whole number of at least 1"),
            "max_doc_bytes": (is_count(self.max_doc_bytes), "must be a whole number of at least 1"),
        }
        return broken_rules("source", self, rules)


def _is_encoding(name: object) -> bool:
    try:
        # Codecs that do not turn text into bytes, such as rot13, raise LookupError too.
        return isinstance(name, str) and "".encode(name) is not None
    except LookupError:
        return False
