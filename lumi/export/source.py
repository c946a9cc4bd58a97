"""What is exported, and what every export folder holds whatever its format: facts, a card, a manifest."""

import dataclasses
import hashlib
import importlib
import json
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from lumi import __version__
from lumi.arch import Decoder
from lumi.errors import ConfigError, DataError
from lumi.manifest import MANIFEST, fingerprint, read_manifest, write_manifest
from lumi.tokenizer import Template, Tokenizer

Format = Literal["hf", "gguf", "adapter"]

KIND = "export"
FACTS = "lumi.json"
MODEL_FILE = "tokenizer.model"
SCHEMA_VERSION = 1

_WEIGHTS = (".safetensors", "decoder.json", "config.json")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
    """A trained model with everything that an export tells about it.

    Attributes:
        decoder: in evaluation mode on the CPU, an adapter merged into its weights.
        tokenizer: the one it was trained with.
        template: how it is to be asked; None for a model that has seen no conversation.
        facts: what its run wrote about itself, plain JSON.
        checkpoint: folder that it was read from.
        run: folder of its run, for the results of an evaluation.
    """

    decoder: Decoder
    tokenizer: Tokenizer
    template: Template | None
    facts: dict[str, Any]
    checkpoint: Path
    run: Path | None = None

    @property
    def stop_ids(self) -> list[int]:
        """Tokens that end an answer, the tokenizer's eos first."""
        eos = self.tokenizer.eos_id
        others = self.template.stop_ids(self.tokenizer) if self.template is not None else []
        return [eos, *(token for token in others if token != eos)]


def need(module: str, install: str) -> Any:
    """Import an optional package.

    Raises:
        ConfigError: it is not there; with the command that installs it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ConfigError(
            f"the package {module} ({error})",
            "is needed to write or to check this export; nothing is exported unchecked",
            f"pip install -c constraints.txt {install}",
        ) from None


def check_target(folder: Path) -> None:
    """Refuse to replace anything but an earlier export.

    Raises:
        ConfigError: something else is there.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    try:
        read_manifest(folder, kind=KIND)
    except DataError as error:
        raise ConfigError(
            f"out={folder}", f"is no export of Lumi: {error.found} {error.rule}", "give another folder"
        ) from None


def weights_sha256(state: dict[str, Tensor]) -> str:
    """Identity of weights whatever file they are in: names, shapes and float32 values, in the order of the names.

    A tied head is the embedding and counts once.
    """
    tied = "lm_head.weight" in state and torch.equal(state["lm_head.weight"], state["model.embed_tokens.weight"])
    digest = hashlib.sha256()
    for name in sorted(state):
        if not (tied and name == "lm_head.weight"):
            value = state[name].detach().cpu().float().contiguous()
            digest.update(f"{name} {tuple(value.shape)}\n".encode())
            digest.update(value.numpy().tobytes())
    return digest.hexdigest()


def checkpoint_hashes(checkpoint: Path) -> dict[str, str]:
    """SHA-256 of the weight files of what was exported, from its manifest; empty where there is none."""
    if not (checkpoint / MANIFEST).exists():
        return {}
    files = read_manifest(checkpoint).files
    return {name: entry["sha256"] for name, entry in files.items() if name.endswith(_WEIGHTS)}


def finish(source: Source, work: Path, *, name: str, card: str, extra: dict[str, Any]) -> None:
    """Write lumi.json, the tokenizer's own file, the card and, last, the manifest into ``work``.

    Args:
        name: of the folder.
        card: text of README.md.
        extra: what this format adds to lumi.json: format, dtype, parity …
    """
    facts = {
        "schema_version": SCHEMA_VERSION,
        "lumi_version": __version__,
        **extra,
        "decoder": dataclasses.asdict(source.decoder.config),
        "tokenizer_sha256": source.tokenizer.sha256,
        "template": None if source.template is None else source.template.as_dict(),
        "stop_ids": source.stop_ids,
        "checkpoint": {"name": source.checkpoint.name, "files": checkpoint_hashes(source.checkpoint)},
        "facts": source.facts,
    }
    (work / MODEL_FILE).write_bytes(source.tokenizer.model_bytes)
    (work / FACTS).write_text(json.dumps(facts, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    (work / "README.md").write_text(card, encoding="utf-8")
    hashes = checkpoint_hashes(source.checkpoint)
    write_manifest(
        work,
        kind=KIND,
        name=name,
        fingerprint=fingerprint({"format": extra["format"], "dtype": extra["dtype"], "checkpoint": hashes}),
        parents={"tokenizer": source.tokenizer.sha256, **hashes},
        settings={"format": extra["format"], "dtype": extra["dtype"]},
        info={"format": extra["format"], "dtype": extra["dtype"], "step": source.facts.get("step")},
        places={"checkpoint": source.checkpoint},
    )
