"""The promises of the README, with what the last campaign saw of each.

python -m tests.faults.readme .faults/*.jsonl       writes the section
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from tests.faults.document import Records, read_ledgers
from tests.faults.promises import PROMISES

README = Path(__file__).parents[2] / "README.md"
BEGIN, END = "<!-- made by tests/faults/readme.py -->", "<!-- end of the promises -->"


def section(records: Records) -> str:
    """For the README."""
    lines = [
        f"| {number} | {promise.text} | {_seen(promise.rows, records)} | {', '.join(map(_link, promise.tests))} |"
        for number, promise in enumerate(PROMISES, start=1)
    ]
    head = ["| | promise | tried, failed (rows of the matrix) | test |", "|---|---|---|---|"]
    return "\n".join([BEGIN, "", *head, *lines, "", END])


def _seen(rows: Sequence[str], records: Records) -> str:
    found = [record for id_ in rows for record in records.get(id_, ())]
    run = [id_ for id_ in rows if id_ in records]
    missing = [id_ for id_ in rows if id_ not in records]
    trials, failures = sum(record.trials for record in found), sum(record.failures for record in found)
    parts = [f"{trials:,}, {failures:,} ({', '.join(run)})"] if found else []
    return "; ".join([*parts, f"{', '.join(missing)}: not in the last campaign"] if missing else parts)


def _link(test: str) -> str:
    return f"[{test.removeprefix('tests/')}]({test})"


def main(ledgers: Sequence[str]) -> None:
    """Put the section into the README."""
    text = README.read_text()
    before, found, rest = text.partition(BEGIN)
    assert found, f"{README} has no line {BEGIN}"
    README.write_text(before + section(read_ledgers(map(Path, ledgers))) + rest.partition(END)[2])


if __name__ == "__main__":
    main(sys.argv[1:])
