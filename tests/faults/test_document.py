"""The document of a campaign says what the tests saw, and nothing else."""

import dataclasses
import json

import pytest

from tests.faults.document import read_ledgers, write_document
from tests.faults.ledger import Record
from tests.faults.promises import PROMISES
from tests.faults.rows import REMARKS, SECTIONS

HERE = "tests/faults/test_document.py::test_the_last_record_of_a_test_counts"
ALSO = "tests/faults/test_document.py::test_every_row_of_a_promise_exists[K1]"
IDS = [row.id for section in SECTIONS for row in section.rows]


def record(**facts):
    default = {"id": "K1", "trials": 20, "failures": 0, "seed": 7, "note": "all|well", "test": HERE}
    return Record(**{**default, "seconds": 1.0, "date": "2026-01-01", **facts})


@pytest.fixture
def ledger(tmp_path):
    """``ledger(record(), record())``: the path of one with these records."""
    count = iter(range(9))

    def write(*records):
        path = tmp_path / f"{next(count)}.jsonl"
        path.write_text("".join(json.dumps(dataclasses.asdict(one)) + "\n" for one in records))
        return path

    return write


def test_the_last_record_of_a_test_counts(ledger):
    first = ledger(record(trials=20), record(test=ALSO, trials=5), record(trials=30))
    second = ledger(record(trials=40))
    found = read_ledgers([first, second])
    assert {one.test: one.trials for one in found["K1"]} == {HERE: 40, ALSO: 5}


def test_records_of_tests_that_are_no_more_are_left_out(ledger):
    gone = [record(test="tests/faults/test_document.py::test_gone"), record(test="tests/gone.py::test_a")]
    assert read_ledgers([ledger(*gone)]) == {}


def test_trials_failures_and_notes_are_in_the_document(ledger):
    text = write_document(read_ledgers([ledger(record(), record(test=ALSO, trials=1_000, failures=3))]))
    assert "200 kills, none lost, no byte different | 1,020, 3 |" in text
    assert "the last record of a test counts | 20 | 0 | 7 | 1 | all\\|well |" in text
    assert "[faults/test_document.py](../tests/faults/test_document.py)" in text


def test_rows_without_a_record_say_that_they_were_not_run():
    text = write_document({})
    assert all(f"| {id_} | " in text for id_ in IDS)
    assert text.count("| not run |") == len(IDS) + len(PROMISES)


def test_a_row_that_is_not_in_the_matrix_is_refused(ledger):
    with pytest.raises(AssertionError, match="not in the matrix"):
        write_document(read_ledgers([ledger(record(id="K99"))]))


@pytest.mark.parametrize("id_", sorted({id_ for promise in PROMISES for id_ in promise.rows} | REMARKS.keys()))
def test_every_row_of_a_promise_exists(id_):
    assert IDS.count(id_) == 1
