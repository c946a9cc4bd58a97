"""Nothing but saves, one step after the other, as the checkpoints of a run are saved and removed."""

import copy
import logging
import os
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from lumi.arch import Decoder, DecoderConfig
from lumi.callbacks import Checkpoint, FolderCheckpointIO, RunFacts
from lumi.callbacks.checkpoint import list_checkpoints, newest_checkpoint
from lumi.callbacks.stopping import StopRequest
from lumi.errors import LumiError
from lumi.manifest import verify
from tests.faults.crash.trials import leftovers

STEP_BYTES = 8


class Saves(pl.Trainer):
    """A trainer that trains nothing: `Checkpoint` saves and removes through it as it does in a run.

    Args:
        folder: of the run.
        decoder: that is saved with every step.
    """

    def __init__(self, folder: Path, decoder: Decoder) -> None:
        facts = {"data": {"world": "0"}, "settings": {}}
        run = RunFacts(decoder=decoder.config, tokenizer=b"t", tokenizer_sha256="0", facts=facts, tokens=lambda _: 0)
        super().__init__(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
        self.writer, self.decoder, self.step = FolderCheckpointIO(run), decoder, 0
        self.checkpoint = Checkpoint(run_folder=folder, total_steps=10**6, val_every_steps=1, stop=StopRequest())

    @property
    def global_step(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Steps that were "trained"."""
        return self.step

    def save_checkpoint(self, filepath: Any, weights_only: bool | None = None, storage_options: Any = None) -> None:
        """As Lightning's, without the state of loops that never ran."""
        weights = {f"decoder.{name}": value for name, value in self.decoder.state_dict().items()}
        moments = copy.deepcopy(self.decoder.state_dict())
        self.writer.save_checkpoint({"state_dict": weights, "global_step": self.step, "moments": moments}, filepath)

    def save(self, step: int) -> None:
        """One save, and what is too old removed."""
        self.step = step
        self.checkpoint.on_train_end(self, pl.LightningModule())


def small_decoder() -> Decoder:
    """Of 150 kB."""
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)  # hundreds of trainers are made
    torch.manual_seed(0)
    return Decoder(
        DecoderConfig(vocab_size=256, n_layers=2, d_model=32, n_heads=4, n_kv_heads=2, d_ff=64, max_seq_len=64)
    )


def save_and_tell(folder: Path, decoder: Decoder, first: int, pipe: int, n_saves: int = 10**6) -> None:
    """Save one step after the other, and write the number of each that was reported done."""
    saves = Saves(folder, decoder)
    for step in range(first, first + n_saves):
        saves.save(step)
        os.write(pipe, step.to_bytes(STEP_BYTES, "little"))


def faults_of(folder: Path, acknowledged: int) -> list[str]:
    """What is wrong after a kill: a save that is lost, or something visible that is not whole."""
    found = []
    listed = list_checkpoints(folder / "checkpoints")
    for step, path in listed:
        try:
            verify(path, kind="checkpoint")
        except LumiError as error:
            found.append(f"step {step} is visible and damaged: {error}")
    newest = newest_checkpoint(folder / "checkpoints", quarantine=False) if listed else None
    step = int(newest.name[5:13]) if newest else 0
    if step < acknowledged:
        found.append(f"step {acknowledged} was reported, the newest is {step}")
    return found


def faults_after_the_next_save(folder: Path, decoder: Decoder) -> list[str]:
    """What is wrong once the run has gone on: the next save fails, or something stays behind."""
    newest = list_checkpoints(folder / "checkpoints")
    saves = Saves(folder, decoder)
    saves.checkpoint.setup(saves, pl.LightningModule(), "fit")
    step = newest[0][0] + 1 if newest else 1
    saves.save(step)
    left = leftovers(folder)
    return [*faults_of(folder, step), *([f"left behind: {left}"] if left else [])]
