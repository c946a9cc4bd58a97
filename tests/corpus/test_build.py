"""The corpus on disk: exact, written once, checked on every read."""

import hashlib
import json
import logging
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lumi.corpus import Document, Files, Rejected, build, build_corpus, read_corpus
from lumi.errors import DataError


class Fixed:
    """A source of given items."""

    def __init__(self, *items: Document | Rejected, **settings: Any) -> None:
        self.items, self._settings = items, settings
        self.name, self.weight, self.licence, self.notes = "fixed", 1.0, "CC0-1.0", "made by | hand"

    def settings(self) -> dict[str, Any]:
        return self._settings

    def documents(self) -> Iterator[Document | Rejected]:
        yield from self.items


def doc(text: str, **fields: Any) -> Document:
    return Document(text=text, id=fields.pop("id", text[:9]), **fields)


DOCS = (doc("one\ntwo"), doc("drei äöü 🙂\u2028", meta={"b": 1, "a": [None]}), doc("x", bits=0.1))


def listing(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_documents_come_back_exactly(tmp_path):
    build_corpus(Fixed(*DOCS), tmp_path / "c")
    assert list(read_corpus(tmp_path / "c")) == list(DOCS)


def test_the_manifest_counts_what_is_there(tmp_path):
    rows = (Rejected(where="a:1", reason="bad"), Rejected(where="a:2", reason="bad", detail="y"))
    info = build_corpus(Fixed(doc("ä", bits=1.5), *rows, doc("bcd", bits=2.0)), tmp_path / "c").info
    assert (info["documents"], info["chars"], info["bytes"], info["bits"]) == (2, 4, 5, 3.5)
    assert (info["rejected"], info["duplicates"]) == ({"bad": 2}, 0)
    assert (info["name"], info["licence"]) == ("fixed", "CC0-1.0")


def test_the_entropy_is_unknown_unless_every_document_has_it(tmp_path):
    assert build_corpus(Fixed(doc("a", bits=1.0), doc("b")), tmp_path / "c").info["bits"] is None


def test_equal_texts_are_kept_once_and_counted(tmp_path):
    manifest = build_corpus(
        Fixed(doc("a", id="1"), doc("b", id="2"), doc("a", id="3"), doc("a ", id="4")), tmp_path / "c"
    )
    assert [item.id for item in read_corpus(tmp_path / "c")] == ["1", "2", "4"]
    assert manifest.info["duplicates"] == 1


def test_shards_are_bounded_and_their_bytes_are_the_content_hash(tmp_path, monkeypatch):
    monkeypatch.setattr(build, "SHARD_BYTES", 100)
    documents = [doc(f"{i} " * 10) for i in range(9)] + [doc("long " * 50), doc("end")]
    manifest = build_corpus(Fixed(*documents), tmp_path / "c")
    shards = sorted((tmp_path / "c").glob("docs-*.jsonl"))
    assert len(shards) == 7  # four with two lines of 46 bytes, one with one, the long one, the last
    assert list(read_corpus(tmp_path / "c")) == documents
    assert hashlib.sha256(b"".join(map(Path.read_bytes, shards))).hexdigest() == manifest.info["content_sha256"]


def test_two_builds_give_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        build_corpus(Fixed(*DOCS, Rejected(where="x", reason="y"), seed=1), tmp_path / name)
    assert listing(tmp_path / "a") == listing(tmp_path / "b")


def test_a_second_build_does_nothing_and_says_so(tmp_path, caplog):
    first = build_corpus(Fixed(*DOCS, seed=1), tmp_path / "c")
    with caplog.at_level(logging.INFO):
        again = build_corpus(Fixed(doc("never read"), seed=1), tmp_path / "c")
    assert again == first
    assert "is up to date" in caplog.text


def test_other_settings_are_named_and_nothing_is_overwritten(tmp_path):
    build_corpus(Fixed(*DOCS, seed=1, deep={"a": 1, "b": 2}, kept=[1, 2]), tmp_path / "c")
    before = listing(tmp_path / "c")
    with pytest.raises(DataError) as caught:
        build_corpus(Fixed(doc("x"), seed=2, deep={"a": 1, "b": 3}, kept=(1, 2)), tmp_path / "c")
    assert "source.deep.b was 2, is 3, source.seed was 1, is 2 · force=true" in str(caught.value)
    assert listing(tmp_path / "c") == before


def test_many_differences_are_shortened(tmp_path):
    build_corpus(Fixed(*DOCS, files={f"{i}.txt": "old" for i in range(9)}), tmp_path / "c")
    with pytest.raises(DataError, match="and 4 more"):
        build_corpus(Fixed(*DOCS, files={f"{i}.txt": "new" for i in range(9)}), tmp_path / "c")


def test_force_builds_again(tmp_path):
    build_corpus(Fixed(*DOCS, seed=1), tmp_path / "c")
    build_corpus(Fixed(doc("new"), seed=2), tmp_path / "c", force=True)
    assert [item.text for item in read_corpus(tmp_path / "c")] == ["new"]


@pytest.mark.parametrize("force", [False, True])
def test_a_folder_that_is_not_ours_is_left_alone(tmp_path, force):
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "thesis.txt").write_text("years of work")
    with pytest.raises(DataError, match="left alone"):
        build_corpus(Fixed(*DOCS), tmp_path / "c", force=force)
    assert listing(tmp_path / "c") == {"thesis.txt": b"years of work"}


def test_a_damaged_corpus_is_refused_by_build_and_read_until_forced(tmp_path):
    build_corpus(Fixed(*DOCS), tmp_path / "c")
    path = tmp_path / "c" / "docs-00000.jsonl"
    path.write_bytes(path.read_bytes().replace(b"two", b"twa"))
    for use in (lambda: build_corpus(Fixed(*DOCS), tmp_path / "c"), lambda: next(read_corpus(tmp_path / "c"))):
        with pytest.raises(DataError, match=r"docs-00000\.jsonl has sha256"):
            use()
    build_corpus(Fixed(*DOCS), tmp_path / "c", force=True)
    assert list(read_corpus(tmp_path / "c")) == list(DOCS)


def test_a_folder_without_a_manifest_cannot_be_read(tmp_path):
    with pytest.raises(DataError, match="not a finished artefact"):
        next(read_corpus(tmp_path))


def test_a_source_without_documents_is_an_error_that_leaves_nothing(tmp_path):
    rows = [Rejected(where=f"a:{i}", reason="empty text") for i in range(1200)]
    with pytest.raises(DataError, match=r"source=fixed gave no document \(1,200 empty text\)"):
        build_corpus(Fixed(*rows), tmp_path / "data" / "c")
    assert [path.name for path in (tmp_path / "data").iterdir()] == [".c.lock"]


@pytest.mark.parametrize("text", ["", " \n", "a\0b", "a\ud800"])
def test_a_text_that_breaks_the_rules_is_an_error_of_its_source(tmp_path, text):
    with pytest.raises(DataError, match="source=fixed: document d · "):
        build_corpus(Fixed(doc(text, id="d")), tmp_path / "c")


def test_an_error_in_the_middle_leaves_the_old_corpus(tmp_path):
    build_corpus(Fixed(*DOCS), tmp_path / "c")
    with pytest.raises(DataError):
        build_corpus(Fixed(doc("new"), doc("a\0b")), tmp_path / "c", force=True)
    assert list(read_corpus(tmp_path / "c")) == list(DOCS)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".c.lock", "c"]


def test_an_entropy_that_is_no_number_cannot_be_written(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        build_corpus(Fixed(doc("a", bits=math.nan)), tmp_path / "c")


def test_a_file_that_changes_while_it_is_read_is_an_error(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("a\n" * 3)

    class Changing(Files):
        def documents(self) -> Iterator[Document | Rejected]:
            yield from super().documents()
            path.write_text("other")

    with pytest.raises(DataError, match="changed while it was read"):
        build_corpus(Changing(path=str(path)), tmp_path / "c")


def test_rejected_rows_are_listed(tmp_path):
    build_corpus(Fixed(doc("a"), Rejected(where="f.txt:7", reason="bad", detail="is ü")), tmp_path / "c")
    lines = (tmp_path / "c" / "rejected.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == [{"where": "f.txt:7", "reason": "bad", "detail": "is ü"}]


def test_the_data_card_tells_a_person_what_is_in_it(tmp_path):
    items = [doc("x" * n, bits=float(n)) for n in range(1, 102)]
    build_corpus(Fixed(*items, Rejected(where="a", reason="bad"), items[0], seed=7), tmp_path / "c")
    card = (tmp_path / "c" / "DATA_CARD.md").read_text(encoding="utf-8")
    lines = {"| Licence | CC0-1.0 |", "| Notes | made by \\| hand |", "| Documents | 101 |", "| Characters | 5,151 |"}
    lines |= {"| shortest | 1 |", "| 10 % | 11 |", "| median | 51 |", "| 90 % | 91 |", "| longest | 101 |"}
    lines |= {"| exact duplicate | 1 |", "| bad | 1 |", "| Rows left out | 2 |", '  "seed": 7,'}
    assert lines <= set(card.splitlines())
    assert "| Entropy | 1.0000 bits per byte" in card


def test_local_files_make_the_same_corpus_wherever_they_lie(tmp_path, monkeypatch):
    for folder in ("one", "two/deeper"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "a, b.jsonl").write_text('{"text": "x"}\n{"text": ""}\n')
        (tmp_path / folder / "c.txt").write_text("y\r\n")
    build_corpus(Files(path=str(tmp_path / "one")), tmp_path / "out1")
    monkeypatch.chdir(tmp_path / "two")
    build_corpus(Files(path=f"deeper{os.sep}*"), tmp_path / "out2")
    assert listing(tmp_path / "out1") == listing(tmp_path / "out2")
