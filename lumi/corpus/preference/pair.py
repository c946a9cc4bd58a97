"""Pairs of a better and a worse answer to one prompt, how they lie on disk, and the audit of what they would teach."""

import dataclasses
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from lumi.corpus.chat.conversation import conversation_fault, messages_of
from lumi.corpus.document import Rejected
from lumi.corpus.records import Described, build_records, read_records
from lumi.manifest import Manifest
from lumi.tokenizer import Message


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pair:
    """A prompt with two answers.

    Attributes:
        prompt: turns, the last one a user's.
        id: unique within its source.
        rejected_ends: False when the worse answer is one that does not stop.
        meta: ``kind`` says what is wrong with the worse answer; ``split`` is train, val or test.
    """

    prompt: tuple[Message, ...]
    chosen: str
    rejected: str
    id: str
    rejected_ends: bool = True
    meta: Mapping[str, str] = dataclasses.field(default_factory=dict)


class PairSource(Described, Protocol):
    """Where pairs come from: one class a kind, one YAML file in ``conf/preference/`` a preset."""

    def pairs(self) -> Iterator[Pair | Rejected]:
        """In a fixed order."""
        ...


def build_preference(source: PairSource, folder: Path, *, force: bool = False) -> Manifest:
    """Write the pairs of a source, checked, with an audit in the data card."""
    rows = lambda: map(_row, source.pairs())  # noqa: E731  # read again by every build
    return build_records("preference", source, rows, folder, force=force, describe=audit)


def read_preference(folder: Path, split: str) -> Iterator[Pair]:
    """The pairs of one split."""
    for row in read_records(folder, split, "preference"):
        yield Pair(**{**row, "prompt": messages_of(row["prompt"])})


def pair_fault(pair: Pair) -> str | None:
    """Why this is no pair to learn from, or None."""
    for answer in (pair.chosen, pair.rejected):
        if fault := conversation_fault((*pair.prompt, Message(role="assistant", content=answer))):
            return fault
    if pair.rejected_ends and pair.chosen.strip() == pair.rejected.strip():
        return "same answers: chosen and rejected are equal"
    return None


def audit(rows: Sequence[Mapping[str, Any]]) -> str:
    """What the pairs would teach beside their meaning, as Markdown: lengths, and prompts that stand in two splits."""
    chosen, rejected = ([len(row[key]) for row in rows] for key in ("chosen", "rejected"))
    longer = sum(one > other for one, other in zip(chosen, rejected, strict=True)) / len(rows)
    splits: dict[str, set[str]] = {}
    for row in rows:
        splits.setdefault(str(row["prompt"]), set()).add(row["meta"].get("split", "by hash"))
    shared = sum(len(found) > 1 for found in splits.values())
    bias = " **(a length bias: longer would be learnt as better)**" if abs(longer - 0.5) > 0.25 else ""
    return "\n".join(
        [
            "## Audit",
            "",
            f"- the chosen answer is the longer one in {longer:.1%} of the pairs{bias}",
            f"- mean characters: chosen {statistics.fmean(chosen):.0f}, rejected {statistics.fmean(rejected):.0f}",
            f"- prompts: {len(splits):,} different; {shared:,} in more than one split",
            "",
        ]
    )


def _row(item: Pair | Rejected) -> dict[str, Any] | Rejected:
    if isinstance(item, Rejected):
        return item
    if fault := pair_fault(item):
        reason, _, detail = fault.partition(": ")
        return Rejected(where=item.id, reason=reason, detail=detail)
    row = dataclasses.asdict(item)
    return {**row, "prompt": list(row["prompt"]), "meta": dict(item.meta)}
