"""The stages of a corpus: read → process → match → write. Each is a pipeline that an executor runs for every task."""

import dataclasses
import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from datatrove.data import Document as Flowing
from datatrove.pipeline.base import PipelineStep

from lumi.corpus.document import Document, Rejected, Source
from lumi.corpus.duplicates.signature import Signature
from lumi.corpus.engine.blocks import (
    COMPRESSIONS,
    BlockId,
    complete_blocks,
    document_line,
    line_writer,
    lines,
    new_file,
    read_documents,
    write_array,
    write_json,
)
from lumi.corpus.engine.executor import Task
from lumi.corpus.steps.step import BITS, DROPPED, LANGUAGE, NOTES, SOURCE
from lumi.corpus.steps.words import WordBatch, word_hashes
from lumi.corpus.text import text_fault
from lumi.corpus.tokens import TokenCounter
from lumi.errors import DataError

META = "meta"
RAW = COMPRESSIONS["zst"]
_RAW_LEVEL = 1  # read once and thrown away
_EXCERPT_CHARS = 1000
_BATCH_CHARS = 1_000_000

FACTS = np.dtype([("hash", "<u8", 2), ("bytes", "<u4"), ("chars", "<u4"), ("tokens", "<u4"), ("bits", "<f8")])
"""What is known of each document of a processed block; bits is NaN where it is unknown."""


class ReadSources(Task):
    """Reads a source, one a task, into blocks.

    Args:
        folder: of the stage.
        sources: in their order.
        block_bytes: a block ends with the document that reaches so many bytes of text.
        limits: bytes of text of each source after which reading may stop; None reads all.
    """

    name = "read"

    def __init__(
        self, folder: Path, sources: Sequence[Source], block_bytes: int, limits: Mapping[str, int | None]
    ) -> None:
        super().__init__(folder)
        self.sources, self.block_bytes, self.limits = sources, block_bytes, limits

    def work(self, data: Any, rank: int) -> None:
        """Go on after the blocks that are there."""
        source = self.sources[rank]
        done = list(complete_blocks(self.folder, source.name))
        if done and done[-1]["last"]:
            return
        limit = self.limits[source.name]
        n_bytes = sum(record["bytes"] for record in done)
        items = rows_from(source, sum(record["rows"] for record in done))
        number, more = len(done), True
        while more and (limit is None or n_bytes < limit):
            block = BlockId(source.name, number)
            record = self._write(block, items, source)
            more = not record["last"]
            n_bytes += record["bytes"]
            write_json(block.path(self.folder, ".json"), record)
            number += 1

    def _write(self, block: BlockId, items: Iterator[Document | Rejected], source: Source) -> dict[str, Any]:
        """One block: as many rows as fit; whether they were the last ones is known by trying for another."""
        n_rows = n_bytes = n_documents = 0
        rejected: list[dict[str, Any]] = []
        with line_writer(block.path(self.folder, RAW), "zst", _RAW_LEVEL) as writer:
            while n_bytes < self.block_bytes:
                item = next(items, None)
                if item is None:
                    break
                n_rows += 1
                if isinstance(item, Document) and source.max_chars is not None and len(item.text) > source.max_chars:
                    item = Rejected(where=item.id, reason="too long", detail=f"has {len(item.text):,} characters")
                if isinstance(item, Rejected):
                    rejected.append({"where": item.where, "reason": item.reason, "detail": item.detail[:500]})
                    continue
                if fault := text_fault(item.text):
                    raise DataError(
                        f"source={source.name}: document {item.id}", fault.rule, "its source has to reject it"
                    )
                n_documents += 1
                n_bytes += len(item.text.encode())
                writer.write(document_line(item))
        with new_file(block.path(self.folder, ".rejected.jsonl")) as file:
            file.write(lines(rejected))
        reasons = dict(Counter(row["reason"] for row in rejected))
        last = n_bytes < self.block_bytes
        return {"rows": n_rows, "documents": n_documents, "bytes": n_bytes, "rejected": reasons, "last": last}


def rows_from(source: Source, start: int) -> Iterator[Document | Rejected]:
    """The rows of a source from the ``start``-th on; sources that can seek are asked to, others are read again."""
    seek = getattr(source, "documents_from", None)
    if seek is not None:
        yield from seek(start)
        return
    for number, item in enumerate(source.documents()):
        if number >= start:
            yield item


class OpenBlocks(PipelineStep):
    """The documents of a block, one block a task.

    Args:
        folder: of the stage that wrote them.
        blocks: by task.
        suffix: of their files.
        languages: source → language that its documents are to have.
    """

    name = "open"
    type = "corpus"

    def __init__(
        self, folder: Path, blocks: Sequence[BlockId], suffix: str, languages: Mapping[str, str | None]
    ) -> None:
        super().__init__()
        self.folder, self.blocks, self.suffix, self.languages = folder, blocks, suffix, languages

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> Iterator[Flowing]:
        """In their order."""
        block = self.blocks[rank]
        about: dict[str, Any] = {SOURCE: block.source}
        if (language := self.languages.get(block.source)) is not None:
            about[LANGUAGE] = language
        for item in read_documents(block.path(self.folder, self.suffix)):
            yield Flowing(text=item.text, id=item.id, metadata={**about, BITS: item.bits, META: item.meta})


@dataclasses.dataclass
class _Verdicts:
    """What became of the documents of a block, and examples of those that were left out."""

    most_examples: int
    counts: Counter[str] = dataclasses.field(default_factory=Counter)
    n_bytes: Counter[str] = dataclasses.field(default_factory=Counter)
    examples: list[dict[str, Any]] = dataclasses.field(default_factory=list)

    def drop(self, document: Flowing) -> None:
        reason = document.metadata[DROPPED]
        self.counts[reason] += 1
        self.n_bytes[reason] += len(document.text.encode("utf-8", "replace"))
        if self.counts[reason] <= self.most_examples:
            self.examples.append({"reason": reason, "id": document.id, "text": document.text[:_EXCERPT_CHARS]})


class _Signatures:
    """Signatures of the documents of a block, computed in batches of about a megabyte.

    Args:
        signature: None computes none.
        words_are_known: an earlier step has just hashed the words of each document, and they are still at hand.
    """

    def __init__(self, signature: Signature | None, words_are_known: bool) -> None:
        self._signature, self._words_are_known = signature, words_are_known
        self._texts: list[str] = []
        self._hashes: list[np.ndarray] = []
        self._n_chars = 0
        self._parts: list[tuple[np.ndarray, np.ndarray]] = []

    def add(self, text: str) -> None:
        if self._signature is None:
            return
        if self._words_are_known:
            self._hashes.append(word_hashes(text))
        else:
            self._texts.append(text)
        self._n_chars += len(text)
        if self._n_chars >= _BATCH_CHARS:
            self._flush(self._signature)

    def all(self) -> tuple[np.ndarray, np.ndarray]:
        """Minima and bands of all documents, see `Signature.of`."""
        assert self._signature is not None, "only asked for where there is one"
        if self._n_chars or not self._parts:
            self._flush(self._signature)
        minima, bands = zip(*self._parts, strict=True)
        return np.concatenate(minima), np.concatenate(bands, axis=1)

    def _flush(self, signature: Signature) -> None:
        known = self._words_are_known
        words = WordBatch.of_hashes(self._hashes) if known else WordBatch.of_texts(self._texts)
        self._parts.append(signature.of_words(words))
        self._texts, self._hashes, self._n_chars = [], [], 0


class WriteProcessed(Task):
    """Writes the documents that are kept, with what the later stages need to know of them.

    Args:
        folder: of the stage.
        blocks: by task.
        compression: of the shards.
        signature: of near duplicates; None computes none.
        counter: of tokens.
        most_examples: of documents that are left out, for each reason.
        words_are_known: some step before hashes the words of every document.
    """

    name = "write processed"

    def __init__(
        self,
        folder: Path,
        blocks: Sequence[BlockId],
        compression: str,
        signature: Signature | None,
        counter: TokenCounter,
        most_examples: int,
        words_are_known: bool = False,
    ) -> None:
        super().__init__(folder)
        self.blocks, self.compression, self.signature = blocks, compression, signature
        self.words_are_known = words_are_known
        self.counter, self.most_examples = counter, most_examples

    def work(self, data: Iterable[Flowing], rank: int) -> None:
        """One block."""
        block = self.blocks[rank]
        verdicts = _Verdicts(self.most_examples)
        facts: list[tuple[Any, ...]] = []
        ids: list[str] = []
        signatures = _Signatures(self.signature, self.words_are_known)
        notes: Counter[str] = Counter()
        with line_writer(block.path(self.folder, COMPRESSIONS[self.compression]), self.compression) as writer:
            for document in data:
                notes.update(document.metadata.get(NOTES, ()))
                if DROPPED in document.metadata:
                    verdicts.drop(document)
                    continue
                facts.append(self._facts(document))
                ids.append(document.id)
                signatures.add(document.text)
                meta, bits = document.metadata[META], document.metadata[BITS]
                writer.write(document_line(Document(text=document.text, id=document.id, bits=bits, meta=meta)))
        write_array(block.path(self.folder, ".facts.npy"), np.array(facts, dtype=FACTS))
        write_json(block.path(self.folder, ".ids.json"), ids)
        if self.signature is not None:
            minima, bands = signatures.all()
            write_array(block.path(self.folder, ".minima.npy"), minima)
            write_array(block.path(self.folder, ".bands.npy"), bands)
        with new_file(block.path(self.folder, ".dropped.jsonl")) as file:
            file.write(lines(verdicts.examples))
        record = {
            "documents": len(facts),
            "dropped": dict(verdicts.counts),
            "dropped_bytes": dict(verdicts.n_bytes),
            "notes": dict(notes),
            "sha256": writer.sha256.hexdigest(),
        }
        write_json(block.path(self.folder, ".json"), record)

    def _facts(self, document: Flowing) -> tuple[Any, ...]:
        data = document.text.encode()
        digest = np.frombuffer(hashlib.blake2b(data, digest_size=16).digest(), dtype="<u8")
        bits = document.metadata[BITS]
        n_tokens = self.counter.count(document.text)
        return (tuple(digest), len(data), len(document.text), n_tokens, np.nan if bits is None else bits)
