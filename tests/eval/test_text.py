"""Local files in the forms that people have them."""

import gzip
import json
import lzma
import sys
import types

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lumi.errors import ConfigError, DataError
from lumi.eval.text import TextTask, read_text


def test_a_text_file_is_taken_as_it_is(tmp_path):
    path = tmp_path / "a.tokens.txt"
    path.write_bytes("\ufeffnée \r\n\n".encode())
    assert read_text(path) == "née \r\n\n"


def test_rows_of_a_hub_data_set_become_lines(tmp_path):
    path = tmp_path / "wikitext.jsonl"
    path.write_text('{"text": ""}\n{"text": " = Title = \\n"}\n{"text": "no newline"}\n\n')
    assert read_text(path) == "\n = Title = \nno newline\n"


@pytest.mark.parametrize(("suffix", "compress"), [(".gz", gzip.compress), (".xz", lzma.compress)])
def test_compressed_files_are_read(tmp_path, suffix, compress):
    path = tmp_path / f"a.jsonl{suffix}"
    path.write_bytes(compress(b'{"body": "x"}\n'))
    assert read_text(path, key="body") == "x\n"


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.txt", b"", "is empty"),
        ("a.txt", b"ab\xff", "byte 2.*not UTF-8"),
        ("a.jsonl", b'{"text": "a"}\n{', ":2.*not JSON"),
        ("a.jsonl", b'{"text": 1}', ":1.*no text under 'text'"),
        ("a.jsonl", b"[]", ":1.*no text"),
        ("a.txt.gz", b"not gzip", "cannot be read"),
        ("a.txt.xz", b"not xz", "cannot be read"),
    ],
)
def test_a_file_that_cannot_be_scored_is_named(tmp_path, name, data, message):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError, match=message):
        read_text(tmp_path / name)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        read_text(tmp_path / "a.txt")


def test_a_public_text_is_the_same_from_every_form(tmp_path, monkeypatch):
    rows = [{"text": ""}, {"text": " = Title = \n"}, {"text": "no newline"}]
    (tmp_path / "w.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "w.parquet")
    streamed = types.SimpleNamespace(load_dataset=lambda *_, **__: rows, disable_progress_bars=lambda: None)
    monkeypatch.setitem(sys.modules, "datasets", streamed)
    tasks = [TextTask(name="w", path=str(tmp_path / name)) for name in ("w.jsonl", "w.parquet")]
    tasks.append(TextTask(name="w", dataset="Salesforce/wikitext", subset="wikitext-2-raw-v1"))
    assert {task.read() for task in tasks} == {"\n = Title = \nno newline\n"}


def test_a_public_text_needs_a_place():
    with pytest.raises(ConfigError, match=r"task\.w · needs a path or a dataset"):
        TextTask(name="w")
