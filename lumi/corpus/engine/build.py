"""A corpus on disk: documents of one or many sources, cleaned, without duplicates, counted, hashed, and read back exactly.

``data/corpus/<name>/`` holds the documents as JSON lines in compressed shards, what was left out with reasons and examples,
a data card and the manifest. It is made by ``python prepare.py corpus=…``. While it is made, ``.<name>.work`` beside it holds
the stages; a run that was stopped in any way goes on from there, and the result is the same to the byte.
"""

import json
import logging
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from datatrove.pipeline.base import PipelineStep

from lumi.corpus.corpus import Corpus
from lumi.corpus.document import Document
from lumi.corpus.duplicates.match import MatchDocuments, groups
from lumi.corpus.engine.blocks import (
    COMPRESSIONS,
    BlockId,
    begin_work,
    complete_blocks,
    read_array,
    read_documents,
    read_json,
    write_array,
    write_json,
)
from lumi.corpus.engine.executor import Executor, Local, mark_done, stop_on_signals
from lumi.corpus.engine.finish import finish
from lumi.corpus.engine.stages import RAW, OpenBlocks, ReadSources, WriteProcessed
from lumi.corpus.engine.write import EXACT, KEPT, NEAR, WriteShards, verdicts_of
from lumi.corpus.tokens import TokenCounter
from lumi.disk import disk_errors
from lumi.errors import DataError
from lumi.lock import folder_lock
from lumi.manifest import Manifest, atomic_folder, fingerprint, verify
from lumi.reuse import content_fingerprint, finished

log = logging.getLogger(__name__)

RAW_BYTES_PER_TOKEN = 5.4
"""How much text is read for a budget at first: the 4.5 bytes of a token of prose, and a fifth more for what is left out."""
_MORE = 1.1


def build_corpus(
    corpus: Corpus,
    folder: Path,
    *,
    executor: Executor | None = None,
    counter: TokenCounter | None = None,
    force: bool = False,
    wait: bool = True,
) -> Manifest:
    """Make the corpus in ``folder``, as far as it is missing.

    Memory is that of a block and some 50 bytes a document, whatever the size of the corpus.

    Args:
        executor: where the work is done; None is this process alone. It changes no byte of the result.
        counter: of tokens, for budgets; None estimates.
        force: make it again whatever an earlier corpus in ``folder`` was made from.
        wait: for another process that makes the same corpus; else that is an error.

    Raises:
        DataError: ``folder`` holds a corpus of other settings, a damaged one, or something else; a source has rows that break
            its rules; no document is left; a source changed meanwhile.
        LockedError: another process makes it, and ``wait`` is false.
        ResourceError: the disk is full.
        Interrupted: a signal came; the same call goes on.
    """
    executor, counter = executor or Local(workers=1), counter or TokenCounter()
    with folder_lock(folder, wait=wait), stop_on_signals():
        settings = _plain(corpus.settings(counter))
        fix = "force=true builds it again, corpus.name=… makes another beside it"
        found = finished(folder, kind="corpus", key="corpus", settings=settings, parents={}, force=force, fix=fix)
        work = folder.parent / f".{folder.name}.work"
        if found is not None:
            shutil.rmtree(work, ignore_errors=True)  # of a build that was killed when all was done
            log.info("corpus %s is up to date: %s documents in %s", corpus.name, f"{found.info['documents']:,}", folder)
            return found
        start = time.monotonic()
        begin_work(work, fingerprint(settings), force=force)
        with disk_errors(work):
            build = _Build(corpus, work.absolute(), executor, counter)
            build.run()
        if _plain(corpus.settings(counter)) != settings:
            shutil.rmtree(work)
            raise DataError(
                f"corpus={corpus.name}", "its sources changed while they were read", "run the same command again"
            )
        with atomic_folder(folder) as target:
            manifest = finish(corpus, build.blocks, build.folders, target, settings, content_fingerprint(settings, {}))
        shutil.rmtree(work, ignore_errors=True)
    _report(manifest, folder, time.monotonic() - start)
    return manifest


def read_corpus(folder: Path, source: str | None = None) -> Iterator[Document]:
    """The documents of a corpus, or of one source in it, in their order; every file is checked before the first is given.

    Raises:
        DataError: ``folder`` is not a finished corpus, was changed or damaged, or has no such source.
    """
    for path in corpus_shards(folder, verify(folder, kind="corpus"), source):
        yield from read_documents(path)


def corpus_shards(folder: Path, manifest: Manifest, source: str | None = None) -> list[Path]:
    """The shards of a corpus, or of one source in it, in their order.

    Raises:
        DataError: there is no such source.
    """
    known = manifest.info["sources"]
    if source is not None and source not in known:
        raise DataError(f"{folder}", f"has no source {source}, it has {', '.join(known)}")
    names = [source] if source is not None else list(known)
    shards = [shard for name in names for shard in known[name]["shards"]]
    if unnamed := [shard for shard in shards if shard not in manifest.files]:  # so never checked; it may lead anywhere
        raise DataError(f"{folder}", f"its manifest names the shard {unnamed[0]!r}, but no such file", "make it again")
    return [folder / shard for shard in shards]


class _Build:
    """The stages, each with its folder; a stage whose results are there does nothing."""

    def __init__(self, corpus: Corpus, work: Path, executor: Executor, counter: TokenCounter) -> None:
        self.corpus, self.work, self.executor, self.counter = corpus, work, executor, counter
        self.suffix = COMPRESSIONS[corpus.compression]
        self.folders = {name: work / name for name in ("read", "process", "match", "write")}
        self.budgets = corpus.budgets()
        self.limits = {
            name: None if budget is None else round(budget * RAW_BYTES_PER_TOKEN)
            for name, budget in self.budgets.items()
        }
        self.blocks: list[BlockId] = []

    def run(self) -> None:
        """Until every source has reached its budget or its end."""
        for step in self.corpus.active_steps:
            step.prepare(self.work)
        while True:
            self._read()
            self._process()
            sizes = [read_json(block.path(self.folders["process"], ".json"))["documents"] for block in self.blocks]
            of_these = fingerprint([*self.blocks, *sizes])[:12]  # further rounds have further blocks
            self.folders |= {name: self.work / f"{name}-{of_these}" for name in ("match", "write")}
            duplicates = self._match(sizes)
            if not self._decide(sizes, duplicates):
                break
        self._write()

    def _read(self) -> None:
        sources = self.corpus.present
        step = ReadSources(self.folders["read"], sources, round(self.corpus.block_megabytes * 1e6), self.limits)
        self._run("reading", [step], lambda: [self._is_read(source.name) for source in sources], "read")
        self.blocks = [
            BlockId(source.name, number)
            for source in sources
            for number in range(len(list(complete_blocks(self.folders["read"], source.name))))
        ]

    def _is_read(self, source: str) -> bool:
        done, limit = list(complete_blocks(self.folders["read"], source)), self.limits[source]
        enough = limit is not None and sum(record["bytes"] for record in done) >= limit
        return bool(done) and (done[-1]["last"] or enough)

    def _process(self) -> None:
        folder, corpus = self.folders["process"], self.corpus
        languages = {source.name: source.language for source in corpus.present}
        pipeline = [
            OpenBlocks(self.folders["read"], self.blocks, RAW, languages),
            *corpus.active_steps,
            WriteProcessed(
                folder,
                self.blocks,
                corpus.compression,
                corpus.duplicates.signature(),
                self.counter,
                corpus.examples,
                words_are_known=any(step.hashes_words for step in corpus.active_steps),
            ),
        ]
        ends = [".json", ".facts.npy", ".ids.json", ".dropped.jsonl", self.suffix]
        ends += [".minima.npy", ".bands.npy"] if corpus.duplicates.near else []
        self._run("processing", pipeline, lambda: self._are_there(folder, ends), "process")

    def _match(self, sizes: Sequence[int]) -> dict[int, tuple[np.ndarray, np.ndarray]]:
        """`EXACT` and `NEAR` → documents that are left out, sorted, and the one that is kept for each."""
        step = MatchDocuments(
            self.folders["match"], self.folders["process"], self.blocks, sizes, self.corpus.duplicates
        )
        results = [step.result(rank) for rank in range(step.n_tasks)]
        self._run("finding duplicates", [step], lambda: [path.is_file() for path in results], "match")
        exact = read_array(results[0])
        exact = exact[np.argsort(exact[:, 1])]
        # Near ones reach over exact ones: of three texts, the first two alike and the last two equal, one is kept.
        left_out, kept = (exact[:, 1], exact[:, 0]) if self.corpus.duplicates.near else np.empty((2, 0), dtype=np.int64)
        for path in results[1:]:  # a band at a time, so that memory is that of the documents left out
            left_out, kept = groups(np.concatenate([np.stack((kept, left_out), axis=1), read_array(path)]))
        return {EXACT: (exact[:, 1], exact[:, 0]), NEAR: (left_out, kept)}

    def _decide(self, sizes: Sequence[int], duplicates: dict[int, tuple[np.ndarray, np.ndarray]]) -> bool:
        """Write down what becomes of every document; whether some source has to be read further."""
        folder, starts = self.folders["write"], np.concatenate(([0], np.cumsum(sizes)))
        left_out = {code: pair[0] for code, pair in duplicates.items()}
        for number, (block, verdicts) in enumerate(
            verdicts_of(self.blocks, self.folders["process"], sizes, left_out, self.budgets)
        ):
            write_array(block.path(folder, ".verdicts.npy"), verdicts)
            firsts: list[list[Any]] = []
            for documents, kept in duplicates.values():
                begin, end = np.searchsorted(documents, starts[number : number + 2])
                for index in range(begin, min(end, begin + self.corpus.examples)):
                    other = int(np.searchsorted(starts, kept[index], side="right")) - 1
                    place = [*self.blocks[other], int(kept[index] - starts[other])]
                    firsts.append([int(documents[index] - starts[number]), *place])
            write_json(block.path(folder, ".firsts.json"), firsts)
        return self._extend()

    def _extend(self) -> bool:
        """Raise the limits of sources that fell short of their budget and have more to give."""
        extended = False
        for source, budget in self.budgets.items():
            if budget is None:
                continue
            done = list(complete_blocks(self.folders["read"], source))
            kept = sum(self._kept_tokens(block) for block in self.blocks if block.source == source)
            if kept >= budget or done[-1]["last"]:
                continue
            n_bytes = sum(record["bytes"] for record in done)
            factor = min(4.0, _MORE * budget / max(kept, 1))
            self.limits[source] = max(round(n_bytes * factor), n_bytes + 1)
            log.info(
                "corpus %s: %s gave %s of %s tokens so far; reading on",
                self.corpus.name,
                source,
                f"{kept:,}",
                f"{budget:,}",
            )
            extended = True
        return extended

    def _kept_tokens(self, block: BlockId) -> int:
        verdicts = read_array(block.path(self.folders["write"], ".verdicts.npy"))
        tokens = read_array(block.path(self.folders["process"], ".facts.npy"))["tokens"]
        return int(tokens[verdicts == KEPT].sum(dtype=np.int64))

    def _write(self) -> None:
        folder, corpus = self.folders["write"], self.corpus
        step = WriteShards(folder, self.folders["process"], self.blocks, corpus.compression, corpus.examples)
        ends = [".json", ".lengths.npy", ".duplicates.jsonl", self.suffix]
        self._run("writing", [step], lambda: self._are_there(folder, ends), "write")

    def _are_there(self, folder: Path, ends: Sequence[str]) -> list[bool]:
        return [all(block.path(folder, end).is_file() for end in ends) for block in self.blocks]

    def _run(self, title: str, pipeline: Sequence[PipelineStep], is_done: Callable[[], list[bool]], stage: str) -> None:
        """Run the tasks whose results are not there, and see that they are there afterwards."""
        done, folder = is_done(), self.folders[stage]
        if all(done):
            return
        mark_done(folder, done)
        self.executor.run(f"{self.corpus.name}: {title}", pipeline, len(done), folder)
        if not all(is_done()):
            raise DataError(f"{folder}", "has lost a file since it was written", "the same command makes it again")


def _plain(settings: dict[str, Any]) -> dict[str, Any]:
    return json.loads(json.dumps(settings))  # as the manifest will give it back: lists for tuples, strings for keys


def _report(manifest: Manifest, folder: Path, seconds: float) -> None:
    info = manifest.info
    size = f"{info['documents']:,} documents, {info['bytes'] / 1e6:,.2f} MB"
    log.info("corpus %s: %s in %.1f s: %s", manifest.name, size, seconds, folder)
    left_out = {**info["rejected"], **info["dropped"]}
    if left_out:
        reasons = ", ".join(
            f"{count:,} {reason}" for reason, count in sorted(left_out.items(), key=lambda item: -item[1])
        )
        log.info("corpus %s: left out: %s; see %s", manifest.name, reasons, folder / "DATA_CARD.md")
    for name, facts in info["sources"].items():
        if facts["budget"] is not None and facts["tokens"] < facts["budget"]:
            log.warning(
                "corpus %s: %s has only %s of the %s tokens wanted",
                manifest.name,
                name,
                f"{facts['tokens']:,}",
                f"{facts['budget']:,}",
            )


__all__ = ["build_corpus", "corpus_shards", "read_corpus"]
