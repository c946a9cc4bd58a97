"""Rows of local files: every format, every newline, every fault, kept or named."""

import gzip
import json
import lzma
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
import zstandard

from lumi.corpus import Document, Files, Rejected
from lumi.errors import ConfigError, DataError

ROWS = [{"id": 1, "text": "one\ntwo"}, {"id": 2, "text": "drei äöü 🙂"}]
TEXTS = [row["text"] for row in ROWS]
JSONL = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
PACK = {"": bytes, ".gz": gzip.compress, ".xz": lzma.compress, ".zst": zstandard.compress}


def write(path: Path, data: bytes | str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def texts(path: Path, **settings) -> list[str]:
    items = list(Files(path=str(path), **settings).documents())
    assert all(isinstance(item, Document) for item in items), items
    return [item.text for item in items if isinstance(item, Document)]


def rejected(path: Path, **settings) -> list[tuple[str, str]]:
    items = Files(path=str(path), on_error="skip", **settings).documents()
    return [(item.where, item.reason) for item in items if isinstance(item, Rejected)]


def failure(path: Path, **settings) -> DataError:
    with pytest.raises(DataError) as caught:
        list(Files(path=str(path), **settings).documents())
    return caught.value


@pytest.mark.parametrize("packing", PACK)
@pytest.mark.parametrize(
    ("suffix", "data"),
    [
        (".jsonl", JSONL),
        (".ndjson", JSONL.replace(b"\n", b"\r\n")),
        (".json", json.dumps(ROWS).encode()),
        (".json", json.dumps(ROWS, indent=2).encode()),
        (".json", json.dumps(TEXTS).encode()),
        (".json", json.dumps({"version": 12, "about": {"text": "no"}, "data": ROWS, "end": None}).encode()),
    ],
)
def test_rows_are_read_from_every_format_and_packing(tmp_path, packing, suffix, data):
    path = write(tmp_path / f"rows{suffix}{packing}", PACK[packing](data))
    assert texts(path) == TEXTS


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.binary(), pa.dictionary(pa.int32(), pa.string())])
def test_parquet_is_read_from_any_column_of_strings(tmp_path, kind):
    table = pa.table({"id": [1, 2], "text": pa.array(TEXTS).cast(kind)})
    pq.write_table(table, tmp_path / "rows.parquet")
    assert texts(tmp_path / "rows.parquet") == TEXTS


@pytest.mark.parametrize("packing", PACK)
@pytest.mark.parametrize(
    ("document", "expected"),
    [("file", ["a\nb\n\n \n\nc"]), ("paragraph", ["a\nb", "c"]), ("line", ["a", "b", "c"])],
)
def test_plain_text_is_cut_as_asked(tmp_path, packing, document, expected):
    path = write(tmp_path / f"a.md{packing}", PACK[packing](b"\na\nb\n\n \n\nc\n"))
    assert texts(path, document=document) == expected


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "latin-1", "utf-16"])
def test_newlines_and_encodings_of_any_origin_become_one(tmp_path, newline, encoding):
    path = write(tmp_path / "a.txt", f"Zoë{newline}{newline}ist da{newline}".encode(encoding))
    assert texts(path, encoding=encoding) == ["Zoë\n\nist da"]


def test_a_byte_order_mark_is_dropped_from_json_too(tmp_path):
    assert texts(write(tmp_path / "a.jsonl", b"\xef\xbb\xbf" + JSONL)) == TEXTS
    assert texts(write(tmp_path / "a.json", b"\xef\xbb\xbf" + json.dumps(ROWS).encode())) == TEXTS


def test_newlines_inside_json_strings_are_normalised(tmp_path):
    assert texts(write(tmp_path / "a.jsonl", '{"text": "a\\r\\nb\\rc"}')) == ["a\nb\nc"]


def test_a_carriage_return_split_over_two_reads_is_one_newline(tmp_path):
    line = "x" * ((1 << 20) - 1)
    assert texts(write(tmp_path / "a.txt", f"{line}\r\nb"), document="line") == [line, "b"]


def test_several_keys_are_joined_without_the_empty_ones(tmp_path):
    rows = '{"title": "T", "text": "body"}\n{"title": null, "text": "x"}\n{"title": "", "text": "y"}\n'
    assert texts(write(tmp_path / "a.jsonl", rows), text_key=["title", "text"], separator=" - ") == [
        "T - body",
        "x",
        "y",
    ]


def test_ids_name_the_file_and_the_row(tmp_path):
    write(tmp_path / "b" / "two.jsonl", '{"text": "x"}\n\n{"text": "y"}\n')
    write(tmp_path / "a.txt", "z")
    ids = [item.id for item in Files(path=str(tmp_path)).documents() if isinstance(item, Document)]
    assert ids == ["a.txt", "b/two.jsonl:1", "b/two.jsonl:3"]


GOOD = b'{"text": "good"}'
LINE_FAULTS = [
    (b'{"text": "a"', "invalid JSON", "is not JSON"),
    (b'{"text": "a"} x', "invalid JSON", "Extra data at character 15"),
    (b'{"n": ' + b"9" * 5000 + b"}", "invalid JSON", "cannot be read"),
    (b"[" * 100_000, "invalid JSON", "nested too deeply"),
    (b'"a string"', "not an object", "is a string"),
    (b"[1]", "not an object", "is a list"),
    (b'{"txt": "a", "id": 1}', "missing key", "has no 'text'; it has: txt, id · source.text_key=txt"),
    (b'{"\\ud800\\u001b": 1}', "missing key", r"it has: \ud800\x1b"),
    (b'{"text": 3.5}', "wrong type", "text is a number, not a string"),
    (b'{"text": true}', "wrong type", "a boolean"),
    (b'{"text": ["a"]}', "wrong type", "a list"),
    (b'{"text": {"a": 1}}', "wrong type", "an object"),
    (b'{"text": "caf\xe9"}', "invalid UTF-8", "is not UTF-8 at byte 14 of the line (0xe9) · source.encoding=latin-1"),
    (b'{"text": "a\\u0000b"}', "NUL character", "holds a NUL character (at character 2)"),
    (b'{"text": "ab\\ud800"}', "lone surrogate", "holds the lone surrogate U+D800 (at character 3)"),
    (b'{"text": "' + b"x" * 200_000 + b'"}', "too large", "has 200,012 bytes, more than source.max_doc_bytes=150000"),
]


@pytest.mark.parametrize(("line", "reason", "message"), LINE_FAULTS, ids=range(len(LINE_FAULTS)))
def test_a_faulty_line_stops_with_its_place_or_is_counted(tmp_path, line, reason, message):
    path = write(tmp_path / "a.jsonl", b"\n".join([GOOD, line, GOOD]))
    error = str(failure(path, max_doc_bytes=150_000))
    assert error.startswith(f"{path}:2 · ")
    assert message in error
    assert "source.on_error=skip" in error
    items = list(Files(path=str(path), on_error="skip", max_doc_bytes=150_000).documents())
    assert [getattr(item, "reason", "good") for item in items] == ["good", reason, "good"]


@pytest.mark.parametrize("text", ['""', '" \\n\\t\\u3000"', "null"])
@pytest.mark.parametrize("on_error", ["fail", "skip"])
def test_rows_without_text_are_counted_and_never_an_error(tmp_path, text, on_error):
    path = write(tmp_path / "a.jsonl", f'{{"text": {text}}}\n{{"text": "x"}}')
    items = list(Files(path=str(path), on_error=on_error).documents())
    assert items[0] == Rejected(where="a.jsonl:1", reason="empty text", detail="has no text")
    assert isinstance(items[1], Document)


def test_short_texts_are_counted(tmp_path):
    path = write(tmp_path / "a.txt", "abc\nabcd")
    assert rejected(path, document="line", min_chars=4) == [("a.txt:1", "too short")]


def test_invalid_utf8_in_a_text_file_is_found_by_line_and_byte(tmp_path):
    path = write(tmp_path / "a.txt", b"eins\r\nzwei\r\nd\xe9\r\n")
    assert str(failure(path)).startswith(
        f"{path}:3 · is not UTF-8 at byte 2 of the line (0xe9) · source.encoding=latin-1"
    )
    assert texts(path, encoding="latin-1") == ["eins\nzwei\ndé"]


def test_utf16_is_recognised_by_its_mark(tmp_path):
    assert "source.encoding=utf-16" in str(failure(write(tmp_path / "a.txt", "hello".encode("utf-16"))))


def test_bytes_outside_the_encoding_asked_for_are_found_by_their_place(tmp_path):
    path = write(tmp_path / "a.txt", b"x" * 2_000_000 + b"\x81")
    assert "is not charmap at byte 2,000,001" in str(failure(path, encoding="cp1252"))


def test_utf16_without_its_mark_is_an_error_of_the_file(tmp_path):
    assert "utf-16-le" in str(failure(write(tmp_path / "a.txt", b"hello "), encoding="utf-16"))


@pytest.mark.parametrize("document", ["file", "paragraph", "line"])
def test_a_huge_line_is_named_with_its_size(tmp_path, document):
    path = write(tmp_path / "a.txt.gz", gzip.compress(b"a\n\n" + b"x" * 3_000_000 + b"\n\nb"))
    size = 3_000_006 if document == "file" else 3_000_000
    assert f"has {size:,} bytes" in str(failure(path, document=document, max_doc_bytes=1000))
    kept = Files(path=str(path), document=document, max_doc_bytes=1000, on_error="skip").documents()
    assert [item.text for item in kept if isinstance(item, Document)] == ([] if document == "file" else ["a", "b"])


def test_a_document_of_four_megabytes_is_kept(tmp_path):
    text = "wörd " * 700_000
    assert texts(write(tmp_path / "a.jsonl", json.dumps({"text": text}))) == [text]


def test_too_many_faulty_rows_stop_the_reading(tmp_path):
    path = write(tmp_path / "a.jsonl", b"\n".join([GOOD] * 98 + [b"{"] * 2))
    error = failure(path, on_error="skip")
    assert "2 of 100 rows are faulty (2 invalid JSON)" in error.found
    assert rejected(path, max_rejected_ratio=0.02) == [("a.jsonl:99", "invalid JSON"), ("a.jsonl:100", "invalid JSON")]


def test_settings_follow_the_content_and_not_the_place(tmp_path):
    for folder in ("here", "there/below"):
        write(tmp_path / folder / "a.txt", "same")
    here, there = (Files(path=str(tmp_path / folder)).settings() for folder in ("here", "there/below"))
    assert here == there
    write(tmp_path / "here" / "a.txt", "other")
    assert Files(path=str(tmp_path / "here")).settings() != there


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("path", 3),
        ("path", []),
        ("text_key", [1]),
        ("document", "page"),
        ("on_error", "ignore"),
        ("encoding", "utf-9"),
        ("encoding", "rot13"),
        ("min_chars", 0),
        ("max_doc_bytes", 1.5),
        ("max_rejected_ratio", 2),
        ("weight", "big"),
    ],
)
def test_a_wrong_setting_is_refused_at_once(setting, value):
    with pytest.raises(ConfigError, match=rf"source\.{setting}="):
        Files(**{"path": "x.txt", setting: value})


def test_all_wrong_settings_are_in_one_error():
    with pytest.raises(ConfigError, match="2 settings"):
        Files(path="x.txt", document="page", on_error="ignore")


def test_the_configuration_shows_the_defaults_of_the_class():
    path = Path(__file__).parents[2] / "conf" / "source" / "files.yaml"
    shown = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert shown.pop("_target_") == "lumi.corpus.Files"
    assert shown == {**vars(Files(path="x")), "path": "???"}
