"""R1, R3: a bad row is left out by a rule, counted by its reason and named by its place; a bad file stops the work by name."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lumi.corpus import Corpus, Document, Files, Local, build_corpus, read_corpus
from lumi.corpus.chat import ChatFiles, build_chat
from lumi.corpus.preference import PairFiles
from lumi.errors import DataError
from lumi.manifest import read_manifest, sha256_file

FAULTS: dict[str, tuple[bytes, Any]] = {
    # The value of the text's key, and what becomes of it: None is left out.
    "empty": (b'""', None),
    "white space": (b'" \\n\\t\\u3000"', None),
    "null": (b"null", None),
    "a number": (b"3.5", None),
    "NaN": (b"NaN", None),
    "infinity": (b"-Infinity", None),
    "a boolean": (b"true", None),
    "a list": (b'["a"]', None),
    "an object": (b'{"a": 1}', None),
    "NUL": (b'"a\\u0000b"', None),
    "half a surrogate pair": (b'"ab\\ud800"', None),
    "right to left and zero width": (b'"\\u202eab\\u200b\\u2066"', "\u202eab\u200b\u2066"),
    "a byte order mark within": (b'"a\\ufeffb"', "a\ufeffb"),
    "invalid UTF-8": (b'"caf\xe9"', None),
    "half a character": (b'"\xe2\x82"', None),
    "a surrogate pair": (b'"\\ud83e\\udd8a"', "🦊"),
}
LINES: dict[str, tuple[Callable[[bytes], bytes], Any]] = {
    # What is done to a good line.
    "JSON cut short": (lambda line: line[:-3], None),
    "JSON with an end": (lambda line: line + b" x", None),
    "a list": (lambda line: b"[1]", None),
    "a string": (lambda line: b'"text"', None),
    "no such key": (lambda line: b'{"other": "a"}', None),
    "nested 100,000 deep": (lambda line: b'{"a": ' * 100_000, None),
    "a number of 5,000 digits": (lambda line: b'{"n": ' + b"9" * 5000 + b"}", None),
    "UTF-16": (lambda line: line.decode().encode("utf-16-le"), None),
    "CRLF": (lambda line: line + b"\r", "good"),
    "the same key twice": (lambda line: line.replace(b"{", b'{"text": "x", "output": "x", "chosen": "x", '), "good"),
    "the same row twice": (lambda line: line, "good"),
}


def corpus_lines(path: Path) -> list[Any]:
    return list(Files(path=f"{path}", on_error="skip").documents())


READERS: dict[str, tuple[bytes, Callable[[Path], list[Any]], Callable[[Any], str]]] = {
    # A line with @ for the text, what reads a file of them, and the text of what it gives.
    "lines": (b'{"text": @}', corpus_lines, lambda item: item.text),
    "a list": (b'{"text": @}', corpus_lines, lambda item: item.text),
    "conversations": (
        b'{"instruction": "q", "output": @}',
        lambda path: list(ChatFiles(path=f"{path}", on_error="skip").conversations()),
        lambda item: item.messages[-1].content,
    ),
    "pairs": (
        b'{"prompt": "q", "chosen": @, "rejected": "worse"}',
        lambda path: list(PairFiles(path=f"{path}", on_error="skip").pairs()),
        lambda item: item.chosen,
    ),
}


NORMALISED = {("pairs", "a list"): "a", ("a list", "line: a string"): "text"}
"""Of a list of messages the last is the answer, and a JSON list may be one of texts."""


@pytest.mark.matrix("R1")
@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("fault", [*FAULTS, *(f"line: {name}" for name in LINES)])
def test_a_bad_row_is_left_out_or_normalised_and_its_neighbours_stay(row, tmp_path, reader, fault):
    shape, read, text_of = READERS[reader]
    good = shape.replace(b"@", b'"good"')
    value, expected = LINES[fault.removeprefix("line: ")] if fault.startswith("line: ") else FAULTS[fault]
    line = value(good) if callable(value) else shape.replace(b"@", value)
    expected = NORMALISED.get((reader, fault), expected)
    is_list = reader == "a list"
    path = tmp_path / ("a.json" if is_list else "a.jsonl")
    path.write_bytes(b"[" + b",\n".join([good, line, good]) + b"]" if is_list else b"\n".join([good, line, good]))
    try:
        items = read(path)
    except DataError as error:  # a list has no lines to start anew from: the whole file is refused, by line
        assert (is_list, expected, f"{path}:" in error.found) == (True, None, True)  # noqa: PT017
    else:
        assert [text_of(items[0]), text_of(items[-1])] == ["good", "good"]
        assert len(items) == 3
        if expected is None:
            assert items[1].reason
            assert len(items[1].reason) <= 30
            assert items[1].where.startswith(path.name)
            assert items[1].where.endswith(":2")
        else:
            assert text_of(items[1]) == expected
    row(trials=1, note=f"{reader}: {fault}")


def bad_file(folder: Path, n_good: int) -> Path:
    """All faults of lines, one after the other, among good rows."""
    lines = [json.dumps({"text": f"Good row number {number} with some words."}).encode() for number in range(n_good)]
    bad = [b'{"text": ' + value + b"}" for value, expected in FAULTS.values() if expected is None]
    bad += [change(lines[0]) for change, expected in LINES.values() if expected is None]
    step = n_good // len(bad)
    for number, line in enumerate(bad):
        lines.insert(number * (step + 1), line)
    folder.mkdir()
    (folder / "rows.jsonl").write_bytes(b"\n".join(lines))
    return folder / "rows.jsonl"


@pytest.mark.matrix("R1")
def test_counts_add_up_and_are_the_same_for_any_number_of_workers(row, tmp_path):
    n_good, path = 3000, bad_file(tmp_path / "in", 3000)
    n_bad = sum(expected is None for _, expected in (*FAULTS.values(), *LINES.values()))
    made = []
    for workers in (1, 2):
        source = Files(path=f"{path}", on_error="skip", max_rejected_ratio=0.05)
        corpus = Corpus(name="files", sources={"files": source}, block_megabytes=0.02)
        build_corpus(corpus, tmp_path / f"{workers}", executor=Local(workers=workers))
        made.append(read_manifest(tmp_path / f"{workers}"))
    assert made[0].files == made[1].files
    assert len(list(read_corpus(tmp_path / "1"))) == n_good
    facts = made[0].info["sources"]["files"]
    assert sum(facts["rejected"].values()) == n_bad
    row(trials=n_bad, note=f"{n_bad} of {n_good + n_bad} rows left out, by reason: {len(facts['rejected'])}")


@pytest.mark.matrix("R1")
def test_conversations_are_counted_by_reason_too(row, tmp_path):
    good = [json.dumps({"instruction": f"q{number}", "output": "a"}) for number in range(40)]
    bad = ['{"instruction": "q"}', "[", '{"instruction": "q", "output": 3}', good[0]]
    (tmp_path / "a.jsonl").write_text("\n".join([*good, *bad]))
    source = ChatFiles(path=f"{tmp_path / 'a.jsonl'}", on_error="skip", max_rejected_ratio=0.2)
    info = build_chat(source, tmp_path / "chat").info
    assert sum(info["rows"].values()) == 40
    assert sum(info["rejected"].values()) == 4
    assert info["rejected"]["duplicate"] == 1
    row(trials=4)


def cut_gz(path: Path) -> Path:
    data = gzip.compress(b'{"text": "a"}\n' * 1000)
    path = path.with_name("a.jsonl.gz")
    path.write_bytes(data[: len(data) // 2])
    return path


def cut_parquet(path: Path) -> Path:
    path = path.with_name("a.parquet")
    pq.write_table(pa.table({"text": ["a"] * 1000}), path)
    path.write_bytes(path.read_bytes()[:-100])
    return path


def empty_gz(path: Path) -> Path:
    path = path.with_name("a.jsonl.gz")
    path.touch()
    return path


@pytest.mark.matrix("R3")
@pytest.mark.parametrize("make", [cut_gz, cut_parquet, empty_gz])
def test_a_file_that_ends_early_stops_the_work_by_its_name(row, tmp_path, make):
    path = make(tmp_path / "x")
    reads = [
        lambda: build_corpus(Corpus(name="f", sources={"f": Files(path=f"{path}", on_error="skip")}), tmp_path / "out"),
        lambda: list(ChatFiles(path=f"{path}", on_error="skip", user=["text"], assistant="text").conversations()),
    ]
    for read in reads:
        with pytest.raises(DataError, match=path.name):
            read()
    assert not (tmp_path / "out").exists()
    row(trials=1, note=make.__name__)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Two shards, from a file."""
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": f"{n} " + "word " * 200}) + "\n" for n in range(60)))
    source = Files(path=f"{tmp_path / 'a.jsonl'}")
    build_corpus(Corpus(name="files", sources={"files": source}, block_megabytes=0.03), tmp_path / "corpus")
    return tmp_path / "corpus"


@pytest.mark.matrix("R3")
def test_a_shard_that_is_missing_is_named_before_the_first_document(row, corpus):
    shards = sorted(corpus.glob("*.jsonl.zst"))
    assert len(shards) >= 2
    shards[-1].unlink()
    with pytest.raises(DataError, match=shards[-1].name):
        next(read_corpus(corpus))
    row(trials=1)


@pytest.mark.matrix("R3")
def test_a_file_that_is_added_or_changed_meanwhile_is_not_the_same_corpus(row, corpus, tmp_path):
    before = {path.name: sha256_file(path) for path in corpus.iterdir()}
    (tmp_path / "a.jsonl").write_text('{"text": "another"}\n')
    with pytest.raises(DataError, match=r"made otherwise.*files"):
        build_corpus(
            Corpus(name="files", sources={"files": Files(path=f"{tmp_path / 'a.jsonl'}")}, block_megabytes=0.03), corpus
        )
    (corpus / "files-99999.jsonl.zst").write_bytes(b"smuggled in")
    assert all(isinstance(document, Document) for document in read_corpus(corpus))
    (corpus / "files-99999.jsonl.zst").unlink()
    assert {path.name: sha256_file(path) for path in corpus.iterdir()} == before
    row(trials=1)
