"""Files that are damaged as a whole are errors always, never shorter corpora."""

import gzip
import json
import lzma
import sys
import tracemalloc
from functools import partial

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from lumi.corpus import Document, Files, Rejected
from lumi.errors import DataError

TEXT = "\n".join(json.dumps({"text": f"row {i} {i * i * 7919 % 104729}"}) for i in range(5000)).encode()
PACK = {
    "gz": gzip.compress,
    "xz": partial(lzma.compress, preset=0),
    "zst": zstandard.ZstdCompressor(write_checksum=True).compress,  # as the zstd command does
}


def failure(path) -> DataError:
    with pytest.raises(DataError) as caught:
        list(Files(path=str(path), on_error="skip", max_rejected_ratio=1).documents())
    return caught.value


@pytest.mark.parametrize("packing", PACK)
@pytest.mark.parametrize("cut", [0, 5, 1000, -1])
def test_a_packed_file_that_is_cut_short_is_an_error(tmp_path, packing, cut):
    path = tmp_path / f"a.jsonl.{packing}"
    path.write_bytes(PACK[packing](TEXT)[:cut])
    error = failure(path)
    assert error.found == f"{path}"
    assert "cut short" in error.rule


@pytest.mark.parametrize("packing", PACK)
def test_a_flipped_bit_in_a_packed_file_is_an_error(tmp_path, packing):
    data = bytearray(PACK[packing](TEXT))
    data[len(data) // 2] ^= 1
    path = tmp_path / f"a.jsonl.{packing}"
    path.write_bytes(data)
    assert "damaged or not a" in failure(path).rule


@pytest.mark.parametrize("packing", PACK)
def test_a_text_with_the_wrong_suffix_is_an_error(tmp_path, packing):
    path = tmp_path / f"a.jsonl.{packing}"
    path.write_bytes(TEXT)
    assert f"not a .{packing} file" in failure(path).rule


@pytest.mark.parametrize("packing", PACK)
def test_archives_of_several_parts_are_read_to_the_end(tmp_path, packing):
    path = tmp_path / f"a.txt.{packing}"
    path.write_bytes(PACK[packing](b"one\n") + PACK[packing](b"") + PACK[packing](b"two\n"))
    items = Files(path=str(path), document="line").documents()
    assert [item.text for item in items if isinstance(item, Document)] == ["one", "two"]


@pytest.mark.parametrize("cut", [0, 3, 200, -1])
def test_a_parquet_file_that_is_cut_short_is_an_error(tmp_path, cut):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": [f"row {i}" for i in range(1000)]}), path)
    path.write_bytes(path.read_bytes()[:cut])
    assert "cut short or damaged" in failure(path).rule


def test_a_damaged_page_of_a_parquet_file_is_an_error(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": [f"row {i}" for i in range(1000)]}), path, use_dictionary=False)
    data = bytearray(path.read_bytes())
    data[20:400] = b"\xff" * 380
    path.write_bytes(data)
    assert "cut short or damaged" in failure(path).rule


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("body", ["x"], "has no 'text'; it has: body"),
        ("txt", ["x"], "has no 'text'; it has: txt · source.text_key=txt"),
        ("text", [1], "'text' holds int64, not strings"),
        ("text", [["x"]], "not strings"),
    ],
)
def test_a_parquet_file_without_a_column_of_text_is_an_error(tmp_path, column, values, message):
    pq.write_table(pa.table({column: values}), tmp_path / "a.parquet")
    assert message in str(failure(tmp_path / "a.parquet"))


def test_faulty_rows_of_parquet_are_counted(tmp_path):
    values = pa.array([b"a", b"\xff", None, b"", b"b"], pa.binary())
    pq.write_table(pa.table({"text": values}), tmp_path / "a.parquet")
    items = list(Files(path=str(tmp_path / "a.parquet"), on_error="skip").documents())
    assert [getattr(item, "reason", "good") for item in items] == [
        "good",
        "invalid UTF-8",
        "empty text",
        "empty text",
        "good",
    ]
    places = [item.where for item in items if isinstance(item, Rejected)]
    assert places == ["a.parquet row 2", "a.parquet row 3", "a.parquet row 4"]


@pytest.mark.skipif(sys.platform != "linux", reason="needs a file whose reading fails")
def test_a_file_that_cannot_be_read_is_an_error(tmp_path):
    (tmp_path / "a.txt").symlink_to("/proc/self/mem")
    assert "cannot be read (Input/output error)" in failure(tmp_path / "a.txt").rule


# zstandard gives back up to 32 KB for each byte of a piece.
@pytest.mark.parametrize(("packing", "size", "limit"), [("gz", 30, 15), ("xz", 30, 15), ("zst", 200, 50)])
def test_memory_is_bounded_by_max_doc_bytes(tmp_path, packing, size, limit):
    path = tmp_path / f"a.jsonl.{packing}"
    path.write_bytes(PACK[packing](b'{"text": "' + b"x" * size * 1_000_000 + b'"}\n{"text": "y"}\n'))
    tracemalloc.start()
    items = list(Files(path=str(path), on_error="skip", max_doc_bytes=1_000_000).documents())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [getattr(item, "reason", "good") for item in items] == ["too large", "good"]
    assert peak < limit * 1_000_000
