"""A run of every stage, prepared and not begun: what a doctor is shown, to be spoilt by one test each."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig

from lumi.config import resolve
from lumi.doctor import Subject
from lumi.doctor.subject import undisturbed
from lumi.identity import run_folder
from lumi.ranks import Ranks


@pytest.fixture(scope="session")
def prepare(
    composed: Callable[..., DictConfig],
    stages: dict[str, tuple[str, ...]],
    data_folder: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[..., Subject]:
    """``prepare("sft", "stage.lora=null")``: the objects of such a run."""
    from lumi.run import _Run  # late: seconds of import that most tests do not need

    runs = tmp_path_factory.mktemp("never")

    def prepared(stage: str, *overrides: str) -> Subject:
        places = (f"paths.data='{data_folder}'", f"paths.runs='{runs}'")
        settings = resolve(
            composed("train", *stages[stage], *places, "budget.epochs=null", "budget.steps=4", *overrides)
        )
        return _Run(settings, run_folder(settings), None, Ranks()).subject()

    return prepared


@pytest.fixture
def subject(prepare: Callable[..., Subject], request: pytest.FixtureRequest) -> Iterator[Any]:
    """Of the stage that the test is parametrised with; pretraining else. Nothing random is on in it."""
    found = prepare(getattr(request, "param", "pretrain"))
    with undisturbed(found):
        yield found
