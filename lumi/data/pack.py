"""Packing: the documents of a corpus as one flat stream of token ids per split (``python prepare.py step=pack``).

A document is ``bos + its tokens + eos``. A split is all its documents in a row, in the corpus's order, cut into shards only
for the file system's sake. Which split a document belongs to depends on its text alone, so that equal texts never stand on
both sides, and adding documents moves none of the others.
"""

import contextlib
import dataclasses
import logging
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from lumi.corpus import Executor, Local, corpus_shards
from lumi.corpus.engine.blocks import begin_work, read_array, read_json
from lumi.corpus.engine.executor import mark_done, stop_on_signals
from lumi.corpus.engine.pack import PackShards, split_fraction, token_dtype
from lumi.data.packed import Split
from lumi.data.shards import SplitWriter, check_packed
from lumi.disk import check_space, disk_errors
from lumi.errors import ConfigError, DataError, join_violations
from lumi.lock import folder_lock
from lumi.manifest import Manifest, atomic_folder, read_manifest, verify, write_manifest
from lumi.reuse import content_fingerprint, finished
from lumi.tokenizer import Tokenizer

log = logging.getLogger(__name__)

FORMAT_VERSION = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class PackConfig:
    """How documents become shards. The sequence length is not here: windows are cut when they are read.

    Attributes:
        val_ratio: share of the documents held out for validation; 0 holds out none.
        seed: decides which ones.
        num_threads: of the tokenizer in each worker; null shares the cores among them. Does not change a byte of the result.
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


def pack(
    corpus: Path,
    tokenizer: Path,
    folder: Path,
    config: PackConfig,
    *,
    source: str | None = None,
    executor: Executor | None = None,
    force: bool = False,
    wait: bool = True,
) -> Manifest:
    """Write the token shards of a corpus to ``folder``, unless they are there already.

    Memory is that of a shard of the corpus for each worker. A run that was stopped goes on with the shards that are missing.

    Args:
        corpus: folder of the corpus.
        tokenizer: folder of the tokenizer.
        folder: of the result.
        config: settings.
        source: of which the documents are packed; None takes all.
        executor: where the work is done; None is this process alone. It changes no byte of the result.
        force: pack again even if the folder holds packed data.
        wait: for another process that writes the same folder; else that is an error.

    Raises:
        DataError: the corpus or the tokenizer is missing or damaged, a split would be empty, or the folder holds data that
            was packed otherwise.
        LockedError: another process writes the folder, and ``wait`` is false.
        ResourceError: the disk is full.
        Interrupted: a signal came; the same call goes on.
    """
    with folder_lock(folder, wait=wait), stop_on_signals():
        facts = read_manifest(corpus, kind="corpus")
        codec = Tokenizer.load(tokenizer)
        shards = corpus_shards(corpus, facts, source)
        about = facts.info if source is None else facts.info["sources"][source]
        settings, parents = config.settings(), {"corpus": about["content_sha256"], "tokenizer": codec.sha256}
        fix = "force=true packs it again"
        done = finished(folder, kind="packed", key="pack", settings=settings, parents=parents, force=force, fix=fix)
        name = source or facts.name
        if done is not None:
            shutil.rmtree(_work(folder), ignore_errors=True)  # of one that was killed when all was done
            log.info("packed %s is up to date: %s", name, folder)
            return done
        start = time.monotonic()
        fingerprint = content_fingerprint(settings, parents)
        check_space(folder, about["tokens"] * token_dtype(codec).itemsize)
        with disk_errors(folder):
            step = _tokenise(
                folder, shards, tokenizer, codec.sha256, config, executor or Local(workers=1), fingerprint, force
            )
        with atomic_folder(folder) as target:
            writers, fractions = _join(step, target, codec, config)
            try:
                _check_splits(writers, config, fractions, corpus)
            except DataError:
                shutil.rmtree(step.folder)  # of no use to whoever changes the settings
                raise
            manifest = write_manifest(
                target,
                kind="packed",
                name=name,
                fingerprint=fingerprint,
                parents=parents,
                settings=settings,
                info=_info(codec, writers),
                places={"corpus": corpus, "tokenizer": tokenizer},
            )
            for split, writer in writers.items():
                check_packed(target, split, codec, writer.samples)
        shutil.rmtree(step.folder, ignore_errors=True)
    _report(folder, manifest, time.monotonic() - start)
    return manifest


def _work(folder: Path) -> Path:
    """What outlives a kill."""
    return folder.parent / f".{folder.name}.work"


def _tokenise(
    folder: Path,
    shards: Sequence[Path],
    tokenizer: Path,
    sha256: str,
    config: PackConfig,
    executor: Executor,
    fingerprint: str,
    force: bool,
) -> PackShards:
    """The tokens of every shard, in a folder beside the target that outlives a kill."""
    work = _work(folder)
    begin_work(work, fingerprint, force=force)
    step = PackShards(
        work.absolute(),
        [shard.absolute() for shard in shards],
        tokenizer.absolute(),
        sha256,
        val_ratio=config.val_ratio,
        seed=config.seed,
        num_threads=config.num_threads or executor.threads(len(shards)),
    )
    ends = ("json", *(f"{split}.{kind}.npy" for split in get_args(Split) for kind in ("tokens", "lengths")))
    is_done = [all(step.result(rank, end).is_file() for end in ends) for rank in range(len(shards))]
    mark_done(step.folder, is_done)
    if not all(is_done):
        verify(shards[0].parent, kind="corpus")
        executor.run(f"packing {folder.name}", [step], len(shards), step.folder)
    return step


def _join(
    step: PackShards, target: Path, tokenizer: Tokenizer, config: PackConfig
) -> tuple[dict[Split, SplitWriter], list[float]]:
    """All parts in their order as two streams; also the lowest and highest `split_fraction` of a document."""
    fractions = [1.0, 0.0]
    with contextlib.ExitStack() as stack:
        writers: dict[Split, SplitWriter] = {
            split: stack.enter_context(
                contextlib.closing(SplitWriter(target, split, token_dtype(tokenizer), config.shard_tokens))
            )
            for split in get_args(Split)
        }
        for rank in range(len(step.shards)):
            record = read_json(step.result(rank, "json"))
            lowest, highest = record["fractions"]
            fractions = [min(fractions[0], lowest), max(fractions[1], highest)]
            for split, writer in writers.items():
                tokens, lengths = (
                    read_array(step.result(rank, f"{split}.{kind}.npy")) for kind in ("tokens", "lengths")
                )
                writer.extend(tokens, lengths, record[split])
    return writers, fractions


def _info(tokenizer: Tokenizer, writers: dict[Split, SplitWriter]) -> dict[str, Any]:
    return {
        "dtype": str(writers["train"].dtype),
        "vocab_size": tokenizer.vocab_size,
        "bos_id": tokenizer.bos_id,
        "eos_id": tokenizer.eos_id,
        "splits": {split: writer.facts() for split, writer in writers.items()},
    }


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


__all__ = ["PackConfig", "pack", "split_fraction"]
