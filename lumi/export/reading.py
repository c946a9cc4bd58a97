"""Reading an exported Hugging Face folder back: the weights, the tokenizer and the facts, each checked before it is used.

Nothing in such a folder is run: no pickle, no code that its config names. Sizes are taken from the headers of the files and
compared with the configuration before anything is allocated.
"""

import dataclasses
from pathlib import Path
from typing import Any

from lumi.arch import Decoder, DecoderConfig
from lumi.arch.weights import LONGEST, WEIGHTS, load_files
from lumi.errors import CheckpointError, LumiError
from lumi.export.source import FACTS, KIND, MODEL_FILE, SCHEMA_VERSION
from lumi.manifest import MANIFEST, verify
from lumi.strangers import read_object
from lumi.tokenizer import Tokenizer

CONFIG = "config.json"
INDEX = "model.safetensors.index.json"

_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
_OWN = ("dropout", "init_std", "init_qk_std", "attention", "checkpoint_activations")
"""Keys of an architecture that Hugging Face's config has no word for; they come from lumi.json."""


def load_huggingface(folder: Path) -> tuple[Decoder, Tokenizer, dict[str, Any]]:
    """The model in ``folder`` on the CPU in float32, its tokenizer, and what its run said about itself.

    Raises:
        DataError: a file is missing, damaged or not what the manifest says.
        CheckpointError: it is not a Llama as Lumi exports it, or its weights do not fit its configuration.
        TokenizerMismatch: its tokenizer is not the one it was trained with.
    """
    if (folder / MANIFEST).exists():
        verify(folder, kind=KIND)
    facts = read_facts(folder)
    tokenizer = _tokenizer(folder, facts)
    config = _config(folder, facts, tokenizer)
    state = load_files(_weight_files(folder), config)
    decoder = Decoder(config)
    decoder.load_state_dict(state)
    return decoder.eval(), tokenizer, facts["facts"]


def read_facts(folder: Path) -> dict[str, Any]:
    """What lumi.json says.

    Raises:
        CheckpointError: there is none, so Lumi did not export this folder, or it is of another form.
    """
    found = _read_json(
        folder / FACTS,
        "is not there: this is not a folder that Lumi exported, so its tokenizer is not one of Lumi's",
        "give a run, a checkpoint or an export of Lumi",
    )
    needed = {"tokenizer_sha256": str, "decoder": dict, "facts": dict}
    missing = [key for key, kind in needed.items() if not isinstance(found.get(key), kind)]
    if missing or found.get("schema_version") != SCHEMA_VERSION:
        raise CheckpointError(
            f"{folder / FACTS}",
            f"lacks {missing[0]}"
            if missing
            else f"has schema {found.get('schema_version')}, this Lumi reads {SCHEMA_VERSION}",
            "export the model again",
        )
    return found


def _tokenizer(folder: Path, facts: dict[str, Any]) -> Tokenizer:
    path = folder / MODEL_FILE
    if not path.is_file():
        raise CheckpointError(f"{folder}", f"has no {MODEL_FILE}", "copy the whole export, or export the model again")
    return Tokenizer.from_bytes(path.read_bytes(), expect_sha256=facts["tokenizer_sha256"])


def _config(folder: Path, facts: dict[str, Any], tokenizer: Tokenizer) -> DecoderConfig:
    found = _read_json(folder / CONFIG, "is not there", "export the model again")
    if "auto_map" in found:
        raise CheckpointError(
            f"{folder / CONFIG}", "names code to run (auto_map); Lumi runs none from a model's folder"
        )
    said = facts["decoder"]
    try:
        own = [*_OWN, *_unused_rope(said.get("rope_scaling"))]
        config = decoder_config(found, {key: said[key] for key in own if key in said})
    except (KeyError, TypeError, ValueError, ArithmeticError, LumiError) as error:
        raise CheckpointError(
            f"{folder / CONFIG}", f"is not a Llama that Lumi can run ({error})", "export the model again"
        ) from None
    mine = dataclasses.asdict(config)
    for key in (*mine, *(key for key in said if key not in mine)):
        of_config, of_facts = mine.get(key, "nothing"), said.get(key, "nothing")
        if of_config != of_facts:
            raise CheckpointError(
                f"{folder / CONFIG}: {key} is {of_config}", f"{FACTS} says {of_facts}", "export the model again"
            )
    if config.vocab_size != tokenizer.vocab_size:
        raise CheckpointError(
            f"{folder / CONFIG}: {config.vocab_size} tokens", f"the tokenizer has {tokenizer.vocab_size}"
        )
    return config


def _unused_rope(scaling: str | None) -> tuple[str, ...]:
    """Keys that this way of stretching the rotation does not read, so that the config does not hold them."""
    return {"llama3": (), "linear": ("rope_original_len",)}.get(scaling or "", ("rope_factor", "rope_original_len"))


def decoder_config(found: dict[str, Any], kept: dict[str, Any]) -> DecoderConfig:
    """The architecture that a Hugging Face config describes.

    Args:
        kept: the keys that it has no word for.

    Raises:
        KeyError, TypeError, ValueError, ZeroDivisionError, LumiError: it is no Llama without biases, or breaks a rule of
            `DecoderConfig`.
    """
    _check_supported(found)
    rope = {
        "rope_theta": found.get("rope_theta"),
        **(found.get("rope_scaling") or {}),
        **(found.get("rope_parameters") or {}),
    }
    kind = rope.get("rope_type", "default")
    if kind == "llama3" and (rope["low_freq_factor"], rope["high_freq_factor"]) != (1.0, 4.0):
        raise ValueError("rope_parameters with other factors than Llama 3.1's")
    fields = {
        "vocab_size": found["vocab_size"],
        "n_layers": found["num_hidden_layers"],
        "d_model": found["hidden_size"],
        "n_heads": found["num_attention_heads"],
        "n_kv_heads": found["num_key_value_heads"],
        "d_ff": found["intermediate_size"],
        "max_seq_len": found["max_position_embeddings"],
        "tied": found["tie_word_embeddings"],
        "rope_theta": float(rope["rope_theta"]),
        "rope_scaling": None if kind == "default" else kind,
        "rope_factor": float(rope.get("factor", 1.0)),
        "rope_original_len": rope.get("original_max_position_embeddings"),
        "norm_eps": found["rms_norm_eps"],
    }
    return DecoderConfig(**{**fields, **kept})


def _check_supported(found: dict[str, Any]) -> None:
    """Raises ValueError where a config says what Lumi's decoder does not do."""
    rules = {"model_type": "llama", "hidden_act": "silu", "attention_bias": False, "mlp_bias": False}
    for key, value in {**rules, "quantization_config": None}.items():
        if found.get(key, value) != value:
            raise ValueError(f"{key}={found[key]}, must be {value}")
    if found.get("head_dim") not in (None, found["hidden_size"] // found["num_attention_heads"]):
        raise ValueError(f"head_dim={found['head_dim']} is not hidden_size / num_attention_heads")
    if not found["max_position_embeddings"] <= LONGEST:  # a table of this length is made, whatever the weights are
        raise ValueError(f"max_position_embeddings={found['max_position_embeddings']}, must be at most {LONGEST:,}")


def _weight_files(folder: Path) -> list[Path]:
    """The safetensors of the model: one file, or the shards that the index names."""
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    if (folder / INDEX).is_file():
        shards = _read_json(folder / INDEX, "is not there", "").get("weight_map")
        if not isinstance(shards, dict) or not shards:
            raise CheckpointError(f"{folder / INDEX}", "has no weight_map")
        names = sorted({str(name) for name in shards.values()})
        outside = [name for name in names if Path(name).name != name or not name.endswith(".safetensors")]
        if outside:
            raise CheckpointError(f"{folder / INDEX} names {outside[0]!r}", "shards are safetensors in the same folder")
        return [folder / name for name in names]
    pickles = [path.name for pattern in _PICKLES for path in sorted(folder.glob(pattern))]
    if pickles:
        raise CheckpointError(
            f"{folder / pickles[0]}",
            "is a pickle, which can run code when it is opened; it was not read",
            "save the model as safetensors: model.save_pretrained(folder)",
        )
    raise CheckpointError(f"{folder}", f"has neither {WEIGHTS} nor {INDEX}", "copy the whole export")


def _read_json(path: Path, missing: str, fix: str) -> dict[str, Any]:
    if not path.exists():
        raise CheckpointError(f"{path}", missing, fix)
    return read_object(path, CheckpointError, fix=fix)
