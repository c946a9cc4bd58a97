"""A dataset of the Hugging Face hub as a source: ``python prepare.py source=hub source.dataset=OWNER/NAME``.

Rows are streamed, so nothing but the documents is kept on disk, and a stream that was stopped goes on at any row. Local
files with the same rows give the same texts without a network (``source.path=FILE``). The access token of a gated dataset
comes from the environment (HF_TOKEN) and is no setting, so that no manifest can hold it.
"""

import dataclasses
import difflib
import itertools
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from lumi.corpus.document import Document, Rejected, SourceSettings, broken_rules, is_count
from lumi.corpus.hub import hub_rows, hub_settings
from lumi.corpus.paths import find_files
from lumi.corpus.readers import file_format
from lumi.corpus.row_rules import RowFaults, checked_text, hash_files, is_number, is_words
from lumi.corpus.rows import field, read_json_rows
from lumi.corpus.streams import read_errors
from lumi.corpus.text import Fault, text_fault
from lumi.errors import ConfigError, join_violations

# Raised whenever the same rows would give other documents than before.
READER_VERSION = 1
_DECISIVE = ("separator", "id_key", "min_chars", "max_doc_bytes", "on_error")


class _Row(NamedTuple):
    """A row, or why it cannot be read: under its id, as lists of rejected rows name it, and where a person finds it."""

    id: str
    where: str
    place: str
    value: dict[str, Any] | str


@dataclasses.dataclass(kw_only=True)
class Hub(SourceSettings):
    """The documents of a dataset on the Hugging Face hub, one a row.

    Rules for rows, the same as for `lumi.corpus.Files`: a row without text, shorter than ``min_chars``, or not wanted by
    ``keep`` and ``at_least`` is counted as rejected and never an error. A missing key, a value of another type, a NUL
    character, a lone surrogate and more bytes than ``max_doc_bytes`` are faults, which ``on_error`` decides about. Keys may
    be dotted paths into a row: ``data.0.text``.

    Args:
        dataset: its name on the hub, ``owner/name``; needs ``pip install 'lumi[hub]'``.
        subset: its configuration; null is the only one, ``*`` takes all.
        split: such as train.
        revision: a commit or tag, so that the rows cannot change; null is the newest.
        path: local files with the same rows, which win over ``dataset``: .json .jsonl .parquet, also .gz .zst .xz (parquet
            without); a file, folder or glob, or a list of these.
        name: of its part of the corpus, and of its loss in the logs.
        text_key: key of the text, or several, whose texts are joined.
        separator: between joined texts.
        id_key: key of a string or a whole number that is unique in the dataset, the document's id; null takes the number of
            the row.
        keep: key → value: only rows that have this value, such as ``{language: en}``.
        at_least: key → number: only rows that have at least this number, such as ``{score: 3}``.
        min_chars: shorter texts are rejected.
        on_error: ``fail`` stops at the first fault with its row; ``skip`` counts it and goes on.
        max_rejected_ratio: with ``skip``, the share of faulty rows above which the build stops (from 100 rows on).
        max_doc_bytes: largest text in UTF-8 bytes.
        weight, tokens, max_chars, language, category, licence, notes: as in `Source`.

    Raises:
        ConfigError: a setting has the wrong type or value; all of them in one error.
    """

    dataset: str | None = None
    subset: str | None = None
    split: str = "train"
    revision: str | None = None
    path: str | list[str] | None = None
    name: str = "hub"
    text_key: str | list[str] = "text"
    separator: str = "\n\n"
    id_key: str | None = None
    keep: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    at_least: Mapping[str, float] = dataclasses.field(default_factory=dict)
    min_chars: int = 1
    on_error: str = "fail"
    max_rejected_ratio: float = 0.01
    max_doc_bytes: int = 16_000_000

    def __post_init__(self) -> None:
        if violations := [*self.violations(), *self._violations()]:
            raise join_violations(violations)

    def settings(self) -> dict[str, Any]:
        """The options that decide the documents, and which rows: of files their name and SHA-256, not where they are.

        Raises:
            DataError: there is no file, or one cannot be read.
        """
        options = {key: getattr(self, key) for key in _DECISIVE}
        wanted = {"text_key": self._text_keys(), "keep": dict(self.keep), "at_least": dict(self.at_least)}
        return {"kind": "hub", "reader_version": READER_VERSION, **options, **wanted, **self._row_settings()}

    def documents(self) -> Iterator[Document | Rejected]:
        """As `documents_from` the first row on."""
        return self.documents_from(0)

    def documents_from(self, start: int) -> Iterator[Document | Rejected]:
        """One item a row, from the ``start``-th row on: so many items taken before, and this goes on where they ended.

        Raises:
            ConfigError: the package that reads from the hub is not installed.
            DataError: a faulty row and ``on_error=fail``; too many of them and ``on_error=skip``; the dataset cannot be
                reached; a file is missing or damaged as a whole.
        """
        faults = RowFaults(self.name, self.on_error, self.max_rejected_ratio)
        for row in self._rows(start):
            faults.n_rows += 1
            item = self._item(row)
            yield item if isinstance(item, Document) else faults.rejected(item, where=row.where, place=row.place)
        faults.check()

    def _item(self, row: _Row) -> Document | Fault:
        if isinstance(row.value, str):
            return Fault(reason="not a JSON object", rule=row.value)
        if fault := self._unwanted(row.value):
            return fault
        text = self._text(row.value)
        if isinstance(text, Fault):
            return text
        known = row.id if self.id_key is None else _id(row.value, self.id_key)
        return known if isinstance(known, Fault) else Document(text=text, id=known)

    def _unwanted(self, row: dict[str, Any]) -> Fault | None:
        for key, wanted in self.keep.items():
            value = field(row, key)
            if value != wanted:
                missing = _missing(row, key, "keep")
                rule = f"{key} is {value!r:.60}"
                return missing or Fault(reason=f"{key} is not {wanted!r:.60}", rule=rule, harmless=True)
        for key, least in self.at_least.items():
            value = field(row, key)
            if value is not None and not is_number(value):
                return Fault(reason="wrong type", rule=f"{key} is {value!r:.60}, not a number")
            if value is None or not value >= least:
                missing = _missing(row, key, "at_least")
                return missing or Fault(reason=f"{key} is below {least}", rule=f"{key} is {value}", harmless=True)
        return None

    def _text(self, row: dict[str, Any]) -> str | Fault:
        """The texts under the keys, joined; null and empty ones are left out of the join."""
        parts = []
        for key in self._text_keys():
            value = field(row, key)
            if value is None and (fault := _missing(row, key, "text_key")):
                return fault
            if value is not None and not isinstance(value, str):
                return Fault(reason="wrong type", rule=f"{key} is {value!r:.60}, not a string")
            if value:
                parts.append(value)
        text = checked_text(self.separator.join(parts), self.max_doc_bytes)
        if isinstance(text, Fault):
            return text
        if len(text) < self.min_chars:
            return Fault(reason="too short", rule=f"has {len(text)} characters", harmless=True)
        return text

    def _rows(self, start: int) -> Iterator[_Row]:
        if self.path is not None:
            yield from itertools.islice(_file_rows(_files(self.path)), start, None)
            return
        assert self.dataset is not None, "checked when made"
        offline = "source.path=FILE reads a local copy"
        for place, row in hub_rows(self.dataset, self.subset, self.split, self.revision, offline=offline, start=start):
            yield _Row(place, place, place, row)

    def _row_settings(self) -> dict[str, Any]:
        if self.path is None:
            assert self.dataset is not None, "checked when made"
            return hub_settings(self.dataset, self.subset, self.split, self.revision)
        return {"files": hash_files(_files(self.path))}

    def _text_keys(self) -> list[str]:
        return [self.text_key] if isinstance(self.text_key, str) else list(self.text_key)

    def _violations(self) -> list[ConfigError]:
        words, maybe = "must be a string or a list of strings", "must be a string, or null"
        rules = {
            "dataset": (_is_word_or_none(self.dataset), maybe),
            "subset": (_is_word_or_none(self.subset), maybe),
            "split": (_is_word(self.split) and "[" not in self.split, "must be the name of a split, without [from:to]"),
            "revision": (_is_word_or_none(self.revision), maybe),
            "path": (self.path is None or is_words(self.path), f"{words}, or null"),
            "text_key": (is_words(self.text_key), words),
            "separator": (isinstance(self.separator, str), "must be a string"),
            "id_key": (_is_word_or_none(self.id_key), maybe),
            "keep": (_has_words(self.keep), "must be a mapping of keys to values: {language: en}"),
            "at_least": (
                _has_words(self.at_least) and all(is_number(n) and math.isfinite(n) for n in self.at_least.values()),
                "must be a mapping of keys to numbers: {score: 3}",
            ),
            "min_chars": (is_count(self.min_chars), "must be a whole number of at least 1"),
            "on_error": (self.on_error in ("fail", "skip"), "must be fail or skip"),
            "max_rejected_ratio": (is_number(self.max_rejected_ratio, 0, 1), "must be a number from 0 to 1"),
            "max_doc_bytes": (is_count(self.max_doc_bytes), "must be a whole number of at least 1"),
        }
        found = broken_rules("source", self, rules)
        if self.path is None and self.dataset is None:
            found.append(
                ConfigError("source.dataset=null", "needs a dataset of the hub or a file", "source.dataset=OWNER/NAME")
            )
        return found


def _files(path: str | list[str]) -> dict[str, Path]:
    patterns = [path] if isinstance(path, str) else path
    known = ".jsonl .ndjson .json, also with .gz .zst .xz, and .parquet"
    return find_files(patterns, lambda file: file_format(file) in ("jsonl", "json", "parquet"), known)


def _file_rows(files: dict[str, Path]) -> Iterator[_Row]:
    for name, file in files.items():
        kind = file_format(file)
        with read_errors(file):
            # Rows and not lines are counted: several rows of a list may stand on one line.
            for number, (place, row) in enumerate(read_json_rows(f"{file}"), start=1):
                line = place.rpartition(":")[2]
                below = {"jsonl": f":{line}", "json": f":{line} (row {number})"}.get(f"{kind}", f" row {number}")
                yield _Row(f"{name}:{number}", f"{name}{below}", f"{file}{below}", row)


def _missing(row: dict[str, Any], key: str, option: str) -> Fault | None:
    """The fault of a row that does not have the key; null counts as a value."""
    if _has(row, key):
        return None
    shown = [repr(name)[1:-1] for name in list(row)[:20]]  # a key may hold control characters and surrogates
    near = difflib.get_close_matches(key, shown, n=1)
    fix = f"set source.{option} to {near[0] if near else 'a key that is there'}"
    return Fault(reason="missing key", rule=f"has no {key!r}; it has: {', '.join(shown) or 'nothing'}", fix=fix)


def _has(row: dict[str, Any], key: str) -> bool:
    above, _, last = key.rpartition(".")
    parent = field(row, above) if above else row
    if isinstance(parent, list):
        return last.isdigit() and int(last) < len(parent)
    if isinstance(parent, dict):
        return last in parent
    return parent is None and bool(above) and _has(row, above)  # what is below a null is null


def _id(row: dict[str, Any], key: str) -> str | Fault:
    value = field(row, key)
    if value is None and (fault := _missing(row, key, "id_key")):
        return fault
    if isinstance(value, str | int) and not isinstance(value, bool) and text_fault(f"{value}") is None:
        return f"{value}"
    return Fault(reason="no id", rule=f"{key} is {value!r:.60}, which is no id", fix="source.id_key=null counts rows")


def _is_word(value: object) -> bool:
    return isinstance(value, str) and bool(value)


def _is_word_or_none(value: object) -> bool:
    return value is None or _is_word(value)


def _has_words(value: object) -> bool:
    return isinstance(value, Mapping) and all(map(_is_word, value))
