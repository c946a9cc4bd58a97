"""Part 3, tokenise and pack: `pack` against the loop that everybody writes, with every id compared."""

import dataclasses
import itertools
import multiprocessing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import sentencepiece

from benchmarks.measure import Table, alternate, n_bytes, percent, rate, speedup
from benchmarks.plain import plain_loop
from benchmarks.texts import write_jsonl
from lumi.corpus import Executor, Local, build_corpus, corpus_of, corpus_shards, read_corpus
from lumi.data import PackConfig
from lumi.data.pack import pack
from lumi.data.packed import PackedStream
from lumi.manifest import read_manifest
from lumi.tokenizer import Tokenizer, TokenizerConfig, train_tokenizer

_LONG_CHARS = 10_000


class Places(NamedTuple):
    """What is packed, with what, and where to."""

    corpus: Path
    tokenizer: Path
    target: Path


def measure_packing(
    texts: Sequence[str],
    work: Path,
    *,
    tokenizer: Path | None,
    vocab_size: int,
    model_type: Any,
    cores: int,
    repeats: int,
) -> list[Table]:
    """Speed on one core and on all of them, and whether the ids are the same."""
    corpus = dataclasses.replace(corpus_of(write_jsonl(texts, work / "text.jsonl")), block_megabytes=4.0)
    build_corpus(corpus, work / "corpus")
    places = Places(work / "corpus", tokenizer or work / "tokenizer", work / "packed")
    if tokenizer is None:
        train(places, vocab_size, model_type)
    seconds = alternate(_contestants(places, cores), repeats)
    return [_table(places, seconds, cores)]


def train(places: Places, vocab_size: int, model_type: Any) -> None:
    """A tokenizer of the corpus."""
    config = TokenizerConfig(
        name="text", vocab_size=vocab_size, model_type=model_type, exact_size=False, train_megabytes=10.0
    )
    train_tokenizer(lambda: (d.text for d in read_corpus(places.corpus)), places.tokenizer, config, parents={})


def _contestants(places: Places, cores: int) -> dict[str, Callable[[Any], object]]:
    shards = corpus_shards(places.corpus, read_manifest(places.corpus, kind="corpus"))
    model = Tokenizer.load(places.tokenizer).model_bytes
    jobs = [(shard, model, places.target.with_name(f"{shard.name}.bin")) for shard in shards]

    def loop(_: Any) -> None:
        for job in jobs:
            plain_loop(job)

    def loops(_: Any) -> None:
        with multiprocessing.get_context("forkserver").Pool(min(cores, len(jobs))) as pool:
            pool.map(plain_loop, jobs, chunksize=1)

    def packs(workers: int) -> Callable[[Any], object]:
        return lambda _: pack_all(places, Local(workers=workers), 1 if workers == 1 else None)

    found: dict[str, Callable[[Any], object]] = {"plain loop, 1 core": loop, "Lumi, 1 core": packs(1)}
    return (
        found
        if cores == 1
        else {**found, f"plain loop, {cores} processes": loops, f"Lumi, {cores} cores": packs(cores)}
    )


def pack_all(places: Places, executor: Executor, num_threads: int | None) -> None:
    """As ``prepare.py step=pack`` does, all of it into the training split; None shares all cores among the workers."""
    config = PackConfig(val_ratio=0.0, num_threads=num_threads)
    pack(places.corpus, places.tokenizer, places.target, config, executor=executor, force=True)


def _table(places: Places, seconds: dict[str, list[float]], cores: int) -> Table:
    texts = [document.text for document in read_corpus(places.corpus)]
    megabytes = n_bytes(texts) / 1e6
    names = list(seconds)
    rows = [
        {
            "contestant": name,
            "MB/s": rate(megabytes, seconds[name]),
            "x plain loop": speedup(seconds[name], seconds[names[0 if "1 core" in name else 2]]),
            "x plain loop on 1 core": speedup(seconds[name], seconds[names[0]]),
        }
        for name in names
    ]
    n_same, n_long, n_same_long = _compared(places, texts)
    notes = [
        f"{len(texts):,} documents, {megabytes:.1f} MB, on {cores} cores; read from the corpus, ids on disk at the end",
        f"all ids packed are those of Tokenizer.encode of each document: {megabytes:.1f} MB compared",
        f"{percent(n_same, len(texts)):.2f} % of the documents have the ids of SentencePiece's own encode of the whole text, "
        f"{percent(n_same_long, n_long) or 0:.2f} % of the {n_long:,} above {_LONG_CHARS:,} characters",
    ]
    counts = {"documents": len(texts), "as_sentencepiece": n_same, "long": n_long, "long_as_sentencepiece": n_same_long}
    return Table(title="Tokenise and pack", rows=rows, notes=notes, raw={"seconds": seconds, **counts})


def _compared(places: Places, texts: Sequence[str]) -> tuple[int, int, int]:
    """Documents with SentencePiece's own ids, long ones, and those of the long ones that have them.

    Raises:
        AssertionError: an id on disk is not that of `Tokenizer.encode`.
    """
    tokenizer = Tokenizer.load(places.tokenizer)
    processor = sentencepiece.SentencePieceProcessor(model_proto=tokenizer.model_bytes)
    stream = PackedStream(places.target, "train", 2, tokenizer.sha256)
    same = []
    for text, (start, stop) in zip(texts, itertools.pairwise(stream.offsets.tolist()), strict=True):
        ids = tokenizer.encode(text)
        packed = stream.tokens(start, stop).tolist()
        assert packed == [tokenizer.bos_id, *ids, tokenizer.eos_id], f"not the ids of Tokenizer.encode: {text[:100]!r}"
        same.append(processor.encode(text) == ids)
    is_long = [len(text) > _LONG_CHARS for text in texts]
    return sum(same), sum(is_long), sum(one and long for one, long in zip(same, is_long, strict=True))
