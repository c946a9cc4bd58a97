"""One entry for every format: write, compare, describe; a folder appears whole and checked, or not at all."""

import logging
from pathlib import Path
from typing import Any, get_args

from lumi.arch import Decoder
from lumi.errors import ConfigError
from lumi.export.adapter import BASE, under_adapter, write_adapter
from lumi.export.card import model_card
from lumi.export.gguf import write_gguf
from lumi.export.huggingface import write_huggingface
from lumi.export.parity import check_adapter, check_gguf, check_huggingface
from lumi.export.source import Format, Source, check_target, finish
from lumi.lock import folder_lock
from lumi.manifest import atomic_folder
from lumi.tokenizer import Template, Tokenizer

log = logging.getLogger(__name__)

DEFAULT_DTYPES: dict[Format, str] = {"hf": "float32", "gguf": "f16", "adapter": "float32"}

_OTHER_NAMES = {
    "hf": {"f32": "float32", "bf16": "bfloat16", "f16": "float16"},
    "gguf": {"float32": "f32", "float16": "f16"},
    "adapter": {"f32": "float32"},
}
"""Each program has its own word for the same numbers; both are understood."""


def export_model(
    *,
    decoder: Decoder,
    tokenizer: Tokenizer,
    template: Template | None,
    facts: dict[str, Any],
    checkpoint: Path,
    run: Path | None,
    folder: Path,
    format: Format,  # noqa: A002  # the word that users type
    dtype: str | None = None,
) -> dict[str, Any]:
    """Write a trained model for other programs and compare what they make of it.

    Args:
        decoder: on the CPU in float32, an adapter merged.
        tokenizer: the one it was trained with.
        template: how it is to be asked; None for a model that has seen no conversation.
        facts: what its run wrote about itself.
        checkpoint: folder that it was read from; an adapter and the weights under it are read from there again.
        run: folder of its run; its eval/results.json goes into the card.
        folder: to write; an earlier export there is replaced, nothing else is.
        format: ``hf``, ``gguf`` or ``adapter``.
        dtype: of the weights: float32, bfloat16 or float16 in ``hf``; f32, f16 or q8_0 in ``gguf``; null takes the first,
            f16 in ``gguf``.

    Returns:
        ``folder``, ``format``, ``dtype``, ``bytes`` and the figures of ``parity``.

    Raises:
        ConfigError: an unknown format or dtype, something else in ``folder``, or a package that the check needs is missing.
        ParityError: another program computes or reads something else; nothing is written then.
    """
    dtype = _dtype(format, dtype)
    source = Source(
        decoder=decoder, tokenizer=tokenizer, template=template, facts=facts, checkpoint=checkpoint, run=run
    )
    with folder_lock(folder):
        check_target(folder)
        with atomic_folder(folder) as work:
            parity = _WRITERS[format](source, work, dtype, folder.name)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    compared = f"{parity['ids']['texts']:,} texts"
    if "conversations" in parity:
        compared += f" and {parity['conversations']['rendered']:,} conversations"
    log.info("exported: %s, %.1f MB, the same numbers, the same ids of %s", folder, size / 1e6, compared)
    return {"folder": str(folder), "format": format, "dtype": dtype, "bytes": size, "parity": parity}


def _dtype(kind: Format, dtype: str | None) -> str:
    """The format's own word for the dtype, its default where none is given."""
    if kind not in get_args(Format):
        raise ConfigError(f"format={kind}", f"must be one of {', '.join(get_args(Format))}")
    dtype = _OTHER_NAMES[kind].get(dtype or "", dtype) or DEFAULT_DTYPES[kind]
    if kind == "adapter" and dtype != "float32":
        raise ConfigError(f"dtype={dtype}", "an adapter is exported as it was trained, in float32", "leave dtype out")
    return dtype


def _huggingface(source: Source, work: Path, dtype: str, name: str) -> dict[str, Any]:
    write_huggingface(source, work, dtype)
    parity = check_huggingface(source, work, dtype)
    _describe(source, work, name, {"format": "hf", "dtype": dtype, "parity": parity})
    return parity


def _gguf(source: Source, work: Path, dtype: str, name: str) -> dict[str, Any]:
    vocabulary = write_gguf(source, work, dtype)
    parity = check_gguf(source, work, dtype, vocabulary)
    _describe(source, work, name, {"format": "gguf", "dtype": dtype, "parity": parity})
    return parity


def _adapter(source: Source, work: Path, dtype: str, name: str) -> dict[str, Any]:
    base = under_adapter(source)
    said = write_adapter(source, base, work)
    of_base = check_huggingface(base, work / BASE, dtype)
    _describe(
        base, work / BASE, f"{name}/{BASE}", {"format": "hf", "dtype": dtype, "parity": of_base, "under": "adapter"}
    )
    parity = {**of_base, "logits": check_adapter(source, work, work / BASE)}
    _describe(source, work, name, {"format": "adapter", "dtype": dtype, "parity": parity, "base": said})
    return parity


def _describe(source: Source, work: Path, name: str, extra: dict[str, Any]) -> None:
    finish(source, work, name=name, card=model_card(source, name, extra), extra=extra)


_WRITERS = {"hf": _huggingface, "gguf": _gguf, "adapter": _adapter}
