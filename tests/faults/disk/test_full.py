"""D1: a disk that is full costs nothing but time, in every stage and wherever it begins."""

import threading
from pathlib import Path
from typing import Any

import pytest

from lumi.disk import check_space, free_bytes
from lumi.errors import LumiError, ResourceError
from lumi.manifest import MANIFEST, verify
from tests.faults.conftest import Work
from tests.faults.disk.small import NotAllowed, SmallDisk, in_child
from tests.faults.ledger import Report

ROOMY = 2**28
STAGES = ("corpus", "tokenizer", "packed", "conversations", "training", "merge", "export", "evaluation")
LEVELS = (0.02, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
SHORT = [pytest.param(stage, (0.3, 0.8), id=f"{stage}, 2 amounts") for stage in ("packed", "training", "merge")]
LONG = [pytest.param(stage, LEVELS, id=f"{stage}, 10 amounts", marks=pytest.mark.faults) for stage in STAGES]


def artefacts(folder: Path) -> list[Path]:
    """Whatever has a manifest, but for what is still being written."""
    return [path.parent for path in folder.rglob(MANIFEST) if ".tmp-" not in str(path)]


def verified(folder: Path) -> int:
    """How many artefacts there are; all of them are whole."""
    found = artefacts(folder)
    for one in found:
        verify(one)
    return len(found)


def files_of(folder: Path) -> set[str]:
    """Temporary files and folders below a folder."""
    return {path.name for path in folder.rglob("*") if ".tmp-" in path.name}


def bytes_for(work: Work, place: Path, *, again: bool) -> dict[str, int]:
    """That the work takes at most, beside its result of before where it is done again."""
    disk, most, done = SmallDisk(place, ROOMY), [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.001):
            most[0] = max(most[0], disk.used_bytes())

    if again:
        work(place)
    before = disk.used_bytes()
    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        work(place)
    finally:
        done.set()
        watcher.join()
    return {"bytes": max(before, most[0] - before)}  # a look every millisecond may miss what is small


def fill(work: Work, place: Path, free: int, *, again: bool) -> dict[str, Any]:
    """Work on a disk that has too little space, then on one that has more; what was seen."""
    disk, code, said = SmallDisk(place, ROOMY), 0, ""
    if again:
        work(place)
    before = verified(place)
    disk.resize(disk.used_bytes() + free)
    try:
        work(place)
    except LumiError as error:
        code, said = error.exit_code, str(error)
    lost = before - verified(place)
    left = files_of(place)
    disk.resize(ROOMY)
    work(place)
    verified(place)
    return {"code": code, "said": said, "lost": lost, "left": sorted(left | files_of(place))}


def faults_in(seen: dict[str, Any], place: Path) -> list[str]:
    """What is not as it should be."""
    if seen["code"] == 0:
        return []  # it fitted: blocks of the file system and the moments of looking leave some room
    said = seen["said"]
    found = [] if seen["code"] == 5 and str(place) in said and "bytes" in said else [f"exit {seen['code']}: {said}"]
    found += [f"{seen['lost']} artefacts lost"] if seen["lost"] > 0 else []
    return [*found, *([f"left behind: {seen['left']}"] if seen["left"] else [])]


@pytest.mark.matrix("D1")
@pytest.mark.parametrize(("stage", "levels"), [*SHORT, *LONG])
def test_a_full_disk_costs_nothing_but_time(
    works: dict[str, Work], tmp_path: Path, row: Report, stage: str, levels: tuple[float, ...]
) -> None:
    work, place, found, fitted, refused = works[stage], tmp_path / "disk", [], 0, 0
    again = stage != "training"  # a finished run is not trained again
    try:
        needed = in_child(lambda: bytes_for(work, place, again=again))["bytes"]
    except NotAllowed as error:
        pytest.skip(f"a small disk cannot be mounted here ({error})")
    for level in levels:
        seen = in_child(lambda level=level: fill(work, place, int(level * needed), again=again))
        found += [f"{level}: {fault}" for fault in faults_in(seen, place)]
        fitted += seen["code"] == 0
        refused += "nothing was begun" in seen["said"]
    note = f"of {needed:,} bytes; {refused} refused before they began, {fitted} fitted {' '.join(found[:3])}".strip()
    row(trials=len(levels), failures=len(found), note=note)


def test_what_cannot_fit_is_refused_before_it_begins(tmp_path: Path) -> None:
    free = free_bytes(tmp_path / "not" / "there")
    check_space(tmp_path / "a", free // 2)
    with pytest.raises(
        ResourceError, match=r"no space left for .*a \(it needs about [\d,]+ bytes, [\d,]+ bytes are free"
    ):
        check_space(tmp_path / "a", free * 2)
