"""Which run settings mean."""

import json
from pathlib import Path

import pytest

from lumi.errors import CheckpointError
from lumi.identity import is_finished, read_state, run_folder

SETTINGS = {
    "stage": {"_target_": "lumi.stage.Pretrain"},
    "name": None,
    "corpus": {"name": "world"},
    "paths": {"runs": "runs"},
    "budget": {"steps": 3},
    "trainer": {},
    "data": {},
    "arch": {},
    "resume": "auto",
    "seed": 0,
}


def test_equal_settings_share_a_folder_and_what_changes_no_number_does_not_count() -> None:
    folder = run_folder(SETTINGS)
    assert folder.parts[0] == "runs"
    assert folder.name.startswith("pretrain-world-")
    assert run_folder({**SETTINGS, "logger": {"csv": None}, "slots": 4, "study": "x", "sweep": {"trials": 2}}) == folder
    assert run_folder({**SETTINGS, "seed": 1}) != folder
    assert run_folder({**SETTINGS, "name": "mine"}) == Path("runs/mine")


@pytest.mark.parametrize(
    ("status", "change", "expected"),
    [
        ("finished", {}, True),
        ("running", {}, False),
        ("finished", {"seed": 1}, False),
        ("finished", {"resume": "never"}, False),
    ],
)
def test_a_run_is_finished_when_it_ended_with_these_settings(
    status: str, change: dict[str, object], expected: bool, tmp_path: Path
) -> None:
    assert not is_finished(SETTINGS, tmp_path)
    (tmp_path / "run.json").write_text(json.dumps({"status": status, "settings": SETTINGS, "updated": "today"}))
    assert is_finished({**SETTINGS, **change}, tmp_path) == expected


def test_a_state_that_is_not_readable_is_named(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(
        CheckpointError, match=r"run\.json · is not a readable JSON object .* · the run cannot be continued: use name=…"
    ):
        read_state(tmp_path)
