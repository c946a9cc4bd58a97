"""Checkpoints that a kill cannot tear, and that are checked before they are used.

A checkpoint is a folder ``step_00001000.ckpt``:

    model.safetensors, decoder.json   the weights and their shape: all that evaluation and serving read
    adapter_model.safetensors, …      the adapter, in peft's form, where one is trained over those weights
    tokenizer.model                   the tokenizer it was trained with
    run.json                          facts of the run: resolved config, data and tokenizer hashes, step, versions
    training.pt                       optimizer and loop state, plain types only, never unpickled
    MANIFEST.json                     size and SHA-256 of all of these

It is written beside its place and renamed when all of it is on disk. Lightning's own path writes through the temporary
directory and can replace a good checkpoint by half a one.
"""

import dataclasses
import itertools
import json
import logging
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.io import CheckpointIO

from lumi.arch.config import DecoderConfig
from lumi.arch.lora import Lora, join_state, load_adapter, save_adapter, split_state
from lumi.arch.weights import CONFIG, WEIGHTS, load_state, read_config, save_weights
from lumi.callbacks.stopping import StopRequest
from lumi.callbacks.training_state import read_training_state
from lumi.disk import check_space
from lumi.errors import CheckpointError, ConfigError, DataError, ResourceError
from lumi.manifest import atomic_folder, fingerprint, remove_folder, sweep, verify, write_atomic, write_manifest
from lumi.ranks import largest
from lumi.strangers import read_object
from lumi.tokenizer.frozen import check_identity

log = logging.getLogger(__name__)

_NAME = re.compile(r"step_(\d{8,})\.ckpt")
BEST = "best.json"
_PREFIX = "decoder."


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunFacts:
    """What a checkpoint says about the run it comes from.

    Attributes:
        decoder: the architecture.
        tokenizer: bytes of the tokenizer's model file.
        tokenizer_sha256: its identity.
        facts: plain JSON: resolved config, fingerprints of the data, versions.
        tokens: that were read after so many steps.
        lora: settings of the adapter, when one is trained.
    """

    decoder: DecoderConfig
    tokenizer: bytes
    tokenizer_sha256: str
    facts: dict[str, Any]
    tokens: Callable[[int], int]
    lora: Lora | None = None


class FolderCheckpointIO(CheckpointIO):
    """Writes and reads Lightning's checkpoints as verified folders.

    Args:
        run: what is stored with every checkpoint.
    """

    def __init__(self, run: RunFacts) -> None:
        self.run = run

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write the folder ``path``; when this returns, it survives a kill."""
        state = checkpoint.pop("state_dict")
        weights = {name.removeprefix(_PREFIX): value for name, value in state.items() if name.startswith(_PREFIX)}
        step = checkpoint["global_step"]
        facts = {**self.run.facts, "step": step, "tokens": self.run.tokens(step)}
        target = Path(path)
        with atomic_folder(target) as folder:
            base, adapter = split_state(weights)
            save_weights(folder, base, self.run.decoder)
            if self.run.lora is not None:
                save_adapter(folder, adapter, self.run.lora)
            (folder / "tokenizer.model").write_bytes(self.run.tokenizer)
            (folder / "run.json").write_text(json.dumps(facts, indent=2) + "\n")
            with (folder / "training.pt").open("wb") as file:  # a path, and PyTorch would not say what went wrong
                torch.save(checkpoint, file)
            write_manifest(
                folder,
                kind="checkpoint",
                name=target.name,
                fingerprint=fingerprint(facts),
                parents={"tokenizer": self.run.tokenizer_sha256, **facts["data"], **_initial(facts)},
                info={"step": step},
            )

    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Verify every hash, then read; plain types and tensors only, whatever the caller asks for."""
        folder = Path(path)
        manifest = verify(folder, kind="checkpoint", needs=(CONFIG, WEIGHTS, "training.pt", "tokenizer.model"))
        for sha256 in (manifest.files["tokenizer.model"]["sha256"], manifest.parents.get("tokenizer", "none")):
            check_identity(sha256, self.run.tokenizer_sha256, f"the tokenizer of {folder}")
        config = read_config(folder)
        mine, theirs = dataclasses.asdict(self.run.decoder), dataclasses.asdict(config)
        changed = [
            key for key in mine if mine[key] != theirs[key] and key not in ("attention", "checkpoint_activations")
        ]
        if changed:
            listed = ", ".join(f"arch.{key}: {theirs[key]} -> {mine[key]}" for key in changed)
            raise CheckpointError(
                f"{folder}", f"has another architecture ({listed})", "use its architecture, or another name"
            )
        checkpoint = read_training_state(folder / "training.pt")
        state = load_state(folder, config)
        if self.run.lora is not None:
            state = join_state(state, load_adapter(folder)[0])
        checkpoint["state_dict"] = {f"{_PREFIX}{name}": value for name, value in state.items()}
        return checkpoint

    def remove_checkpoint(self, path: str | Path) -> None:
        """Delete the folder."""
        remove_folder(Path(path))


def _initial(facts: dict[str, Any]) -> dict[str, str]:
    """``initial/<file>`` → SHA-256 of the weights that the run began from; empty when those were random."""
    return {f"initial/{name}": sha256 for name, sha256 in facts.get("initial", {}).get("weights", {}).items()}


class Checkpoint(pl.Callback):
    """Saves every so many optimizer steps, at the end, and when a signal asks the run to stop.

    A checkpoint is taken *between* two steps, after any validation that belongs to the first one, so that nothing is skipped
    or done twice when the run continues from it. A signal to one rank is a signal to all: before every step they ask each
    other, so that all of them stop after the same one.

    Args:
        run_folder: of the run; the checkpoints go to its ``checkpoints/``.
        total_steps: of the run; the last step is always saved.
        val_every_steps: optimizer steps between validations.
        stop: what signals ask for.
        every_steps: optimizer steps between two checkpoints; null saves after every validation.
        keep_last: so many of the newest stay; null keeps all.
        keep_best: the one with the lowest val/loss stays too; ``checkpoints/best.json`` names it.
    """

    def __init__(
        self,
        *,
        run_folder: Path,
        total_steps: int,
        val_every_steps: int,
        stop: StopRequest,
        every_steps: int | None = None,
        keep_last: int | None = 2,
        keep_best: bool = False,
    ) -> None:
        every_steps = val_every_steps if every_steps is None else every_steps
        for key, value in (("every_steps", every_steps), ("keep_last", 1 if keep_last is None else keep_last)):
            if value < 1:
                raise ConfigError(f"callbacks.checkpoint.{key}={value}", "must be at least 1")
        self.folder = run_folder / "checkpoints"
        self.every_steps, self.keep_last, self.total_steps = every_steps, keep_last, total_steps
        self.keep_best, self.val_every_steps = keep_best, val_every_steps
        self.stop, self._saved_step = stop, -1
        stop.is_heeded = True

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Remove what a killed process left, also where all steps are done and no training starts."""
        if trainer.is_global_zero:
            for folder in (self.folder.parent, self.folder):
                sweep(folder)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take over the signals; a step that was resumed from needs no saving again."""
        self._saved_step = trainer.global_step
        self.stop.renew()
        if trainer.is_global_zero:
            self._check_space(pl_module)

    def _check_space(self, module: pl.LightningModule) -> None:
        """Refuse a run whose checkpoints cannot fit: weights and a moment of each, at the least, in all that stay and one."""
        weights = sum(parameter.nbytes for parameter in module.parameters())
        trained = sum(parameter.nbytes for parameter in module.parameters() if parameter.requires_grad)
        there = len(list_checkpoints(self.folder))
        stay = min(self.keep_last or self.total_steps, math.ceil(self.total_steps / self.every_steps))
        fix = "free some space, or use a smaller callbacks.checkpoint.keep_last or arch"
        check_space(self.folder, (weights + trained) * max(1, stay + 1 - there), fix)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Also in the validation after the last step, which Lightning would break off on one rank only."""
        self.stop.renew()

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """The first moment after a step and its validation: save if it is time, stop if a signal came."""
        step = trainer.global_step
        if batch_idx % trainer.accumulate_grad_batches:
            return  # in the middle of an optimizer step there is no state to resume from
        number = largest(self.stop.number)
        if step != self._saved_step and (step % self.every_steps == 0 or number):
            self._save(trainer)
        if number:
            self.stop.number = number
            raise self.stop.interruption(f"after step {step} of {self.total_steps}")

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save the last step."""
        if trainer.global_step != self._saved_step:
            self._save(trainer)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Make Lightning's counters say "between two batches": anything else would skip or repeat one on resuming."""
        self._count(trainer, checkpoint)

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Count in this run's micro-batches: it may have other ones than the run that saved."""
        self._count(trainer, checkpoint)

    def _count(self, trainer: pl.Trainer, checkpoint: dict[str, Any]) -> None:
        progress = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
        batches_done = checkpoint["global_step"] * trainer.accumulate_grad_batches
        for counts in (progress["current"], progress["total"]):
            counts.update(dict.fromkeys(("ready", "started", "processed", "completed"), batches_done))
        progress["is_last_batch"] = False

    def _save(self, trainer: pl.Trainer) -> None:
        step = trainer.global_step
        path = self.folder / f"step_{step:08d}.ckpt"
        try:
            trainer.save_checkpoint(path, weights_only=False)
        except (MemoryError, torch.OutOfMemoryError) as error:
            raise ResourceError(
                f"no memory left while saving {path} ({str(error)[:160] or type(error).__name__})",
                "the checkpoint before it is whole",
                "end what else runs here, or use a smaller data.batch_size with more trainer.accumulate",
            ) from error
        self._saved_step = step
        if not trainer.is_global_zero:
            return
        best = self._note_best(step, trainer) if self.keep_best else None
        if self.keep_last is not None:
            for number, old in list_checkpoints(self.folder)[self.keep_last :]:
                if number != best:
                    remove_folder(old)

    def _note_best(self, step: int, trainer: pl.Trainer) -> int:
        """Name this checkpoint the best one if it is; returns the step of the best."""
        file = self.folder / BEST
        best = read_best(self.folder)
        loss = trainer.callback_metrics.get("val/loss")
        validated = step % self.val_every_steps == 0 or step == self.total_steps
        better = (
            loss is not None and validated and (best is None or best["step"] >= step or float(loss) < best["val/loss"])
        )
        if better or best is None:
            best = {"step": step, "val/loss": float(loss) if loss is not None and validated else math.inf}
            write_atomic(file, json.dumps(best) + "\n")
        return best["step"]


def list_checkpoints(folder: Path) -> list[tuple[int, Path]]:
    """(step, path) of every checkpoint in ``folder``, newest step first; by number, because clocks jump."""
    found = [(int(match[1]), path) for path in folder.glob("step_*.ckpt") if (match := _NAME.fullmatch(path.name))]
    return sorted(found, reverse=True)


def best_checkpoint(folder: Path) -> Path | None:
    """The checkpoint that ``keep_best`` named, or None."""
    best = read_best(folder)
    step = best["step"] if best else None
    return next((path for number, path in list_checkpoints(folder) if number == step), None)


def read_best(folder: Path) -> dict[str, Any] | None:
    """Step and val/loss of the best checkpoint in ``folder``; None where none was named.

    Raises:
        CheckpointError: the file that names it is not readable.
    """
    file, fix = folder / BEST, "remove it: the next checkpoint is named the best then"
    if not file.exists():
        return None
    best = read_object(file, CheckpointError, fix=fix)
    if not isinstance(best.get("step"), int) or not isinstance(best.get("val/loss"), int | float):
        raise CheckpointError(f"{file}", "names no step and no loss", fix)
    return best


def newest_checkpoint(folder: Path, *, quarantine: bool = True) -> Path | None:
    """The newest checkpoint that is what its manifest says, or None if there never was one.

    A damaged one is named in a warning and, with ``quarantine``, renamed out of the way; the one before it is used. Where none
    is left nothing is renamed, so that the same command says the same again and begins nothing anew.

    Raises:
        CheckpointError: there are checkpoints, and all are damaged.
    """
    listed, damaged = list_checkpoints(folder), list[Path]()
    for step, path in listed:
        try:
            verify(path, kind="checkpoint")
        except DataError as error:
            log.warning("checkpoint of step %d is damaged and skipped: %s", step, error)
            damaged.append(path)
            continue
        if damaged:
            log.warning("continuing from step %d instead of %d", step, listed[0][0])
        for other in damaged if quarantine else ():
            log.warning("set aside: %s", set_aside(other, "damaged"))
        return path
    if listed or any(folder.glob("step_*.ckpt.damaged*")):
        raise CheckpointError(f"{folder}", "all checkpoints in it are damaged", "start again under another name")
    return None


def set_aside(checkpoint: Path, why: str) -> Path:
    """Rename a checkpoint so that it is none any more, and return its new name, ``….damaged`` or ``….damaged-2``."""
    names = itertools.chain([f"{checkpoint.name}.{why}"], (f"{checkpoint.name}.{why}-{n}" for n in itertools.count(2)))
    return checkpoint.rename(next(free for name in names if not (free := checkpoint.with_name(name)).exists()))
