"""JSON lists: streamed in pieces, and errors that say on which line."""

import json

import pytest

from lumi.corpus import Document, Files, Rejected
from lumi.errors import DataError


def read(path, data: str | bytes, **settings) -> list[Document | Rejected]:
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return list(Files(path=str(path), **settings).documents())


def test_a_list_of_several_pieces_gives_every_row(tmp_path):
    expected = [f"{i} " + "ä\n🙂" * (i * 137 % 5000) for i in range(300)]
    rows = json.dumps([{"n": i, "text": text} for i, text in enumerate(expected)], ensure_ascii=False, indent=1)
    assert len(rows.encode()) > 3_000_000
    items = read(tmp_path / "a.json", rows)
    assert [item.text for item in items if isinstance(item, Document)] == expected


def test_an_empty_list_has_no_rows(tmp_path):
    assert read(tmp_path / "a.json", " [ ] \n") == []


@pytest.mark.parametrize(
    ("data", "place", "message"),
    [
        ('[{"text": "a"},\n{"text": }]', 2, "is not JSON: Expecting value at character 10 of the row"),
        ('[{"text": "a"},\n\n{"text": "b"', 3, "is not JSON"),
        ('[{"text": "a"}\n', 2, "ends before a ','"),
        ('[{"text": "a"}\n{"text": "b"}]', 2, "',' expected, found '{'"),
        ('{"text": "a"}\n{"text": "b"}', 1, "one object without a list of rows; its keys: text"),
        ('{"a": 1}', 1, "one object without a list of rows; its keys: a · write it as .jsonl"),
        ('{"text": ["a"]}', 1, "one object without"),
        ('{"a": ["x"], "text": "b"}', 1, "one object without"),
        ('{"a": ["x"],\n "b": ["y"]}', 2, "more than one list: 'a' and 'b'"),
        ('["a"]\n["b"]', 2, "goes on after its list"),
        ("12", 1, "neither a list nor an object"),
        ('["a", ' + "[" * 100_000, 1, "cannot be read"),
        ('["a", ' + "9" * 5000 + "]", 1, "cannot be read"),
    ],
)
@pytest.mark.parametrize("on_error", ["fail", "skip"])
def test_a_broken_list_is_an_error_with_its_line(tmp_path, data, place, message, on_error):
    with pytest.raises(DataError) as caught:
        read(tmp_path / "a.json", data, on_error=on_error)
    assert caught.value.found == f"{tmp_path / 'a.json'}:{place}"
    assert message in str(caught.value)


def test_faulty_rows_of_a_list_are_counted_with_line_and_row(tmp_path):
    data = b'[{"text": "a"},\n\n{"text": "caf\xe9"}, {"text": 1},\n\n7, "b"]'
    items = read(tmp_path / "a.json", data, on_error="skip")
    assert [(item.where, item.reason) for item in items if isinstance(item, Rejected)] == [
        ("a.json:3 (row 2)", "invalid UTF-8"),
        ("a.json:3", "wrong type"),
        ("a.json:5 (row 4)", "not an object"),
    ]
    assert [item.text for item in items if isinstance(item, Document)] == ["a", "b"]


def test_a_row_larger_than_allowed_is_an_error_before_it_fills_the_memory(tmp_path):
    with pytest.raises(DataError, match="larger than 1,000 bytes"):
        read(tmp_path / "a.json", json.dumps(["x" * 5_000_000]), max_doc_bytes=1000)
