"""Guards whose loss no other test would notice; see `tests.faults.plants`."""

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lumi.arch import Decoder
from lumi.callbacks import newest_checkpoint
from lumi.callbacks.training_state import read_training_state
from lumi.config import build, resolve
from lumi.data import RunLength
from lumi.errors import CheckpointError
from lumi.manifest import atomic_folder, write_manifest
from lumi.optim import AdamW, Constant
from lumi.settings import data_arguments
from tests.stage.test_sentinels import FOUR_OF_2, make_stage, validate


@pytest.fixture
def disk_calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Every fsync and rename from here on, with the path."""
    calls: list[tuple[str, str]] = []
    plain = os.fsync, Path.rename

    def fsync(handle: int) -> None:
        calls.append(("fsync", str(Path(f"/proc/self/fd/{handle}").readlink())))
        plain[0](handle)

    def rename(self: Path, target: Any) -> Path:
        calls.append(("rename", str(target)))
        return plain[1](self, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "rename", rename)
    return calls


def test_every_file_is_on_disk_before_the_rename_and_the_rename_before_it_is_acknowledged(
    tmp_path: Path, disk_calls: list[tuple[str, str]]
) -> None:
    target = tmp_path / "artefact"
    with atomic_folder(target) as work:
        (work / "below").mkdir()
        (work / "below" / "file").write_text("content")
        write_manifest(work, kind="report", name="x", fingerprint="0")
    renamed = disk_calls.index(("rename", str(target)))
    before = {path for call, path in disk_calls[:renamed] if call == "fsync"}
    assert {str(work), f"{work}/below", f"{work}/below/file", f"{work}/MANIFEST.json"} <= before
    assert ("fsync", str(tmp_path)) in disk_calls[renamed:]


def checkpoint(folder: Path, step: int) -> Path:
    """As much of a checkpoint as is looked at when one is chosen."""
    target = folder / f"step_{step:08d}.ckpt"
    with atomic_folder(target) as work:
        (work / "model.safetensors").write_text(f"weights of step {step}")
        write_manifest(work, kind="checkpoint", name=target.name, fingerprint="0", info={"step": step})
    return target


def test_the_newest_checkpoint_that_is_whole_is_taken_whatever_the_clock_said(tmp_path: Path) -> None:
    older, newer, damaged = (checkpoint(tmp_path, step) for step in (2, 4, 6))
    os.utime(older)
    os.utime(newer, (0, 0))  # the clock went back
    assert newest_checkpoint(tmp_path) == damaged
    (damaged / "model.safetensors").write_text("weights of step 7")
    assert newest_checkpoint(tmp_path) == newer
    assert not damaged.exists()


def test_a_run_that_goes_on_reads_from_where_it_stands(run_config: Callable[..., Any]) -> None:
    settings = resolve(run_config("trainer.accumulate=2"))
    data = build(settings["data"], "data", **data_arguments(settings))
    data.prepare_data()
    data.setup()
    data.length = RunLength(total_steps=4, accumulate=2, start_step=3)
    batches = list(data.train_dataloader())
    expected = [data.train_dataloader().dataset[number] for number in (6, 7)]
    assert [batch["tokens"].tolist() for batch in batches] == [batch["tokens"].tolist() for batch in expected]


class Canary:
    """Makes a file when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (self.file,)


def test_nothing_in_the_state_of_a_checkpoint_is_run(tmp_path: Path) -> None:
    state: dict[str, Any] = {
        "global_step": 1,
        "loops": {},
        "optimizer_states": [],
        "lr_schedulers": [],
        "callbacks": {},
    }
    torch.save({**state, "more": Canary(tmp_path / "canary")}, tmp_path / "training.pt")
    with pytest.raises(CheckpointError, match="more than plain data"):
        read_training_state(tmp_path / "training.pt")
    assert not (tmp_path / "canary").exists()


def test_validation_has_no_dropout(tiny_config: Any) -> None:
    torch.manual_seed(0)
    decoder = Decoder(dataclasses.replace(tiny_config, dropout=0.5))
    stage = make_stage(decoder, AdamW(lr=1e-3, schedule=Constant()))
    assert validate(stage, FOUR_OF_2) == validate(stage, FOUR_OF_2)
