"""A small corpus that goes through every stage, for the tests of the engine."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lumi.corpus import Corpus, Duplicates, World
from lumi.corpus.steps import Clean, Decontaminate, GopherRepetition


class Quiz:
    """A benchmark of one question."""

    name = "quiz"

    def settings(self) -> dict[str, Any]:
        return {"version": 1}

    def texts(self):
        yield "who is the tallest of all the people that live in the old town by the river"


def make_corpus(**settings: Any) -> Corpus:
    """Two worlds in blocks of 50 kB, through steps and near duplicates."""
    steps = {"clean": Clean(), "repetition": GopherRepetition(), "decontaminate": Decontaminate(tasks={"quiz": Quiz()})}
    sources = {name: World(name=name, seed=seed, megabytes=0.3) for seed, name in enumerate(("one", "two"))}
    defaults = {"sources": sources, "steps": steps, "duplicates": Duplicates(near=True), "block_megabytes": 0.05}
    return Corpus(name="c", **{**defaults, **settings})


@pytest.fixture(scope="session")
def corpus() -> Callable[..., Corpus]:
    """``corpus(compression="gz")``: see `make_corpus`."""
    return make_corpus


@pytest.fixture(scope="session")
def listing() -> Callable[[Path], dict[str, bytes]]:
    """Every file below a folder, with its bytes."""

    def read(folder: Path) -> dict[str, bytes]:
        return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    return read
