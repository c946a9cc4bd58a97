"""Two processes train what one trains: the same windows in the same steps, one set of files, one last step."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import DictConfig
from pytorch_lightning.strategies import DDPStrategy
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook

from lumi.callbacks import list_checkpoints
from lumi.data.loading import TrainBatches
from lumi.lock import folder_lock
from lumi.manifest import sha256_file
from lumi.run import train
from tests.faults.ledger import Report
from tests.scale.conftest import InRanks, curve, largest_difference, signal_after, start_ranks, wait_for

Config = Callable[..., DictConfig]

LENGTH = ("budget.steps=8", "trainer.val_every_steps=4", "callbacks.checkpoint.every_steps=2", "arch.dropout=0.0")
UNEVEN = ("data.val_windows=40",)  # 20 batches of the first source, 17 of the second
ONE = (*LENGTH, *UNEVEN, "trainer.accumulate=2")
TWO = (*LENGTH, *UNEVEN, "trainer=ddp", "trainer.devices=2", "trainer.accelerator=cpu", "trainer.threads=1")


@pytest.fixture(scope="module")
def runs(composed: Config, tiny_run: tuple[str, ...], data_folder: Path, tmp_path_factory) -> Callable[..., DictConfig]:
    """``runs("one", *ONE)``: the config of a run that the tests of this file share."""
    folder = tmp_path_factory.mktemp("runs")
    return lambda name, *overrides: composed(
        "train", *tiny_run, f"paths.data='{data_folder}'", f"paths.runs='{folder}'", f"name={name}", *overrides
    )


def folder_of(cfg: DictConfig) -> Path:
    return Path(cfg.paths.runs) / cfg.name


@pytest.fixture(scope="module")
def one(runs) -> Path:
    """A run of one process, two micro-batches a step."""
    cfg = runs("one", *ONE)
    train(cfg)
    return folder_of(cfg)


@pytest.fixture(scope="module")
def two(runs) -> Path:
    """The same steps by two processes, dropout off."""
    cfg = runs("two", *TWO)
    assert wait_for(start_ranks(cfg, 2, None)) == [0, 0]
    return folder_of(cfg)


@pytest.mark.matrix("T6")
def test_two_processes_train_as_one_does_and_validate_at_the_last_step_too(one: Path, two: Path, row: Report) -> None:
    different = largest_difference(one, two)
    row(trials=1, failures=int(different >= 1e-5), note=f"1 and 2 processes: figures within {different:.0e}")
    assert [step for step, row in curve(two).items() if "val/loss" in row] == [4, 8]


def test_validation_of_uneven_shares_is_that_of_one_process(one: Path, two: Path) -> None:
    rows = [curve(run)[4] for run in (one, two)]
    names = [name for name in rows[0] if name.startswith("val/")]
    assert len(names) == 7
    assert all(rows[1][name] == pytest.approx(rows[0][name], rel=1e-6) for name in names)


def test_only_the_first_rank_writes_and_it_writes_what_one_process_does(one: Path, two: Path) -> None:
    def names(run: Path) -> list[str]:
        return sorted(str(path.relative_to(run)) for path in run.rglob("*") if path.is_file())

    assert names(two) == names(one)
    assert json.loads((two / "run.json").read_text())["status"] == "finished"


@pytest.mark.matrix("T6")
def test_both_ranks_read_the_windows_that_one_process_reads(
    runs, in_ranks: InRanks, tmp_path: Path, row: Report
) -> None:
    read = TrainBatches.__getitem__

    def note(rank: int) -> None:
        def noted(self: TrainBatches, number: int):
            batch = read(self, number)
            with (tmp_path / f"{rank}").open("a") as file:
                file.write(json.dumps([number, batch["source"].tolist(), batch["sample"].tolist()]) + "\n")
            return batch

        TrainBatches.__getitem__ = noted

    def seen(rank: int, n_batches: int) -> list[list]:
        lines = list(map(json.loads, (tmp_path / f"{rank}").read_text().splitlines()))
        return lines[-n_batches:]  # those before measured the speed and were looked at by the doctor

    in_ranks(runs("order", *TWO, "budget.steps=3"), meddle=note)
    both = [pair[1:] for step in zip(seen(0, 3), seen(1, 3), strict=True) for pair in step]
    (tmp_path / "0").unlink()
    in_ranks(runs("alone", *ONE, "budget.steps=3"), n_ranks=1, meddle=note)
    assert len(both) == 6
    row(trials=6, failures=int(both != [pair[1:] for pair in seen(0, 6)]), note="micro-batches, in order")


@pytest.mark.parametrize(
    ("number", "ranks"), [(signal.SIGTERM, (1,)), (signal.SIGUSR1, (0, 1))], ids=["to one rank", "to both"]
)
def test_a_signal_ends_both_ranks_after_the_same_step_with_a_checkpoint(
    runs, in_ranks: InRanks, number: signal.Signals, ranks: tuple[int, ...]
) -> None:
    cfg = runs(f"signal-{number}-{len(ranks)}", *TWO, "callbacks.checkpoint.every_steps=100")
    assert in_ranks(cfg, meddle=signal_after(3, number, *ranks)) == [143, 143]
    assert [step for step, _ in list_checkpoints(folder_of(cfg) / "checkpoints")] == [3]


def test_a_killed_rank_ends_the_other_and_the_run_goes_on_bit_for_bit(runs, in_ranks: InRanks, two: Path) -> None:
    cfg = runs("killed", *TWO)
    codes = in_ranks(cfg, meddle=signal_after(5, signal.SIGKILL, 1))
    assert codes == [1, -9]
    assert in_ranks(cfg) == [0, 0]
    assert curve(folder_of(cfg)) == curve(two)
    newest = [list_checkpoints(run / "checkpoints")[0][1] / "model.safetensors" for run in (folder_of(cfg), two)]
    assert sha256_file(newest[0]) == sha256_file(newest[1])


@pytest.mark.matrix("T6")
def test_a_run_goes_from_one_process_to_two_and_back(runs, in_ranks: InRanks, one: Path, row: Report) -> None:
    assert in_ranks(runs("there", *ONE), n_ranks=1, meddle=signal_after(3, signal.SIGTERM, 0)) == [143]
    assert in_ranks(runs("there", *TWO), meddle=signal_after(6, signal.SIGTERM, 0)) == [143, 143]
    train(runs("there", *ONE))
    different = largest_difference(one, folder_of(runs("there")))
    row(trials=2, failures=int(different >= 1e-5), note=f"1, 2, then 1 process: figures within {different:.0e}")


def test_gradients_are_sent_once_a_step_however_many_micro_batches_it_has(
    runs, in_ranks: InRanks, tmp_path: Path
) -> None:
    plain = DDPStrategy.configure_ddp

    def count(rank: int) -> None:
        def counted(self: DDPStrategy) -> None:
            plain(self)
            self.model.register_comm_hook(None, sent)  # pyright: ignore[reportCallIssue, reportOptionalMemberAccess]

        def sent(state, bucket):
            with (tmp_path / f"{rank}").open("a") as file:
                file.write(f"{bucket.index()}\n")
            return allreduce_hook(state, bucket)

        DDPStrategy.configure_ddp = counted

    assert in_ranks(runs("sent", *TWO, "trainer.accumulate=3", "budget.steps=4"), meddle=count) == [0, 0]
    assert (tmp_path / "1").read_text().split() == ["0"] * 4


def test_a_folder_in_use_is_refused_on_every_rank(runs, in_ranks: InRanks) -> None:
    cfg = runs("locked", *TWO)
    with folder_lock(folder_of(cfg)):
        assert in_ranks(cfg) == [4, 4]


@pytest.mark.parametrize("stage", ["sft", "dpo"])
def test_later_stages_train_in_two_processes_as_in_one(
    composed: Config,
    stages: dict[str, tuple[str, ...]],
    data_folder: Path,
    tmp_path: Path,
    in_ranks: InRanks,
    stage: str,
) -> None:
    length = ("budget.epochs=null", "budget.steps=3", "trainer.val_every_steps=2", "stage.lora.dropout=0.0")

    def config(name: str, *overrides: str) -> DictConfig:
        places = (f"paths.data='{data_folder}'", f"paths.runs='{tmp_path}'", f"name={name}", "arch.dropout=0.0")
        return composed("train", *stages[stage], *places, *length, *overrides)

    assert in_ranks(config("one", "trainer.accumulate=2"), n_ranks=1) == [0]
    assert in_ranks(config("two", "trainer=ddp", "trainer.accelerator=cpu", "trainer.threads=1")) == [0, 0]
    assert largest_difference(tmp_path / "one", tmp_path / "two") < 1e-5


def test_nothing_of_a_rank_is_left_in_this_process() -> None:
    assert "RANK" not in os.environ
