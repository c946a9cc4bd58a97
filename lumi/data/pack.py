"""Packing: the documents of a corpus as one flat stream of token ids per split (``python prepare.py step=pack``).

A document is ``bos + its tokens + eos``. A split is all its documents in a row, in the corpus's order, cut into shards only
for the file system's sake. Which split a document belongs to depends on its text alone, so that equal texts never stand on
both sides, and adding documents moves none of the others.
"""

import contextlib
import dataclasses
import hashlib
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import numpy as np
from tqdm import tqdm

from lumi.corpus import Document, read_corpus
from lumi.data.packed import Split
from lumi.data.shards import SplitWriter, check_packed
from lumi.errors import ConfigError, DataError, join_violations
from lumi.lock import folder_lock
from lumi.manifest import Manifest, atomic_folder, read_manifest, write_manifest
from lumi.reuse import content_fingerprint, finished
from lumi.tokenizer import Tokenizer, utf8

log = logging.getLogger(__name__)

FORMAT_VERSION = 1
_BATCH_CHARS = 4_000_000
"""Text that is tokenised at once: enough for all threads, and what bounds the memory."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PackConfig:
    """How documents become shards. The sequence length is not here: windows are cut when they are read.

    Attributes:
        val_ratio: share of the documents held out for validation; 0 holds out none.
        seed: decides which ones.
        num_threads: of the tokenizer; null takes all cores. Does not change a byte of the result.
        shard_tokens: longest shard, in tokens.
    """

    val_ratio: float = 0.05
    seed: int = 0
    num_threads: int | None = None
    shard_tokens: int = 100_000_000

    def __post_init__(self) -> None:
        """Check every rule at once.

        Raises:
            ConfigError: naming each value that breaks a rule.
        """
        ratio_is_number = isinstance(self.val_ratio, int | float) and not isinstance(self.val_ratio, bool)
        at_least = "must be a whole number of at least"
        rules = {
            "val_ratio": (ratio_is_number and 0 <= self.val_ratio < 1, "must be a number in [0, 1)"),
            "seed": (_is_whole(self.seed, 0), f"{at_least} 0"),
            "num_threads": (self.num_threads is None or _is_whole(self.num_threads, 1), f"{at_least} 1, or null"),
            "shard_tokens": (_is_whole(self.shard_tokens, 1), f"{at_least} 1"),
        }
        violations = [
            ConfigError(f"pack.{name}={getattr(self, name)}", rule)
            for name, (holds, rule) in rules.items()
            if not holds
        ]
        if violations:
            raise join_violations(violations)

    def settings(self) -> dict[str, Any]:
        """What decides the bytes of the result."""
        return {
            "val_ratio": float(self.val_ratio),
            "seed": self.seed,
            "shard_tokens": self.shard_tokens,
            "packed_format": FORMAT_VERSION,
        }


def pack(corpus: Path, tokenizer: Path, folder: Path, config: PackConfig, *, force: bool = False) -> Manifest:
    """Write the token shards of a corpus to ``folder``, unless they are there already.

    Memory is that of a batch of documents or of the largest document, whatever the corpus's size.

    Args:
        corpus: folder of the corpus.
        tokenizer: folder of the tokenizer.
        folder: of the result.
        config: settings.
        force: pack again even if the folder holds packed data.

    Raises:
        DataError: the corpus or the tokenizer is missing or damaged, a split would be empty, or the folder holds data that
            was packed otherwise.
        ResourceError: the disk is full.
    """
    with folder_lock(folder, wait=True):
        facts = read_manifest(corpus, kind="corpus")
        codec = Tokenizer.load(tokenizer)
        settings, parents = config.settings(), {"corpus": facts.info["content_sha256"], "tokenizer": codec.sha256}
        fix = "force=true packs it again"
        done = finished(folder, kind="packed", key="pack", settings=settings, parents=parents, force=force, fix=fix)
        if done is not None:
            log.info("packed %s is up to date: %s", facts.name, folder)
            return done
        start = time.monotonic()
        with atomic_folder(folder) as work:
            writers = _write(corpus, codec, work, config, facts)
            manifest = write_manifest(
                work,
                kind="packed",
                name=facts.name,
                fingerprint=content_fingerprint(settings, parents),
                parents=parents,
                settings=settings,
                info=_info(codec, writers),
            )
            for split, writer in writers.items():
                check_packed(work, split, codec, writer.samples)
    _report(folder, manifest, time.monotonic() - start)
    return manifest


def split_fraction(text: bytes, seed: int) -> float:
    """A number in [0, 1) that is a pure function of the text and the seed; below ``val_ratio`` means validation."""
    digest = hashlib.blake2b(text, digest_size=8, key=str(seed).encode()).digest()
    return int.from_bytes(digest) / 2**64


def _write(
    corpus: Path, tokenizer: Tokenizer, work: Path, config: PackConfig, facts: Manifest
) -> dict[Split, SplitWriter]:
    """Tokenise all documents into the shards of both splits."""
    dtype = np.dtype(np.uint16 if tokenizer.vocab_size <= 2**16 else np.uint32)
    n_threads = config.num_threads or os.cpu_count() or 1
    fractions: list[float] = [1.0, 0.0]  # lowest and highest
    start, n_tokens = time.monotonic(), 0
    with contextlib.ExitStack() as stack:
        writers: dict[Split, SplitWriter] = {
            split: stack.enter_context(contextlib.closing(SplitWriter(work, split, dtype, config.shard_tokens)))
            for split in get_args(Split)
        }
        bar = stack.enter_context(
            tqdm(total=facts.info["documents"], desc=f"packing {facts.name}", unit=" docs", delay=2, disable=None)
        )
        for documents in _batches(read_corpus(corpus)):
            arrays = tokenizer.encode_batch([document.text for document in documents], n_threads)
            for document, ids in zip(documents, arrays, strict=True):
                data = utf8(document.text)
                fraction = split_fraction(data, config.seed)
                fractions = [min(fractions[0], fraction), max(fractions[1], fraction)]
                writer = writers["val" if fraction < config.val_ratio else "train"]
                writer.add(tokenizer.bos_id, ids, tokenizer.eos_id, document, len(data))
                n_tokens += len(ids) + 2
            if bar.update(len(documents)):
                bar.set_postfix_str(f"{n_tokens / (time.monotonic() - start):,.0f} tokens/s", refresh=False)
    _check_splits(writers, config, fractions, corpus)
    return writers


def _info(tokenizer: Tokenizer, writers: dict[Split, SplitWriter]) -> dict[str, Any]:
    return {
        "dtype": str(writers["train"].dtype),
        "vocab_size": tokenizer.vocab_size,
        "bos_id": tokenizer.bos_id,
        "eos_id": tokenizer.eos_id,
        "splits": {split: writer.facts() for split, writer in writers.items()},
    }


def _batches(documents: Iterator[Document]) -> Iterator[list[Document]]:
    batch: list[Document] = []
    n_chars = 0
    for document in documents:
        batch.append(document)
        n_chars += len(document.text)
        if n_chars >= _BATCH_CHARS:
            yield batch
            batch, n_chars = [], 0
    if batch:
        yield batch


def _check_splits(writers: dict[Split, SplitWriter], config: PackConfig, fractions: list[float], corpus: Path) -> None:
    """Refuse an empty split, with the ratio that would fill it."""
    n_documents = sum(writer.n_documents for writer in writers.values())
    lowest, highest = fractions
    wanted: dict[Split, str] = {"train": f"pack.val_ratio={_below(highest)} or less"}
    if config.val_ratio > 0:
        wanted["val"] = f"pack.val_ratio={_above(lowest)} or more"
    for split, ratio in wanted.items():
        if not writers[split].n_documents:
            fix = f"{ratio}, more documents" if n_documents > 1 else "source.document=paragraph makes more of one file"
            raise DataError(
                f"pack.val_ratio={config.val_ratio} and pack.seed={config.seed}",
                f"put none of the {n_documents:,} documents of {corpus} into {split}; documents are never cut",
                f"{fix}, or pack.val_ratio=0 for no validation",
            )


def _above(fraction: float) -> float:
    return (int(fraction * 1000) + 1) / 1000


def _below(fraction: float) -> float:
    return int(fraction * 1000) / 1000


def _is_whole(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _report(folder: Path, manifest: Manifest, seconds: float) -> None:
    splits = manifest.info["splits"]
    sizes = ", ".join(
        f"{split} {facts['documents']:,} documents {facts['tokens']:,} tokens" for split, facts in splits.items()
    )
    rate = sum(facts["tokens"] for facts in splits.values()) / seconds
    log.info("packed %s: %s, %.0f tokens/s: %s", manifest.name, sizes, rate, folder)
