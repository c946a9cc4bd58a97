"""The list of planted mistakes is one that can be planted, and what is published is about this list."""

import json

import pytest

from tests.faults.plant import PLANTED, ROOT, Plant
from tests.faults.plants import PLANTS


@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.fault)
def test_what_is_to_be_replaced_stands_once_and_the_tests_are_there(plant: Plant) -> None:
    for file, old, new in plant.edits:
        text = (ROOT / file).read_text()
        assert text.count(old) == 1, f"{file} has {text.count(old)} times {old!r}"
        assert old != new
    for test in plant.tests:
        file, _, name = test.partition("::")
        assert f"def {name}(" in (ROOT / file).read_text(), test


def test_every_planted_mistake_was_noticed() -> None:
    found = json.loads(PLANTED.read_text())
    assert [one["fault"] for one in found] == [plant.fault for plant in PLANTS], "run: python -m tests.faults.plant"
    assert [one["fault"] for one in found if not one["noticed"]] == []
