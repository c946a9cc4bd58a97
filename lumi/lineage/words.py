"""The settings that matter most of an artefact, in a few words."""

from collections.abc import Mapping
from typing import Any

from lumi.manifest import Manifest

Settings = Mapping[str, Any]


def of_manifest(manifest: Manifest) -> str:
    """What a corpus, a tokenizer, packed data or examples were made with."""
    speak = _SPEAKERS.get(manifest.kind)
    return speak(manifest.settings, manifest.info) if speak else ""


def of_run(settings: Settings) -> str:
    """``pretrain · arch 4 layers of 128 · AdamW lr 0.003 · batch 8 x 256 · seed 0``, as far as the settings say it."""
    words = [settings.get("stage", {}).get("_target_", "").rpartition(".")[2].lower()]
    if arch := settings.get("arch"):
        words.append(f"{arch.get('n_layers')} layers of {arch.get('d_model')}")
    if optim := settings.get("optim"):
        words.append(f"{optim.get('_target_', '').rpartition('.')[2]} lr {optim.get('lr')}")
    data, trainer = settings.get("data", {}), settings.get("trainer", {})
    if data.get("batch_size"):
        batch = [data["batch_size"], *(trainer.get(key, 1) for key in ("accumulate", "devices", "num_nodes"))]
        words.append(f"batch {' x '.join(str(one) for one in batch if one != 1) or 1} of {data.get('seq_len')} tokens")
    words.append(f"seed {settings.get('seed')}")
    return " · ".join(word for word in words if word)


def _corpus(settings: Settings, info: Settings) -> str:
    steps = ", ".join(settings.get("steps", {})) or "as it is"
    return f"{info['documents']:,} documents, {_megabytes(info['bytes'])} · {steps}"


def _tokenizer(settings: Settings, info: Settings) -> str:
    return f"{settings.get('model_type')}, {info['vocab_size']:,} pieces · seed {settings.get('seed')}"


def _packed(settings: Settings, info: Settings) -> str:
    train = info["splits"]["train"]
    return (
        f"{train['tokens']:,} training tokens of {train['documents']:,} documents · "
        f"val_ratio {settings['val_ratio']} · seed {settings['seed']}"
    )


def _records(settings: Settings, info: Settings) -> str:
    rows = ", ".join(f"{count:,} {split}" for split, count in info["rows"].items())
    seed = f" · seed {settings['seed']}" if "seed" in settings else ""
    return f"{settings.get('source')}: {rows}{seed}"


def _export(_: Settings, info: Settings) -> str:
    return f"{info.get('format')}, {info.get('dtype')}"


def _reference(settings: Settings, info: Settings) -> str:
    return f"log-probabilities, {settings.get('precision')} · " + ", ".join(
        f"{count:,} {name}" for name, count in info.items()
    )


def _megabytes(n_bytes: int) -> str:
    return f"{n_bytes / 1e6:,.1f} MB"


_SPEAKERS = {
    "corpus": _corpus,
    "tokenizer": _tokenizer,
    "packed": _packed,
    "chat": _records,
    "preference": _records,
    "export": _export,
    "reference": _reference,
}
