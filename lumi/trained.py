"""A trained model from its run, its checkpoint or an export of it, verified from the first byte."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from lumi.arch import Decoder
from lumi.arch.lora import ADAPTER, ADAPTER_CONFIG, attach_adapter, merge_adapter
from lumi.arch.weights import CONFIG, WEIGHTS, load_decoder, save_weights
from lumi.callbacks import best_checkpoint, newest_checkpoint
from lumi.errors import CheckpointError, ConfigError, TokenizerMismatch
from lumi.export import load_adapter_folder, load_huggingface
from lumi.manifest import MANIFEST, atomic_folder, fingerprint, read_manifest, sha256_bytes, verify, write_manifest
from lumi.strangers import read_object
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


def load_trained(path: Path, *, key: str = "model", base: Path | None = None) -> Trained:
    """Read a run's newest checkpoint, a checkpoint, an exported Hugging Face folder, or an adapter over its base.

    Args:
        key: the setting that named it, for messages.
        base: the model that an adapter is put over; None takes the one that the adapter names.

    Raises:
        CheckpointError: there is none, its bytes are not what its manifest says, or an adapter was trained over another base.
        TokenizerMismatch: it holds another tokenizer than it was trained with.
        ConfigError: ``base`` is given for something that is no adapter.
    """
    found = find_checkpoint(path, key=key)
    if _is_adapter(found):
        decoder, tokenizer, facts = load_adapter_folder(found, base, _load_base)
        return Trained(decoder=decoder, tokenizer=tokenizer, checkpoint=found, run=None, facts=facts)
    if base is not None:
        raise ConfigError(f"base={base}", f"goes with an adapter, which {key}={path} is not", "leave it out")
    if _is_huggingface(found):
        decoder, tokenizer, facts = load_huggingface(found)
        return Trained(decoder=decoder, tokenizer=tokenizer, checkpoint=found, run=None, facts=facts)
    decoder, tokenizer, facts = _load_checkpoint(found)
    if ADAPTER in read_manifest(found).files:
        attach_adapter(decoder, found)
        merge_adapter(decoder)
    run = found.parent.parent if found.parent.name == "checkpoints" else None
    return Trained(
        decoder=decoder.eval(),
        tokenizer=tokenizer,
        checkpoint=found,
        run=run if run is not None and (run / "run.json").exists() else None,
        facts=facts,
    )


def _load_checkpoint(checkpoint: Path) -> tuple[Decoder, Tokenizer, dict[str, Any]]:
    """The weights under any adapter, the tokenizer and the facts of a checkpoint."""
    manifest = verify(checkpoint, kind="checkpoint", needs=(CONFIG, WEIGHTS, "tokenizer.model", "run.json"))
    model, expected = (checkpoint / "tokenizer.model").read_bytes(), manifest.parents.get("tokenizer", "none")
    if (actual := sha256_bytes(model)) != expected:  # before it is parsed
        raise TokenizerMismatch(
            f"{checkpoint} holds tokenizer {actual[:12]}…",
            f"it was trained with {expected[:12]}…",
            "take the checkpoint from where it was made",
        )
    tokenizer = Tokenizer.from_bytes(model)
    decoder = load_decoder(checkpoint)
    if decoder.config.vocab_size != tokenizer.vocab_size:
        raise CheckpointError(
            f"{checkpoint / CONFIG}: {decoder.config.vocab_size:,} tokens",
            f"its tokenizer has {tokenizer.vocab_size:,}",
        )
    return decoder, tokenizer, read_object(checkpoint / "run.json", CheckpointError)


def _load_base(path: Path) -> tuple[Decoder, Tokenizer, dict[str, Any]]:
    """What an adapter is put over: an export, or the weights of a checkpoint without any adapter of its own."""
    found = find_checkpoint(path, key="base")
    return load_huggingface(found) if _is_huggingface(found) else _load_checkpoint(found)


def _is_huggingface(path: Path) -> bool:
    return (path / "config.json").is_file() and not (path / CONFIG).exists()


def is_export(path: Path) -> bool:
    """Whether a folder was made for other programs: it can be served and evaluated, not trained on."""
    return _is_huggingface(path) or _is_adapter(path)


def _is_adapter(path: Path) -> bool:
    """An adapter alone; a checkpoint has one beside its weights."""
    return (path / ADAPTER_CONFIG).is_file() and not (path / CONFIG).exists()


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
            parents={"tokenizer": trained.tokenizer.sha256, **trained.facts["data"], **_weights(trained.checkpoint)},
            info={"step": trained.facts["step"]},
            places={"checkpoint": trained.checkpoint},
        )


def _weights(checkpoint: Path) -> dict[str, str]:
    """``checkpoint/<file>`` → SHA-256 of the files with weights of a folder with a manifest."""
    files = read_manifest(checkpoint).files if (checkpoint / MANIFEST).exists() else {}
    return {f"checkpoint/{name}": entry["sha256"] for name, entry in files.items() if name.endswith(".safetensors")}


def find_checkpoint(path: Path, *, key: str = "model") -> Path:
    """The folder that a path means: itself (a checkpoint, an export), a run's newest checkpoint, or its best as ``RUN/best``.

    Raises:
        CheckpointError: there is none.
    """
    if (path / CONFIG).exists() or _is_huggingface(path) or _is_adapter(path):
        return path
    if path.suffix == ".gguf" or any(path.glob("*.gguf")):
        raise CheckpointError(f"{key}={path}", "is a GGUF file, which Lumi writes but does not read", "give its run")
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
