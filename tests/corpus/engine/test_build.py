"""The corpus on disk: exact, written once, checked on every read."""

import json
import logging
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lumi.corpus import Corpus, Document, Files, Rejected, Source, build_corpus, corpus_of, read_corpus
from lumi.corpus.engine.blocks import read_documents
from lumi.errors import DataError
from lumi.manifest import Manifest


class Fixed(Source):
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


def make(source: Source, folder: Path, **options: Any) -> Manifest:
    """Build the corpus of one source."""
    return build_corpus(corpus_of(source), folder, **options)


def listing(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_documents_come_back_exactly(tmp_path):
    make(Fixed(*DOCS), tmp_path / "c")
    assert list(read_corpus(tmp_path / "c")) == list(DOCS)


def test_the_manifest_counts_what_is_there(tmp_path):
    rows = (Rejected(where="a:1", reason="bad"), Rejected(where="a:2", reason="bad", detail="y"))
    info = make(Fixed(doc("ä", bits=1.5), *rows, doc("bcd", bits=2.0)), tmp_path / "c").info
    assert (info["documents"], info["chars"], info["bytes"], info["bits"]) == (2, 4, 5, 3.5)
    assert (info["rejected"], info["dropped"], info["rows"]) == ({"bad": 2}, {}, 4)
    assert (info["name"], info["sources"]["fixed"]["licence"]) == ("fixed", "CC0-1.0")


def test_the_entropy_is_unknown_unless_every_document_has_it(tmp_path):
    assert make(Fixed(doc("a", bits=1.0), doc("b")), tmp_path / "c").info["bits"] is None


def test_equal_texts_are_kept_once_and_counted(tmp_path):
    manifest = make(Fixed(doc("a", id="1"), doc("b", id="2"), doc("a", id="3"), doc("a ", id="4")), tmp_path / "c")
    assert [item.id for item in read_corpus(tmp_path / "c")] == ["1", "2", "4"]
    assert manifest.info["dropped"] == {"duplicates: exact": 1}


def test_shards_are_bounded_and_hold_the_documents_in_order(tmp_path):
    documents = [doc(f"{i} " * 10) for i in range(9)] + [doc("long " * 50), doc("end")]
    corpus = Corpus(name="c", sources={"a": Fixed(*documents)}, block_megabytes=30e-6)
    manifest = build_corpus(corpus, tmp_path / "c")
    shards = manifest.info["sources"]["fixed"]["shards"]
    assert shards == [
        f"fixed-{number:05d}.jsonl.zst" for number in range(6)
    ]  # two of 20 bytes reach 30, the long one too
    assert [item for shard in shards for item in read_documents(tmp_path / "c" / shard)] == documents
    assert list(read_corpus(tmp_path / "c")) == documents


def test_two_builds_give_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        make(Fixed(*DOCS, Rejected(where="x", reason="y"), seed=1), tmp_path / name)
    assert listing(tmp_path / "a") == listing(tmp_path / "b")


def test_a_second_build_does_nothing_and_says_so(tmp_path, caplog):
    first = make(Fixed(*DOCS, seed=1), tmp_path / "c")
    with caplog.at_level(logging.INFO):
        again = make(Fixed(doc("never read"), seed=1), tmp_path / "c")
    assert again == first
    assert "is up to date" in caplog.text


def test_other_settings_are_named_and_nothing_is_overwritten(tmp_path):
    make(Fixed(*DOCS, seed=1, deep={"a": 1, "b": 2}, kept=[1, 2]), tmp_path / "c")
    before = listing(tmp_path / "c")
    with pytest.raises(DataError) as caught:
        make(Fixed(doc("x"), seed=2, deep={"a": 1, "b": 3}, kept=(1, 2)), tmp_path / "c")
    assert "corpus.sources.fixed.deep.b was 2, is 3, corpus.sources.fixed.seed was 1, is 2 · force=true" in str(
        caught.value
    )
    assert listing(tmp_path / "c") == before


def test_many_differences_are_shortened(tmp_path):
    make(Fixed(*DOCS, files={f"{i}.txt": "old" for i in range(9)}), tmp_path / "c")
    with pytest.raises(DataError, match="and 4 more"):
        make(Fixed(*DOCS, files={f"{i}.txt": "new" for i in range(9)}), tmp_path / "c")


def test_force_builds_again(tmp_path):
    make(Fixed(*DOCS, seed=1), tmp_path / "c")
    make(Fixed(doc("new"), seed=2), tmp_path / "c", force=True)
    assert [item.text for item in read_corpus(tmp_path / "c")] == ["new"]


@pytest.mark.parametrize("force", [False, True])
def test_a_folder_that_is_not_ours_is_left_alone(tmp_path, force):
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "thesis.txt").write_text("years of work")
    with pytest.raises(DataError, match="left alone"):
        make(Fixed(*DOCS), tmp_path / "c", force=force)
    assert listing(tmp_path / "c") == {"thesis.txt": b"years of work"}


def test_a_damaged_corpus_is_refused_by_build_and_read_until_forced(tmp_path):
    make(Fixed(*DOCS), tmp_path / "c")
    path = tmp_path / "c" / "fixed-00000.jsonl.zst"
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    for use in (lambda: make(Fixed(*DOCS), tmp_path / "c"), lambda: next(read_corpus(tmp_path / "c"))):
        with pytest.raises(DataError, match=r"fixed-00000\.jsonl\.zst has sha256"):
            use()
    make(Fixed(*DOCS), tmp_path / "c", force=True)
    assert list(read_corpus(tmp_path / "c")) == list(DOCS)


def test_a_folder_without_a_manifest_cannot_be_read(tmp_path):
    with pytest.raises(DataError, match="not a finished artefact"):
        next(read_corpus(tmp_path))


def test_a_source_without_documents_is_an_error_that_leaves_nothing(tmp_path):
    rows = [Rejected(where=f"a:{i}", reason="empty text") for i in range(1200)]
    with pytest.raises(DataError, match=r"corpus=fixed gave no document \(1,200 empty text\)"):
        make(Fixed(*rows), tmp_path / "data" / "c")
    assert not (tmp_path / "data" / "c").exists()


@pytest.mark.parametrize("text", ["", " \n", "a\0b", "a\ud800"])
def test_a_text_that_breaks_the_rules_is_an_error_of_its_source(tmp_path, text):
    with pytest.raises(DataError, match="source=fixed: document d · "):
        make(Fixed(doc(text, id="d")), tmp_path / "c")


def test_an_error_in_the_middle_leaves_the_old_corpus(tmp_path):
    make(Fixed(*DOCS), tmp_path / "c")
    with pytest.raises(DataError):
        make(Fixed(doc("new"), doc("a\0b")), tmp_path / "c", force=True)
    assert list(read_corpus(tmp_path / "c")) == list(DOCS)


def test_an_entropy_that_is_no_number_cannot_be_written(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        make(Fixed(doc("a", bits=math.nan)), tmp_path / "c")


def test_a_file_that_changes_while_it_is_read_is_an_error(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("a\n" * 3)

    class Changing(Files):
        def documents(self) -> Iterator[Document | Rejected]:
            yield from super().documents()
            path.write_text("other")

    with pytest.raises(DataError, match="changed while they were read"):
        make(Changing(path=str(path)), tmp_path / "c")


def test_rejected_rows_are_listed(tmp_path):
    make(Fixed(doc("a"), Rejected(where="f.txt:7", reason="bad", detail="is ü")), tmp_path / "c")
    lines = (tmp_path / "c" / "rejected" / "fixed.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == [{"where": "f.txt:7", "reason": "bad", "detail": "is ü"}]


def test_the_data_card_tells_a_person_what_is_in_it(tmp_path):
    items = [doc("x" * n, bits=float(n)) for n in range(1, 102)]
    make(Fixed(*items, Rejected(where="a", reason="bad"), items[0], seed=7), tmp_path / "c")
    card = (tmp_path / "c" / "DATA_CARD.md").read_text(encoding="utf-8")
    lines = {"| Documents | 101 |", "| Characters | 5,151 |", "| Rows read | 103 |", "| Rows left out | 2 (1.9%) |"}
    lines |= {"- **fixed**: made by | hand", "| fixed | 1 | 11 | 26 | 51 | 76 | 91 | 101 |", '      "seed": 7,'}
    lines |= {"| duplicates: exact | 1 | 0.97% | 0.00 | 1 |", "| bad | 1 | 0.97% |  | 1 |"}
    assert lines <= set(card.splitlines())
    assert "| Entropy | 1.0000 bits per byte" in card


def test_local_files_make_the_same_corpus_wherever_they_lie(tmp_path, monkeypatch):
    for folder in ("one", "two/deeper"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "a, b.jsonl").write_text('{"text": "x"}\n{"text": ""}\n')
        (tmp_path / folder / "c.txt").write_text("y\r\n")
    make(Files(path=str(tmp_path / "one")), tmp_path / "out1")
    monkeypatch.chdir(tmp_path / "two")
    make(Files(path=f"deeper{os.sep}*"), tmp_path / "out2")
    one, two = listing(tmp_path / "out1"), listing(tmp_path / "out2")
    manifests = [json.loads(found.pop("MANIFEST.json")) for found in (one, two)]
    # Where the files lay is a hint for who looks for them: no part of what the corpus is, but of what its manifest seals.
    assert [(found.pop("places"), len(found.pop("seal"))) for found in manifests] == [
        ({"files": "../one"}, 64),
        ({"files": "../two/deeper"}, 64),
    ]
    assert (one, manifests[0]) == (two, manifests[1])
