"""The promises of the README, with what the last campaign saw of each.

python -m tests.faults.promises .faults/*.jsonl       writes the section
"""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.faults.document import Records, read_ledgers

README = Path(__file__).parents[2] / "README.md"
BEGIN, END = "<!-- made by tests/faults/promises.py -->", "<!-- end of the promises -->"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Promise:
    """What a user may rely on.

    Attributes:
        text: in one sentence.
        rows: of the fault matrix that show it.
        tests: files or folders where it is tested.
    """

    text: str
    rows: tuple[str, ...]
    tests: tuple[str, ...]


_CRASH, _TRAINING, _DAMAGE = "tests/faults/crash", "tests/faults/training", "tests/faults/corruption"

PROMISES = (
    Promise(
        text="Kill it anywhere and run the same command again: the result is the same to the bit",
        rows=("K1", "K2", "K3", "K4", "K6"),
        tests=(_CRASH, "tests/test_run.py"),
    ),
    Promise(
        text="The loss curve of a run that was cut is the curve of one that was not",
        rows=("K4", "K7", "T3"),
        tests=(_CRASH, f"{_TRAINING}/test_signals.py"),
    ),
    Promise(
        text="A save that you were told of is never lost; half a one is never loaded",
        rows=("K5", "K8", "C2"),
        tests=(_CRASH, "tests/faults/test_guards.py"),
    ),
    Promise(
        text="One flipped bit in any artefact is found and named",
        rows=("C1", "C3"),
        tests=(f"{_DAMAGE}/test_damage.py",),
    ),
    Promise(
        text="One tokenizer: another one is refused wherever two artefacts meet, by the bytes of its file",
        rows=("C4",),
        tests=(_DAMAGE, "tests/tokenizer/test_frozen.py"),
    ),
    Promise(
        text="A stranger's checkpoint, config, tokenizer or text runs no code",
        rows=("C5", "C6", "C7"),
        tests=(_DAMAGE, "tests/test_config.py"),
    ),
    Promise(
        text="Text cannot forge a chat marker, in training or in serving",
        rows=("R4", "R5", "R6"),
        tests=("tests/tokenizer/test_frozen.py", "tests/tokenizer/test_template.py"),
    ),
    Promise(
        text="One process or several, any number of workers: the same windows in the same order",
        rows=("T6",),
        tests=("tests/scale/test_ddp.py", "tests/data/test_loading.py"),
    ),
    Promise(
        text="Other data, another tokenizer or architecture is refused by name when a run goes on; every key has its class",
        rows=("T5",),
        tests=(f"{_TRAINING}/test_resume.py",),
    ),
    Promise(text="A full disk costs nothing but time", rows=("D1", "D2"), tests=(_CRASH, "tests/test_manifest.py")),
    Promise(
        text="A signal saves the step that is done, and the exit code (143, 130) says that the run can go on",
        rows=("T3",),
        tests=(f"{_TRAINING}/test_signals.py", "tests/scale/test_long.py"),
    ),
    Promise(
        text="No request gives a 5xx of the server's own, hangs others or outlives its client",
        rows=("S1", "S2", "S3", "S5"),
        tests=("tests/serve/test_schema.py", "tests/serve/test_limits.py", "tests/serve/test_faults.py"),
    ),
    Promise(
        text="An error says what was found, what must hold and what to type; no bare traceback for any fault of the matrix",
        rows=("C1", "D1", "T1", "T2", "T4"),
        tests=("tests/test_cli.py", f"{_TRAINING}/test_memory.py", f"{_TRAINING}/test_workers.py"),
    ),
)


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
