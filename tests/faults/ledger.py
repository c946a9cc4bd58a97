"""What a row of the fault matrix (docs/RELIABILITY.md) was put through and what became of it, one JSON line a record.

A test of a row carries `@pytest.mark.matrix("K1")` and reports through the fixture `row`:

    @pytest.mark.matrix("K1")
    @pytest.mark.parametrize("n_kills", [20, pytest.param(200, marks=pytest.mark.faults)])
    def test_a_killed_build_gives_the_same_bytes(row, n_kills):
        ...
        row(trials=n_kills, failures=n_different, seed=0, note="redone: at most 1 shard")

`row` fails the test if anything failed, with or without a ledger. `make test` keeps no ledger; `make faults` names one with
`--ledger FILE`, and `python -m tests.faults FILE` makes the document of it.
"""

import dataclasses
import functools
import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


@dataclasses.dataclass(frozen=True, kw_only=True)
class Record:
    """One test's trials of one row.

    Args:
        id: of the row, as in `tests.faults.rows`.
        trials: how many times the fault was injected, or cases were tried.
        failures: trials after which the criterion of the row did not hold.
        seed: from which every trial can be made again; None where nothing is drawn.
        note: measured figures in a few words, "" for none.
        test: its node id.
        seconds: it took.
        date: of the run, ISO.
        code: the commit that was tried, where git can say.
    """

    id: str
    trials: int
    failures: int
    seed: int | None
    note: str
    test: str
    seconds: float
    date: str
    code: str = ""


Report = Callable[..., None]


def reporter(ids: tuple[str, ...], test: str, ledger: Path | None) -> Report:
    """The fixture `row` of one test; a test of several rows says which with ``id=``."""
    began = time.monotonic()

    def report(*, trials: int, failures: int = 0, seed: int | None = None, note: str = "", **names: Any) -> None:
        (id_,) = (names["id"],) if "id" in names else ids
        assert id_ in ids, f"{id_} is not among this test's rows {ids}"
        seconds, date = round(time.monotonic() - began, 1), time.strftime("%Y-%m-%d")
        facts = {"trials": trials, "failures": failures, "seed": seed, "note": note, "test": test}
        if ledger is not None:
            record = Record(id=id_, seconds=seconds, date=date, code=_code(), **facts)
            ledger.parent.mkdir(parents=True, exist_ok=True)
            with ledger.open("a") as file:
                file.write(json.dumps(dataclasses.asdict(record)) + "\n")
        assert trials > 0, "no trial is no proof"
        assert failures == 0, f"{id_}: {failures} of {trials} trials failed: {note}"

    return report


@functools.cache
def _code() -> str:
    """Which commit this is."""
    command = ["git", "rev-parse", "--short", "HEAD"]
    found = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    return found.stdout.strip()
