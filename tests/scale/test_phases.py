"""Curricula in whole runs: tokens are counted right, a cut run goes on, a second run begins where a first one ended."""

import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import DictConfig

from lumi.callbacks import list_checkpoints, read_metrics
from lumi.config import resolve
from lumi.errors import TokenizerMismatch
from lumi.manifest import sha256_file
from lumi.run import train
from lumi.settings import check
from tests.scale.conftest import InRanks, curve, largest_difference, signal_after

Config = Callable[..., DictConfig]

WARM = "data.phases=[{until: 0.25, seq_len: 32, batch_ratio: 0.5, weights: {world: 1}}, {until: 1.0}]"
# A step of 2 pieces of 32 tokens reads 62, one of 4 windows of 64 tokens 252: of 996 tokens 249 are 4.0 and 747 3.0 steps.
STEPS = ("data.batch_size=4", "budget.tokens=996", "trainer.val_every_steps=3", "callbacks.checkpoint.every_steps=2")


@pytest.fixture
def whole(run_config: Config, tmp_path: Path) -> Path:
    train(run_config(WARM, *STEPS, "arch.dropout=0.0", "name=whole"))
    return tmp_path / "whole"


def test_a_run_with_phases_counts_the_tokens_it_reads(whole: Path) -> None:
    rows = read_metrics(whole / "metrics.csv")
    tokens = [rows[step]["progress/tokens"] for step in sorted(rows)]
    assert tokens == [62, 124, 186, 248, 500, 752, 1004]
    assert [rows[step]["mix/second"] for step in (1, 4)] == [0, 0]
    assert rows[7]["mix/second"] > 0


def test_it_goes_on_bit_for_bit_after_a_kill_in_a_phase_of_its_own(
    run_config: Config, in_ranks: InRanks, whole: Path, tmp_path: Path
) -> None:
    cut = run_config(WARM, *STEPS, "arch.dropout=0.0", "name=cut")
    for step in (3, 5):
        assert in_ranks(cut, n_ranks=1, meddle=signal_after(step, signal.SIGKILL, 0)) == [-9]
    train(cut)
    assert curve(tmp_path / "cut") == curve(whole)
    newest = [list_checkpoints(run / "checkpoints")[0][1] / "model.safetensors" for run in (tmp_path / "cut", whole)]
    assert sha256_file(newest[0]) == sha256_file(newest[1])


def test_two_processes_follow_the_same_phases(
    run_config: Config, in_ranks: InRanks, whole: Path, tmp_path: Path
) -> None:
    ddp = ("trainer=ddp", "trainer.accelerator=cpu", "trainer.threads=1", "data.batch_size=2")
    assert in_ranks(run_config(WARM, *STEPS, *ddp, "arch.dropout=0.0", "name=two")) == [0, 0]
    assert largest_difference(whole, tmp_path / "two") < 1e-5


def test_a_second_pretraining_run_begins_with_the_weights_of_the_first(run_config: Config, tmp_path: Path) -> None:
    first = train(run_config("budget.steps=4", "name=a", "arch.dropout=0.0"))
    train(run_config("budget.steps=1", "name=b", f"init_from='{tmp_path / 'a'}'", "optim.lr=1e-12", "arch.dropout=0.0"))
    assert read_metrics(tmp_path / "b" / "metrics.csv")[1]["val/loss"] == pytest.approx(first["val/loss"], rel=1e-6)


def test_a_second_run_that_was_cut_goes_on_bit_for_bit(run_config: Config, in_ranks: InRanks, tmp_path: Path) -> None:
    def second(name: str) -> DictConfig:
        start = f"init_from='{tmp_path / 'a'}'"
        return run_config("budget.steps=4", f"name={name}", start, "callbacks.checkpoint.every_steps=1")

    train(run_config("budget.steps=2", "name=a"))
    train(second("b"))
    assert in_ranks(second("c"), n_ranks=1, meddle=signal_after(3, signal.SIGKILL, 0)) == [-9]
    train(second("c"))
    assert curve(tmp_path / "c") == curve(tmp_path / "b")


def test_a_second_run_with_other_tokens_is_refused(run_config: Config, tmp_path: Path) -> None:
    train(run_config("budget.steps=1", "name=a"))
    other = ("tokenizer.name=other", "tokenizer.seed_pieces=3000", "tokenizer.model_type=bpe")
    with pytest.raises(TokenizerMismatch, match=r"was trained with .* · tokenizer=existing tokenizer\.path="):
        train(run_config("budget.steps=1", "name=b", f"init_from='{tmp_path / 'a'}'", *other))


@pytest.mark.parametrize("name", ["base_phase_a", "base_phase_b", "base_phases"])
def test_the_presets_of_the_base_model_are_sound_and_half_a_million_tokens_a_step(composed: Config, name: str) -> None:
    settings = resolve(composed("train", f"experiment={name}"))
    check(settings)
    windows = settings["data"]["batch_size"] * settings["trainer"]["accumulate"]
    assert windows * (settings["data"]["seq_len"] - 1) == 524_032
