"""Two real runs that begin at the same moment with nothing prepared, are stopped together, and go on."""

import dataclasses
from pathlib import Path

import pytest

TRAIN = Path(__file__).parents[2] / "train.py"

WORDS = (
    "arch=debug",
    "data.batch_size=2",
    "data.val_windows=2",
    "trainer.accelerator=cpu",
    "trainer.val_every_steps=500",
    "callbacks.samples=null",
    "callbacks.progress.every_steps=1",
    "tokenizer.vocab_size=400",
    "source.megabytes=0.1",
    "budget.steps=200",
    "slots=2",
    "seed=0,1",
)


MADE_ONCE = ("documents, 0.10 MB in", "tokenizer world: 400 pieces", "packed world: train")


@pytest.mark.slow
def test_jobs_that_begin_together_make_what_they_share_once_and_continue_after_a_stop(place) -> None:
    place = dataclasses.replace(place, script=TRAIN)
    code, said = place.stop_when(lambda: len([*place.folder.glob("runs/*/metrics.csv")]) == 2, *WORDS)
    assert code == 143, said
    assert place.states() == ["stopped", "stopped"]
    assert len([*place.folder.glob("runs/*/checkpoints/step_*.ckpt")]) == 2
    logs = place.log("00-seed_0") + place.log("01-seed_1")
    for made in MADE_ONCE:
        assert logs.count(made) == 1, logs
    code, said = place.run(*WORDS)
    assert code == 0, said
    assert place.states() == ["finished", "finished"]
    assert "resuming" in place.log("00-seed_0")
    assert "resuming" in place.log("01-seed_1")
