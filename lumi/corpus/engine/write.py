"""The last stage: the shards of a corpus, from processed blocks and what is known of all of them together."""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lumi.corpus.engine.blocks import (
    COMPRESSIONS,
    BlockId,
    document_line,
    line_writer,
    lines,
    new_file,
    read_array,
    read_documents,
    read_json,
    write_array,
    write_json,
)
from lumi.corpus.engine.executor import Task

KEPT, EXACT, NEAR, BEYOND = range(4)
REASONS = {EXACT: "duplicates: exact", NEAR: "duplicates: near", BEYOND: "budget: reached before"}
_EXCERPT_CHARS = 1000


class WriteShards(Task):
    """One shard for each block: its documents without the duplicates and what is beyond the budget.

    Args:
        folder: of the stage.
        processed: of the stage that wrote the blocks.
        blocks: by task.
        compression: of the shards.
        most_examples: of documents that are left out.
    """

    name = "write"

    def __init__(
        self, folder: Path, processed: Path, blocks: Sequence[BlockId], compression: str, most_examples: int
    ) -> None:
        super().__init__(folder)
        self.processed, self.blocks = processed, blocks
        self.compression, self.most_examples = compression, most_examples

    def work(self, data: Any, rank: int) -> None:
        """One shard."""
        block = self.blocks[rank]
        suffix = COMPRESSIONS[self.compression]
        facts = read_array(block.path(self.processed, ".facts.npy"))
        verdicts = read_array(block.path(self.folder, ".verdicts.npy"))
        source, target = block.path(self.processed, suffix), block.path(self.folder, suffix)
        sha256, examples = read_json(block.path(self.processed, ".json"))["sha256"], []
        if (verdicts == KEPT).all():
            target.unlink(missing_ok=True)
            os.link(source, target)
        else:
            sha256, examples = self._filtered(block, source, target, verdicts)
        with new_file(block.path(self.folder, ".duplicates.jsonl")) as file:
            file.write(lines(examples))
        kept = facts[verdicts == KEPT]
        write_array(block.path(self.folder, ".lengths.npy"), kept["chars"])
        bits = kept["bits"]
        record = {
            "documents": len(kept),
            "bytes": int(kept["bytes"].sum(dtype=np.int64)),
            "chars": int(kept["chars"].sum(dtype=np.int64)),
            "tokens": int(kept["tokens"].sum(dtype=np.int64)),
            "bits": None if np.isnan(bits).any() else float(bits.sum()),
            "dropped": {reason: int((verdicts == code).sum()) for code, reason in REASONS.items()},
            "dropped_bytes": {
                reason: int(facts["bytes"][verdicts == code].sum(dtype=np.int64)) for code, reason in REASONS.items()
            },
            "sha256": sha256,
        }
        write_json(block.path(self.folder, ".json"), record)

    def _filtered(
        self, block: BlockId, source: Path, target: Path, verdicts: np.ndarray
    ) -> tuple[str, list[dict[str, Any]]]:
        kept = {row: self._name(*place) for row, *place in read_json(block.path(self.folder, ".firsts.json"))}
        examples: list[dict[str, Any]] = []
        counts = dict.fromkeys(REASONS, 0)
        with line_writer(target, self.compression) as writer:
            for row, document in enumerate(read_documents(source)):
                code = int(verdicts[row])
                if code == KEPT:
                    writer.write(document_line(document))
                    continue
                counts[code] += 1
                if code != BEYOND and counts[code] <= self.most_examples:
                    about = {"reason": REASONS[code], "id": document.id, "kept": kept.get(row, "")}
                    examples.append({**about, "text": document.text[:_EXCERPT_CHARS]})
        return writer.sha256.hexdigest(), examples

    def _name(self, source: str, number: int, row: int) -> str:
        ids = read_json(BlockId(source, number).path(self.processed, ".ids.json"))
        return f"{source}: {ids[row]}"


def verdicts_of(
    blocks: Sequence[BlockId],
    processed: Path,
    sizes: Sequence[int],
    duplicates: Mapping[int, np.ndarray],
    budgets: Mapping[str, int | None],
) -> Iterator[tuple[BlockId, np.ndarray]]:
    """What becomes of every processed document, (documents,) uint8 for each block; a byte a document in memory.

    Args:
        blocks: in their order.
        processed: folder of what is known of their documents.
        sizes: documents in each.
        duplicates: `NEAR` and `EXACT` → numbers, through all blocks, of the documents that are left out for it.
        budgets: tokens that are wanted of each source; None is all.
    """
    verdict = np.zeros(sum(sizes), dtype=np.uint8)
    for code in sorted(duplicates, reverse=True):  # whoever is both is an exact one
        verdict[duplicates[code]] = code
    start, taken = 0, dict.fromkeys(budgets, 0)
    for block, size in zip(blocks, sizes, strict=True):
        part = verdict[start : start + size]
        start += size
        budget = budgets[block.source]
        if budget is not None and size:
            tokens = read_array(block.path(processed, ".facts.npy"))["tokens"]
            so_far = taken[block.source] + np.where(part == KEPT, tokens, 0).cumsum(dtype=np.int64)
            before = np.concatenate(([taken[block.source]], so_far[:-1]))
            part[(part == KEPT) & (before >= budget)] = BEYOND  # the document that reaches the budget is the last
            taken[block.source] = int(so_far[-1])
        yield block, part


__all__ = ["BEYOND", "EXACT", "KEPT", "NEAR", "REASONS", "WriteShards", "verdicts_of"]
