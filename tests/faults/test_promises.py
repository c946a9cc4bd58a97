"""Every promise of the README stands there with its number, and its tests are there."""

import re

import pytest

from tests.faults.promises import PROMISES, Promise
from tests.faults.readme import BEGIN, END, README
from tests.faults.rows import SECTIONS

ROOT = README.parent
IDS = {row.id for section in SECTIONS for row in section.rows}


@pytest.mark.parametrize("promise", PROMISES, ids=lambda promise: promise.text[:40])
def test_a_promise_stands_in_the_readme_and_its_tests_and_rows_are_there(promise: Promise) -> None:
    text = README.read_text().partition(BEGIN)[2].partition(END)[0]
    (line,) = [line for line in text.splitlines() if f"| {promise.text} |" in line]
    links = re.findall(r"\]\(([^)]+)\)", line)
    assert links == list(promise.tests)
    assert [link for link in links if not (ROOT / link).exists()] == []
    assert set(promise.rows) <= IDS


def test_there_are_thirteen_and_each_has_a_figure() -> None:
    text = README.read_text().partition(BEGIN)[2].partition(END)[0]
    assert len(PROMISES) == len(re.findall(r"^\| \d+ \|", text, re.MULTILINE)) == 13
