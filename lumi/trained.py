"""A trained model from its run or checkpoint, verified from the first byte."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lumi.arch import Decoder
from lumi.arch.lora import ADAPTER, attach_adapter, merge_adapter
from lumi.arch.weights import load_decoder, save_weights
from lumi.callbacks import best_checkpoint, newest_checkpoint
from lumi.errors import CheckpointError, TokenizerMismatch
from lumi.manifest import atomic_folder, fingerprint, verify, write_manifest
from lumi.tokenizer import Template, Tokenizer


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trained:
    """A model with everything that belongs to it.

    Attributes:
        decoder: on the CPU, in evaluation mode; an adapter is merged into its weights.
        tokenizer: the one it was trained with.
        checkpoint: folder that it was read from.
        run: folder of its run, when the checkpoint still lies in one.
        facts: what the run wrote about itself (`lumi.callbacks.RunFacts`), plain JSON.
    """

    decoder: Decoder
    tokenizer: Tokenizer
    checkpoint: Path
    run: Path | None
    facts: dict[str, Any]

    @property
    def template(self) -> Template | None:
        """How it is to be asked; None for a model that has seen no conversation."""
        return Template.from_dict(self.facts["template"]) if "template" in self.facts else None


def load_trained(path: Path, *, key: str = "model") -> Trained:
    """Read a run's newest checkpoint, or a checkpoint.

    Args:
        key: the setting that named it, for messages.

    Raises:
        CheckpointError: there is none, or its bytes are not what its manifest says.
        TokenizerMismatch: it holds another tokenizer than it was trained with.
    """
    checkpoint = find_checkpoint(path, key=key)
    manifest = verify(checkpoint, kind="checkpoint")
    tokenizer = Tokenizer.from_bytes((checkpoint / "tokenizer.model").read_bytes())
    if tokenizer.sha256 != manifest.parents.get("tokenizer"):
        raise TokenizerMismatch(
            f"{checkpoint} holds tokenizer {tokenizer.sha256[:12]}…",
            f"it was trained with {manifest.parents.get('tokenizer', 'none')[:12]}…",
            "take the checkpoint from where it was made",
        )
    run = checkpoint.parent.parent if checkpoint.parent.name == "checkpoints" else None
    decoder = load_decoder(checkpoint)
    if (checkpoint / ADAPTER).exists():
        attach_adapter(decoder, checkpoint)
        merge_adapter(decoder)
    return Trained(
        decoder=decoder.eval(),
        tokenizer=tokenizer,
        checkpoint=checkpoint,
        run=run if run is not None and (run / "run.json").exists() else None,
        facts=json.loads((checkpoint / "run.json").read_bytes()),
    )


def save_trained(trained: Trained, folder: Path) -> None:
    """Write a model as a checkpoint without training state, its adapter merged: what `load_trained` reads."""
    with atomic_folder(folder) as work:
        save_weights(work, trained.decoder.state_dict(), trained.decoder.config)
        (work / "tokenizer.model").write_bytes(trained.tokenizer.model_bytes)
        (work / "run.json").write_text(json.dumps(trained.facts, indent=2) + "\n")
        write_manifest(
            work,
            kind="checkpoint",
            name=folder.name,
            fingerprint=fingerprint(trained.facts),
            parents={"tokenizer": trained.tokenizer.sha256, **trained.facts["data"]},
            info={"step": trained.facts["step"]},
        )


def lineage(facts: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """What a model says of itself, then what the models that it was made from say, as far as they are still there."""
    while True:
        yield facts
        before = Path(facts.get("initial", {}).get("path", "")) / "run.json"
        if "initial" not in facts or not before.exists():
            return
        facts = json.loads(before.read_bytes())


def find_checkpoint(path: Path, *, key: str = "model") -> Path:
    """The checkpoint that a path means: itself, a run's newest, or its best as ``RUN/best``.

    Raises:
        CheckpointError: there is none.
    """
    if (path / "decoder.json").exists():
        return path
    if path.name == "best" and (best := best_checkpoint(path.parent / "checkpoints")):
        return best
    folder = path / "checkpoints" if (path / "checkpoints").is_dir() else path
    newest = newest_checkpoint(folder, quarantine=False) if folder.is_dir() else None
    if newest is None:
        siblings = sorted(str(p.parent) for p in path.parent.glob("*/checkpoints")) if path.parent.is_dir() else []
        raise CheckpointError(
            f"{key}={path}",
            "is not a run or a checkpoint",
            f"there are {', '.join(siblings)}" if siblings else "train one: python train.py",
        )
    return newest
