"""D2 and D3: a disk that refuses for another reason than space, and what flushing every save to it costs."""

import errno
import os
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lumi.errors import LumiError
from lumi.manifest import verify
from tests.faults.conftest import Work
from tests.faults.crash.saving import Saves, small_decoder
from tests.faults.disk.small import NotAllowed, SmallDisk, in_child
from tests.faults.disk.test_full import ROOMY, files_of
from tests.faults.ledger import Report

WRITERS = ("packed", "training", "merge")


def failed(work: Work, place: Path) -> dict[str, Any]:
    """The exit code and the message of work that fails."""
    try:
        work(place)
    except LumiError as error:
        return {"code": error.exit_code, "said": str(error), "left": sorted(files_of(place))}
    return {"code": 0, "said": "it did not fail", "left": []}


def read_only(work: Work, place: Path) -> dict[str, Any]:
    """A disk that was mounted for reading."""
    SmallDisk(place, ROOMY).freeze()
    return failed(work, place)


def limited(work: Work, place: Path) -> dict[str, Any]:
    """No file may have more than 20 kB."""
    place.mkdir()
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
    return failed(work, place)


def without_inodes(work: Work, place: Path) -> dict[str, Any]:
    """Space for everything, but for four files."""
    SmallDisk(place, ROOMY, n_files=5)  # the folder itself is one
    return failed(work, place)


def unreadable(work: Work, place: Path) -> dict[str, Any]:
    """Every file that is opened to be read gives an error of its device."""
    plain = Path.open

    def broken(self: Path, mode: str = "r", *arguments: Any, **named: Any) -> Any:
        if "r" in mode and self.suffix in (".bin", ".zst", ".safetensors", ".json"):
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(self))
        return plain(self, mode, *arguments, **named)

    place.mkdir()
    Path.open = broken
    return failed(work, place)


FAULTS: dict[str, Callable[[Work, Path], dict[str, Any]]] = {
    "read-only folder": read_only,
    "limit on file sizes": limited,
    "no inodes": without_inodes,
    "error on reading": unreadable,
}


@pytest.mark.matrix("D2")
@pytest.mark.faults
@pytest.mark.parametrize("fault", FAULTS)
def test_a_disk_that_refuses_is_named(works: dict[str, Work], tmp_path: Path, row: Report, fault: str) -> None:
    found = []
    for stage in WRITERS:
        place = tmp_path / stage
        try:
            seen = in_child(lambda stage=stage, place=place: FAULTS[fault](works[stage], place))
        except NotAllowed as error:
            pytest.skip(f"not possible here ({error})")
        if seen["code"] not in (3, 5) or "/" not in seen["said"] or seen["left"]:
            found.append(f"{stage}: exit {seen['code']}, {seen['said']}, left {seen['left']}")
    row(trials=len(WRITERS), failures=len(found), note="; ".join(found)[:500])


@pytest.mark.matrix("D3")
@pytest.mark.faults
def test_what_a_save_costs_is_measured(tmp_path: Path, row: Report) -> None:
    saves, seconds = Saves(tmp_path, small_decoder()), {}
    for flushed in (True, False):
        if not flushed:
            pytest.MonkeyPatch().setattr(os, "fsync", lambda _: None)
        begin = time.monotonic()
        for step in range(1, 21):
            saves.save(step + 100 * flushed)
        seconds[flushed] = (time.monotonic() - begin) / 20
    verify(tmp_path / "checkpoints" / "step_00000120.ckpt")
    said = f"{seconds[True] * 1e3:.0f} ms a save of 0.6 MB, {seconds[False] * 1e3:.0f} ms without flushing; ten saves a run"
    row(trials=40, note=said)
