"""Local files in the forms that people have them."""

import gzip
import lzma

import pytest

from lumi.errors import DataError
from lumi.eval.text import read_text


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
