"""A low-rank adapter as a peft folder, with the weights that it fits beside it.

    adapter_model.safetensors, adapter_config.json     what was trained, as peft writes it
    base/                                              the weights under it, a Hugging Face folder of its own

The base is not the pretrained model: training an adapter also trains the rows of control tokens in embedding and head
(``stage.lora.control_rows``), and these belong to the weights under it. So the base is exported with the adapter, its hash
stands in lumi.json, and whoever puts the adapter over other weights is told.
"""

import json
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from lumi.arch import Decoder
from lumi.arch.lora import ADAPTER, ADAPTER_CONFIG, attach_adapter, load_adapter, merge_adapter, save_adapter
from lumi.arch.weights import CONFIG, load_decoder
from lumi.errors import CheckpointError, ConfigError
from lumi.export.huggingface import write_huggingface
from lumi.export.reading import read_facts
from lumi.export.source import FACTS, KIND, Source, weights_sha256
from lumi.manifest import MANIFEST, verify
from lumi.strangers import read_object
from lumi.tokenizer import Tokenizer

log = logging.getLogger(__name__)

BASE = "base"
Loaded = tuple[Decoder, Tokenizer, dict[str, Any]]

_UNREAD = ("rank_pattern", "alpha_pattern", "modules_to_save", "layers_to_transform", "trainable_token_indices")
"""Settings of peft that change what an adapter computes and that Lumi does not know."""


def under_adapter(source: Source) -> Source:
    """The same model without its adapter.

    Raises:
        ConfigError: its checkpoint has none.
    """
    if not all((source.checkpoint / name).exists() for name in (ADAPTER, CONFIG)):
        raise ConfigError(
            f"format=adapter, and {source.checkpoint} has no adapter over weights of its own",
            "all of its weights were trained, the adapter was merged into them, or it is an export already",
            "format=hf exports all weights",
        )
    return replace(source, decoder=load_decoder(source.checkpoint).eval())


def write_adapter(source: Source, base: Source, folder: Path) -> dict[str, Any]:
    """Write the adapter and its base into ``folder``; returns what lumi.json says of the base."""
    (folder / BASE).mkdir()
    write_huggingface(base, folder / BASE, "float32")
    adapter, lora = load_adapter(source.checkpoint)
    save_adapter(folder, adapter, lora)
    path = folder / ADAPTER_CONFIG
    settings = json.loads(path.read_bytes())
    settings |= {"base_model_name_or_path": BASE, "inference_mode": True}
    path.write_text(json.dumps(settings, indent=2) + "\n")
    return {"path": BASE, "sha256": weights_sha256(base.decoder.state_dict())}


def load_adapter_folder(folder: Path, base: Path | None, load_base: Callable[[Path], Loaded]) -> Loaded:
    """The model that an adapter makes of its base, merged.

    Args:
        folder: with adapter_config.json and adapter_model.safetensors.
        base: overrides ``base_model_name_or_path``, which is relative to ``folder`` or to the working directory.
        load_base: reads a base without any adapter of its own.

    Raises:
        CheckpointError: the adapter has settings that Lumi does not know, or its base is not there or is another one.
        DataError: a file is not what the manifest says.
    """
    if (folder / MANIFEST).exists():
        verify(folder, kind=KIND)
    settings = _settings(folder)
    where = _base_path(folder, base, settings)
    decoder, tokenizer, facts = load_base(where)
    if (folder / FACTS).exists():
        said = read_facts(folder)
        _check_base(folder, said, where, decoder, tokenizer)
        facts = said["facts"]
    else:
        log.warning("%s does not say what base it was trained over; taking %s", folder, where)
    attach_adapter(decoder, folder)
    return merge_adapter(decoder).eval(), tokenizer, facts


def _settings(folder: Path) -> dict[str, Any]:
    path = folder / ADAPTER_CONFIG
    settings = read_object(path, CheckpointError)
    kind, unread = settings.get("peft_type", "LORA"), [key for key in _UNREAD if settings.get(key)]
    if kind != "LORA" or settings.get("bias", "none") != "none" or unread:
        what = unread[0] if unread else f"peft_type={kind}, bias={settings.get('bias')}"
        raise CheckpointError(f"{path}: {what}", "Lumi reads LoRA and DoRA of one rank, without biases")
    return settings


def _base_path(folder: Path, base: Path | None, settings: dict[str, Any]) -> Path:
    if base is not None:
        return base
    name = settings.get("base_model_name_or_path")
    if not isinstance(name, str) or not name:
        raise CheckpointError(f"{folder / ADAPTER_CONFIG}", "names no base model", "base=PATH names one")
    if Path(name).is_absolute() or ".." in Path(name).parts:  # whoever sent the adapter chose it
        rule = "leads out of the adapter's folder and is not followed"
        raise CheckpointError(f"{folder / ADAPTER_CONFIG}: base {name}", rule, f"base={name} says that you mean it")
    tried = [folder / name, Path(name)]
    found = next((path for path in tried if path.exists()), None)
    if found is None:
        raise CheckpointError(f"{folder / ADAPTER_CONFIG}: base {name}", "is not here", "base=PATH names where it is")
    return found


def _check_base(folder: Path, said: dict[str, Any], where: Path, decoder: Decoder, tokenizer: Tokenizer) -> None:
    said_base = said.get("base")
    expected = said_base.get("sha256") if isinstance(said_base, dict) else None
    if tokenizer.sha256 != said["tokenizer_sha256"]:
        raise CheckpointError(
            f"{where} has tokenizer {tokenizer.sha256[:12]}…",
            f"{folder} was trained with {said['tokenizer_sha256'][:12]}…",
            "take its own base",
        )
    if (actual := weights_sha256(decoder.state_dict())) != expected:
        raise CheckpointError(
            f"{where} has weights {actual[:12]}…",
            f"{folder} was trained over {str(expected)[:12]}…, in which the rows of control tokens were trained too",
            f"take its own base, {folder / BASE} where it was exported",
        )
