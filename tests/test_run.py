"""Whole runs: what they leave behind, and that stopping one anywhere changes nothing."""

import functools
import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
from omegaconf import DictConfig

from lumi.callbacks import Progress, list_checkpoints, read_metrics
from lumi.errors import CheckpointError, ConfigError, Interrupted
from lumi.manifest import sha256_file
from lumi.run import train
from tests.faults.ledger import Report

Config = Callable[..., DictConfig]

STEPS = 8
LENGTH = (f"budget.steps={STEPS}", "trainer.val_every_steps=3", "callbacks.checkpoint.every_steps=2")
CURVES = (
    "train/loss",
    "train/margin",
    "optim/lr",
    "optim/grad_norm",
    "val/loss",
    "val/bits_per_byte/second",
    "mix/second",
)


def curve(run: Path) -> dict[int, dict[str, float]]:
    """Everything in metrics.csv that must not depend on interruptions: all but the pace."""
    rows = read_metrics(run / "metrics.csv")
    return {step: {name: row[name] for name in CURVES if name in row} for step, row in rows.items()}


def weights(run: Path) -> list[str]:
    """Hashes of the weights of the newest checkpoint, its adapter's among them."""
    newest = list_checkpoints(run / "checkpoints")[0][1]
    return [sha256_file(file) for file in sorted(newest.glob("*.safetensors"))]


def in_child(action: Callable[[], None]) -> int:
    """Run in a forked process, so that a kill takes nothing else with it; returns its wait status."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            action()
            code = 0
        finally:
            os._exit(code)
    return os.waitpid(child, 0)[1]


def train_and_die(cfg: DictConfig, after_step: int, how: signal.Signals) -> int:
    """Train in a child that sends itself a signal when step ``after_step`` is done."""
    plain = Progress.on_train_batch_end

    def deadly(
        self: Progress, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        plain(self, trainer, pl_module, outputs, batch, batch_idx)
        if trainer.global_step == after_step:
            os.kill(os.getpid(), how)

    def action() -> None:
        Progress.on_train_batch_end = deadly
        try:
            train(cfg)
        except Interrupted as stop:
            os._exit(stop.exit_code)

    return in_child(action)


Whole = Callable[..., Path]


@pytest.fixture(scope="session")
def whole(
    composed: Config, tiny_run: tuple[str, ...], data_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Whole:
    """``whole("optim=muon")``: the folder of an undisturbed run with these overrides, trained once a session."""

    @functools.cache
    def folder(*overrides: str) -> Path:
        runs = tmp_path_factory.mktemp("whole")
        places = (f"paths.data='{data_folder}'", f"paths.runs='{runs}'", "name=run")
        train(composed("train", *tiny_run, *places, *LENGTH, *overrides))
        return runs / "run"

    return folder


def assert_same_run(one: Path, other: Path) -> None:
    """Equal to the last bit: every logged figure but the pace, and the weights."""
    assert curve(one) == curve(other)
    assert weights(one) == weights(other)


VARIANTS = {
    "plain": (),
    "accumulation": ("trainer.accumulate=2",),
    "workers": ("data.num_workers=2",),
    "muon": ("optim=muon",),
}


@pytest.mark.matrix("K4")
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("killed_after", [3, 6])
def test_a_killed_run_continues_bit_for_bit(
    run_config: Config, whole: Whole, tmp_path: Path, row: Report, variant: str, killed_after: int
) -> None:
    cut = run_config(*LENGTH, *VARIANTS[variant])
    status = train_and_die(cut, killed_after, signal.SIGKILL)
    assert os.WTERMSIG(status) == signal.SIGKILL
    train(cut)
    assert_same_run(tmp_path / "run", whole(*VARIANTS[variant]))
    row(trials=1)


LATER = {
    "sft": ("sft", ("stage.lora=null",)),
    "sft with replay": ("sft", ("stage.lora=null", "data.replay=0.4")),
    "sft with an adapter": ("sft", ("stage.lora.dropout=0.1",)),
    "dpo": ("dpo", ("stage.lora=null",)),
    "dpo with an adapter": ("dpo", ("stage.lora.dropout=0.1",)),
}


@pytest.mark.matrix("K4")
@pytest.mark.parametrize("variant", LATER)
def test_later_stages_continue_bit_for_bit_too(
    composed: Config, stages: dict[str, tuple[str, ...]], data_folder: Path, tmp_path: Path, variant: str, row: Report
) -> None:
    stage, overrides = LATER[variant]

    def config(runs: Path) -> DictConfig:
        places = (f"paths.data='{data_folder}'", f"paths.runs='{runs}'", "name=run", "budget.epochs=null")
        return composed("train", *stages[stage], *overrides, *places, *LENGTH)

    train(config(tmp_path / "whole"))
    status = train_and_die(config(tmp_path / "cut"), 5, signal.SIGKILL)
    assert os.WTERMSIG(status) == signal.SIGKILL
    assert [step for step, _ in list_checkpoints(tmp_path / "cut" / "run" / "checkpoints")] == [4, 2]
    train(config(tmp_path / "cut"))
    assert len(curve(tmp_path / "cut" / "run")) == STEPS
    assert_same_run(tmp_path / "cut" / "run", tmp_path / "whole" / "run")
    assert len(weights(tmp_path / "whole" / "run")) == 1 + ("adapter" in variant)
    row(trials=1)


@pytest.mark.matrix("K7")
def test_a_run_killed_again_and_again_is_the_same_run(
    run_config: Config, whole: Whole, tmp_path: Path, row: Report
) -> None:
    for step in (1, 3, 4, 7, 8):
        train_and_die(run_config(*LENGTH), step, signal.SIGKILL)
    train(run_config(*LENGTH))
    assert_same_run(tmp_path / "run", whole())
    row(trials=5)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_the_step_and_says_so_in_the_exit_code(
    run_config: Config, whole: Whole, tmp_path: Path, how: signal.Signals
) -> None:
    cut = run_config(*LENGTH, "callbacks.checkpoint.every_steps=100")
    assert os.waitstatus_to_exitcode(train_and_die(cut, 5, how)) == 128 + how
    assert [step for step, _ in list_checkpoints(tmp_path / "run" / "checkpoints")] == [5]
    train(cut)
    assert_same_run(tmp_path / "run", whole())


def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_it_used(
    run_config: Config, whole: Whole, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train_and_die(run_config(*LENGTH), 7, signal.SIGKILL)
    newest = tmp_path / "run" / "checkpoints" / "step_00000006.ckpt" / "model.safetensors"
    damaged = bytearray(newest.read_bytes())
    damaged[-1] ^= 1
    newest.write_bytes(damaged)
    train(run_config(*LENGTH))
    assert "step 6 is damaged" in caplog.text
    assert_same_run(tmp_path / "run", whole())


def test_when_all_checkpoints_are_damaged_nothing_starts_afresh(run_config: Config, tmp_path: Path) -> None:
    cut = run_config(*LENGTH)
    train_and_die(cut, 5, signal.SIGKILL)
    for _, checkpoint in list_checkpoints(tmp_path / "run" / "checkpoints"):
        (checkpoint / "training.pt").unlink()
    with pytest.raises(CheckpointError, match="all checkpoints"):
        train(cut)


def test_a_finished_run_is_not_trained_again(run_config: Config, tmp_path: Path) -> None:
    cfg = run_config(*LENGTH)
    first = train(cfg)
    before = weights(tmp_path / "run")
    assert train(cfg) == first
    assert weights(tmp_path / "run") == before


def test_a_run_refuses_other_settings_by_name(run_config: Config) -> None:
    train(run_config(*LENGTH))
    with pytest.raises(ConfigError, match=r"optim\.lr: 0\.002 -> 0\.01"):
        train(run_config(*LENGTH, "optim.lr=0.01"))


def test_resume_never_does_not_touch_an_existing_run(run_config: Config) -> None:
    train(run_config(*LENGTH))
    with pytest.raises(ConfigError, match="resume=never"):
        train(run_config(*LENGTH, "resume=never"))


def test_without_a_name_equal_settings_find_the_same_folder(run_config: Config, tmp_path: Path) -> None:
    train(run_config("budget.steps=1", "name=null"))
    train(run_config("budget.steps=1", "name=null", "callbacks.checkpoint.keep_last=1"))
    train(run_config("budget.steps=1", "name=null", "seed=1"))
    assert len(list(tmp_path.glob("pretrain-*"))) == 2


def test_two_equal_runs_are_equal_bit_for_bit(run_config: Config, whole: Whole, tmp_path: Path) -> None:
    train(run_config(*LENGTH))
    assert_same_run(tmp_path / "run", whole())


def test_workers_change_nothing(whole: Whole) -> None:
    assert_same_run(whole("data.num_workers=2"), whole())


def test_samples_change_nothing(run_config: Config, whole: Whole, tmp_path: Path) -> None:
    sampling = "{_target_: lumi.generate.SamplingParams, max_new_tokens: 4, seed: 0}"
    sampler = f"callbacks.samples={{_target_: lumi.callbacks.Samples, prompts: [''], sampling: {sampling}}}"
    train(run_config(*LENGTH, sampler))
    assert_same_run(tmp_path / "run", whole())
    assert len(list((tmp_path / "run" / "samples").iterdir())) == 3  # steps 3, 6 and 8


def test_the_last_step_is_validated_and_saved(run_config: Config, tmp_path: Path) -> None:
    metrics = train(run_config(*LENGTH))
    assert read_metrics(tmp_path / "run" / "metrics.csv")[STEPS]["val/loss"] == metrics["val/loss"]
    assert list_checkpoints(tmp_path / "run" / "checkpoints")[0][0] == STEPS


def test_a_checkpoint_names_what_it_was_made_from(run_config: Config, tmp_path: Path) -> None:
    train(run_config("budget.steps=1"))
    checkpoint = list_checkpoints(tmp_path / "run" / "checkpoints")[0][1]
    manifest = json.loads((checkpoint / "MANIFEST.json").read_text())
    assert manifest["parents"]["tokenizer"] == sha256_file(checkpoint / "tokenizer.model")
    assert set(manifest["parents"]) == {"tokenizer", "world", "second"}


def test_other_packed_data_is_refused_on_resume(run_config: Config, data_folder: Path, tmp_path: Path) -> None:
    own = tmp_path / "data"
    shutil.copytree(data_folder, own)
    cut = run_config(*LENGTH, f"paths.data='{own}'")
    train_and_die(cut, 5, signal.SIGKILL)
    shutil.rmtree(own / "packed")
    with pytest.raises(ConfigError, match=r"pack\.seed: 0 -> 7"):
        train(run_config(*LENGTH, f"paths.data='{own}'", "pack.seed=7"))


def test_corpus_tokenizer_and_packed_data_are_the_same_on_every_machine(run_config: Config, data_folder: Path) -> None:
    train(run_config("budget.steps=1"))
    corpus, tokenizer, packed = (
        json.loads((data_folder / place / "MANIFEST.json").read_text())
        for place in ("corpus/world", "tokenizer/world", "packed/world/world/world")
    )
    assert corpus["info"]["content_sha256"] == "e2efdd752aac09e66a9f4cd55ab2691484a271f24acb2228253923c609b1753f"
    assert tokenizer["info"]["sha256"] == "5e9b9ae94bfbc5ab387b425cc8efdfc492b0a3d0333a92e98f4ec9c526cef0d4"
    assert (
        packed["files"]["train-00000.bin"]["sha256"]
        == "6d576f9d44a567491ca4be353aa27fd85a1fb70f75a65ff708277cfa27cb669b"
    )
