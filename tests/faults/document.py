"""docs/RELIABILITY.md from ledgers: what each row of the fault matrix was put through, beside what must hold."""

import importlib.metadata
import json
import os
import platform
import re
import string
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tests.faults.ledger import Record
from tests.faults.promises import PROMISES
from tests.faults.rows import REMARKS, SECTIONS, Row

ROOT = Path(__file__).parents[2]
TEMPLATE = Path(__file__).parent / "document.md"
PLANTED = Path(__file__).parent / "planted.json"
DOCUMENT = Path("docs/RELIABILITY.md")
_PACKAGES = ("torch", "pytorch-lightning", "numpy", "sentencepiece", "safetensors", "datatrove", "starlette")

_NOTES = 3
"""That are shown of a test."""

Records = dict[str, list[Record]]


def read_ledgers(ledgers: Iterable[Path]) -> Records:
    """By row, one record a test: the last that it wrote. Records of tests that are no more are left out."""
    newest: dict[tuple[str, str], Record] = {}
    for ledger in ledgers:
        for line in ledger.read_text().splitlines():
            record = Record(**json.loads(line))
            newest[record.id, record.test] = record
    rows: Records = {}
    for record in newest.values():
        if _is_there(record.test):
            rows.setdefault(record.id, []).append(record)
    return rows


def make_document(ledgers: Sequence[Path], out: Path = DOCUMENT) -> None:
    """Read the ledgers, write the document, say so."""
    records = read_ledgers(ledgers)
    out.write_text(write_document(records), encoding="utf-8")
    sys.stdout.write(f"{out}: {len(records)} rows\n")


def write_document(records: Records) -> str:
    """The whole document, in Markdown."""
    known = {row.id for section in SECTIONS for row in section.rows}
    assert records.keys() <= known, f"rows that are not in the matrix: {sorted(records.keys() - known)}"
    template = string.Template(TEMPLATE.read_text(encoding="utf-8"))
    matrix = [part for one in SECTIONS for part in _section(one.title, one.text, one.rows, records)]
    return template.substitute(
        campaign=_campaign(records), promises=_promises(records), matrix="\n\n".join(matrix), planted=_planted()
    )


def _campaign(records: Records) -> str:
    every = [record for row in records.values() for record in row]
    if not every:
        return "None yet: `make faults` runs one."
    dates = sorted({record.date for record in every})
    when = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"
    trials, failures = sum(record.trials for record in every), sum(record.failures for record in every)
    hours = sum(record.seconds for record in every) / 3600
    code = _code_of(every)
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in _PACKAGES)
    return (
        f"{when}, `make faults`{code}: **{trials:,} trials, {failures:,} failures** in {hours:.1f} hours of tests, over "
        f"{len(records)} of {sum(len(section.rows) for section in SECTIONS)} rows. {_machine()}; Python "
        f"{platform.python_version()}, {versions}."
    )


def _code_of(records: list[Record]) -> str:
    """Which commits were tried; of several, by how many trials each."""
    trials: dict[str, int] = {}
    for record in records:
        name = record.code or "a commit that was not noted"
        trials[name] = trials.get(name, 0) + record.trials
    if len(trials) == 1:
        return f" of {next(iter(trials))}"
    return f" ({'; '.join(f'{count:,} trials of {name}' for name, count in sorted(trials.items()))})"


def _machine() -> str:
    model = next(
        (line.split(":")[1].strip() for line in _lines(Path("/proc/cpuinfo")) if line.startswith("model name")),
        platform.machine(),
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{os.cpu_count()} cores ({model}), {memory:.0f} GiB of memory, {platform.system()}"


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.is_file() else []


def _promises(records: Records) -> str:
    lines = [
        f"| {number} | {promise.text} | {', '.join(promise.rows)} | {_figures(promise.rows, records)} | "
        f"{_files(promise.rows, records)} |"
        for number, promise in enumerate(PROMISES, start=1)
    ]
    return _table(("", "promise", "rows", "tried, failed", "tests"), lines)


def _figures(ids: Sequence[str], records: Records) -> str:
    found = [record for id_ in ids for record in records.get(id_, ())]
    if not found:
        return "not run"
    missing = [id_ for id_ in ids if id_ not in records]
    without = f" ({', '.join(missing)} not run)" if missing else ""
    trials, failures = sum(record.trials for record in found), sum(record.failures for record in found)
    return f"{trials:,}, {failures:,}{without}"


def _files(ids: Sequence[str], records: Records) -> str:
    files = sorted({record.test.split("::")[0] for id_ in ids for record in records.get(id_, ())})
    return ", ".join(_link(file) for file in files)


def _section(title: str, text: str, rows: Sequence[Row], records: Records) -> list[str]:
    lines = [f"| {row.id} | {row.fault} | {row.holds} | {row.aim} | {_figures((row.id,), records)} |" for row in rows]
    parts = [
        f"### {title}",
        text,
        _table(("", "what is done", "what must hold", "aimed at", "tried, failed"), lines),
    ]
    runs = [_run(row.id, test, found) for row in rows for test, found in _by_test(records.get(row.id, ())).items()]
    if runs:
        parts.append(_table(("row", "test", "trials", "failures", "seeds", "seconds", "seen"), runs))
    remarks = [f"- **{row.id}**: {REMARKS[row.id]}" for row in rows if row.id in REMARKS]
    return [*parts, "\n".join(remarks)] if remarks else parts


def _by_test(records: Sequence[Record]) -> dict[str, list[Record]]:
    """The records of each function, whatever it was called with."""
    found: dict[str, list[Record]] = {}
    for record in sorted(records, key=lambda one: one.test):
        found.setdefault(record.test.partition("[")[0], []).append(record)
    return found


def _run(id_: str, test: str, records: Sequence[Record]) -> str:
    file, _, name = test.partition("::")
    seeds = sorted({record.seed for record in records if record.seed is not None})
    notes = list(dict.fromkeys(record.note for record in records if record.note))
    more = f"; and {len(notes) - _NOTES} more" if len(notes) > _NOTES else ""
    facts = (
        id_,
        f"{_link(file)} {name.removeprefix('test_').replace('_', ' ')}",
        f"{sum(record.trials for record in records):,}",
        f"{sum(record.failures for record in records):,}",
        str(seeds[0]) if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}" if seeds else "",
        f"{sum(record.seconds for record in records):,.0f}",
        "; ".join(notes[:_NOTES]) + more,
    )
    return f"| {' | '.join(_cell(fact) for fact in facts)} |"


def _planted() -> str:
    """Mistakes that were put into Lumi on purpose, and which test found each; `planted.json` is a list of flat objects."""
    if not PLANTED.exists():
        return "Mistakes planted on purpose: not run."
    found: list[dict[str, Any]] = json.loads(PLANTED.read_text())
    lines = []
    for one in found:
        tests = ", ".join(f"{_link(file)} {name[5:].replace('_', ' ')}" for file, _, name in _parted(one["tests"]))
        lines.append(
            f"| {_cell(one['fault'])} | {one['file']} | {_cell(tests)} | {'yes' if one['noticed'] else '**no**'} |"
        )
    text = f"{len(found)} mistakes were planted in Lumi, one at a time (`python -m tests.faults.plant`), and these tests run:"
    return f"{text}\n\n{_table(('mistake', 'where', 'test', 'noticed'), lines)}"


def _parted(tests: Iterable[str]) -> list[tuple[str, str, str]]:
    return [test.partition("[")[0].partition("::") for test in tests]


def _is_there(test: str) -> bool:
    file, _, name = test.partition("::")
    function = name.split("::")[-1].split("[")[0]
    return f"def {function}(" in "\n".join(_lines(ROOT / file))


def _link(file: str) -> str:
    return f"[{file.removeprefix('tests/')}](../{file})"


def _cell(text: str) -> str:
    text = re.sub(r"/tmp/\S+/", "…/", text)  # where a test's folder happened to lie
    return text.replace("|", "\\|").replace("\n", " ")


def _table(head: Sequence[str], lines: Sequence[str]) -> str:
    return "\n".join([f"| {' | '.join(head)} |", "|" + "---|" * len(head), *lines])
