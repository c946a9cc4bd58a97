"""Doing nothing twice, and never overwriting what is not ours."""

from pathlib import Path

import pytest

from lumi.errors import DataError
from lumi.manifest import Manifest, atomic_folder, write_manifest
from lumi.reuse import content_fingerprint, finished


def make(folder: Path, settings: dict, parents: dict) -> None:
    with atomic_folder(folder) as work:
        (work / "data").write_text("x")
        mark = content_fingerprint(settings, parents)
        write_manifest(work, kind="thing", name="t", fingerprint=mark, settings=settings, parents=parents)


def look(folder: Path, settings: dict, parents: dict, *, force: bool = False) -> Manifest | None:
    return finished(folder, kind="thing", key="thing", settings=settings, parents=parents, force=force, fix="do this")


def test_what_is_there_is_found(tmp_path):
    make(tmp_path / "a", {"x": 1}, {"p": "q"})
    found = look(tmp_path / "a", {"x": 1}, {"p": "q"})
    assert found is not None
    assert found.name == "t"


def test_nothing_there_or_force_means_work(tmp_path):
    make(tmp_path / "a", {"x": 1}, {})
    (tmp_path / "empty").mkdir()
    assert look(tmp_path / "none", {}, {}) is None
    assert look(tmp_path / "empty", {}, {}) is None
    assert look(tmp_path / "a", {"x": 2}, {}, force=True) is None


def test_each_difference_is_named(tmp_path):
    make(tmp_path / "a", {"x": 1, "deep": {"y": [1]}}, {"p": "old"})
    with pytest.raises(DataError) as caught:
        look(tmp_path / "a", {"x": 1, "deep": {"y": [2]}}, {"p": "new"})
    assert caught.value.rule == 'thing.deep.y was [1], is [2], made from.p was "old", is "new"'
    assert caught.value.fix == "do this"


def test_a_damaged_artefact_is_not_up_to_date(tmp_path):
    make(tmp_path / "a", {}, {})
    (tmp_path / "a" / "data").write_text("y")
    with pytest.raises(DataError, match="changed or damaged"):
        look(tmp_path / "a", {}, {})


@pytest.mark.parametrize("force", [False, True])
def test_a_folder_of_something_else_is_left_alone(tmp_path, force):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "thesis.txt").write_text("years of work")
    with pytest.raises(DataError, match="no artefact of Lumi"):
        look(tmp_path / "a", {}, {}, force=force)
    assert (tmp_path / "a" / "thesis.txt").exists()
