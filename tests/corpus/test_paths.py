"""From what a user types to the files that it means."""

import os

import pytest

from lumi.corpus import Files
from lumi.errors import DataError


@pytest.fixture(autouse=True)
def texts_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a.txt", "b.txt", "sub/c.md", "sub/deep/d.jsonl", "sub/.hidden.txt", ".git/e.txt", "sub/photo.jpg"):
        path = tmp_path / "texts" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text('{"text": "x"}')
    return tmp_path


def names(path) -> list[str]:
    return list(Files(path=path).settings()["files"])


def failure(path) -> str:
    with pytest.raises(DataError) as caught:
        names(path)
    return str(caught.value)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("texts/a.txt", ["a.txt"]),
        ("texts/*.txt", ["a.txt", "b.txt"]),
        ("texts/**/*.md", ["c.md"]),
        ("texts", ["a.txt", "b.txt", "sub/c.md", "sub/deep/d.jsonl"]),
        ("texts/*", ["a.txt", "b.txt", "sub/c.md", "sub/deep/d.jsonl"]),
        ("texts/**", ["a.txt", "b.txt", "sub/c.md", "sub/deep/d.jsonl"]),
        (["texts/sub/*.md", "texts/b.txt", "texts/../texts/b.txt"], ["b.txt", "sub/c.md"]),
        ("texts/sub/.hidden.txt", [".hidden.txt"]),
    ],
)
def test_files_folders_and_globs_mean_sorted_files(path, expected):
    assert names(path) == expected


@pytest.mark.parametrize(
    "name", ["a,b.txt", 'it\'s "it".txt', " two  spaces .txt", "[a]*?.txt", "ü.TXT", "~x.txt", "a=b.txt"]
)
def test_a_name_with_any_characters_is_taken_literally(texts_folder, name):
    (texts_folder / name).write_text("x")
    (texts_folder / "a.txt").write_text("x")
    assert names(name) == [name]


def test_the_home_folder_is_understood(texts_folder, monkeypatch):
    monkeypatch.setenv("HOME", str(texts_folder))
    assert names("~/texts/a.txt") == ["a.txt"]


def test_a_name_that_is_not_utf8_is_escaped(texts_folder):
    (texts_folder / "texts" / os.fsdecode(b"\xe9.txt")).write_text("x")
    assert names("texts/[!ab].txt") == [r"\xe9.txt"]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("texts/aa.txt", "source.path='texts/aa.txt' · does not exist"),
        ("texts/aa.txt", "did you mean 'texts/a.txt'"),
        ("text/a.txt", "did you mean 'texts'?"),
        ("texts/*.text", "matches no file"),
        ("texts/*.text", "did you mean 'texts/"),
        ("nowhere/at/all.txt", "it holds: empty, texts"),
        ("texts/a.txt/b.txt", "texts/a.txt is a file, not a folder"),
        ("texts/sub/*.jpg", "no file of a known format, only: photo.jpg · known: .txt .md .jsonl"),
        ("empty", "is a folder without files"),
        ("x" * 300, "cannot be read (File name too long)"),
        (["texts/a.txt", "texts/zz.txt"], "source.path='texts/zz.txt'"),
    ],
)
def test_a_path_that_means_nothing_says_what_is_there(texts_folder, path, message):
    (texts_folder / "empty").mkdir()
    assert message in failure(path)


def test_a_file_of_an_unknown_format_that_is_named_is_an_error():
    with pytest.raises(DataError, match=r"photo\.jpg · is of a format that is not known · known: \.txt"):
        list(Files(path="texts/sub/photo.jpg").documents())


def test_a_link_that_leads_nowhere_does_not_exist(texts_folder):
    (texts_folder / "dangling.txt").symlink_to("gone.txt")
    assert "does not exist" in failure("dangling.txt")
