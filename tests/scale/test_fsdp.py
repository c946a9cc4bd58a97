"""A model in parts on two processes trains as a whole one does, and its checkpoints are those of one process."""

import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import DictConfig

from lumi.arch.weights import load_decoder
from lumi.callbacks import list_checkpoints
from lumi.errors import ConfigError
from lumi.run import train
from tests.scale.conftest import InRanks, largest_difference, signal_after

Config = Callable[..., DictConfig]

LENGTH = ("budget.steps=6", "trainer.val_every_steps=3", "callbacks.checkpoint.every_steps=2", "arch.dropout=0.0")
ONE = (*LENGTH, "trainer.accumulate=2", "data.val_windows=40")
PARTS = (*LENGTH, "data.val_windows=40", "trainer=fsdp", "trainer.accelerator=cpu", "trainer.threads=1")
SAMPLES = "{_target_: lumi.generate.SamplingParams, max_new_tokens: 4, seed: 0}"


def test_parts_train_as_the_whole_does_from_there_and_back(
    run_config: Config, in_ranks: InRanks, tmp_path: Path
) -> None:
    def config(name: str, *overrides: str) -> DictConfig:
        return run_config("arch.tied=true", *overrides, f"name={name}")

    train(config("one", *ONE))
    assert in_ranks(config("parts", *PARTS), meddle=signal_after(2, signal.SIGTERM, 1)) == [143, 143]
    assert in_ranks(config("parts", *ONE), n_ranks=1, meddle=signal_after(3, signal.SIGTERM, 0)) == [143]
    assert in_ranks(config("parts", *PARTS)) == [0, 0]
    assert largest_difference(tmp_path / "one", tmp_path / "parts") < 1e-5
    for _, checkpoint in list_checkpoints(tmp_path / "parts" / "checkpoints"):
        load_decoder(checkpoint)


def test_accumulation_samples_and_recomputed_activations_go_with_parts(
    run_config: Config, in_ranks: InRanks, tmp_path: Path
) -> None:
    sampler = f"callbacks.samples={{_target_: lumi.callbacks.Samples, prompts: [''], sampling: {SAMPLES}}}"
    more = (sampler, "budget.steps=4", "arch.checkpoint_activations=true", "arch.tied=false")
    assert in_ranks(run_config(*PARTS, *more, "trainer.accumulate=2", "name=parts")) == [0, 0]
    train(run_config(*ONE, *more, "trainer.accumulate=4", "name=one"))
    assert largest_difference(tmp_path / "one", tmp_path / "parts") < 1e-5
    # The last step is none of the regular validations: it has one of its own, after training.
    texts = [(tmp_path / run / "samples" / "step_00000004.md").read_text() for run in ("one", "parts")]
    assert texts[0] == texts[1]


@pytest.mark.faults
@pytest.mark.parametrize("stage", ["sft", "dpo"])
def test_later_stages_train_in_parts_too(
    composed: Config,
    stages: dict[str, tuple[str, ...]],
    data_folder: Path,
    tmp_path: Path,
    in_ranks: InRanks,
    stage: str,
) -> None:
    places = (f"paths.data='{data_folder}'", f"paths.runs='{tmp_path}'", "budget.epochs=null", "stage.lora=null")

    def config(name: str, *layout: str) -> DictConfig:
        return composed("train", *stages[stage], *layout, *places, "budget.steps=3", f"name={name}")

    assert in_ranks(config("one", *ONE), n_ranks=1) == [0]
    assert in_ranks(config("parts", *PARTS)) == [0, 0]
    assert largest_difference(tmp_path / "one", tmp_path / "parts", without=("margin", "drift")) < 1e-5


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("optim=muon",), r"optim=muon · needs whole matrices"),
        (("trainer.compile=true",), r"trainer\.compile=true · is not possible with trainer=fsdp"),
        (("trainer.precision=16-mixed",), r"trainer\.precision=16-mixed · is not possible"),
    ],
)
def test_what_parts_cannot_do_is_refused(run_config: Config, overrides: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        train(run_config(*PARTS, *overrides))


def test_an_adapter_is_not_put_in_parts(composed: Config, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"stage\.lora · is too small to be put in parts"):
        train(composed("train", "stage=sft", "trainer=fsdp", "trainer.accelerator=cpu", f"paths.runs='{tmp_path}'"))
