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

_BIASED = 0.75
"""Share of pairs with the longer answer chosen above which length alone ranks most of them."""


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
    return build_records("preference", source, rows, folder, force=force, describe=(audit, audit_lines))


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


def audit(by_split: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    """What the pairs would teach beside their meaning: figures of lengths, echoes and repeated prompts, as plain JSON."""
    rows = [row for kept in by_split.values() for row in kept]
    chosen, rejected = ([len(row[key]) for row in rows] for key in ("chosen", "rejected"))
    splits: dict[str, set[str]] = {}
    for split, kept in by_split.items():
        for row in kept:
            splits.setdefault(str(row["prompt"]), set()).add(split)
    return {
        "pairs": len(rows),
        "chosen_longer": sum(one > other for one, other in zip(chosen, rejected, strict=True)) / len(rows),
        "chosen_characters": statistics.fmean(chosen),
        "rejected_characters": statistics.fmean(rejected),
        "chosen_echoes": sum(row["chosen"].strip() == row["prompt"][-1]["content"].strip() for row in rows),
        "prompts": len(splits),
        "shared_prompts": sum(len(found) > 1 for found in splits.values()),
    }


def audit_lines(facts: Mapping[str, Any]) -> list[str]:
    """An audit for people; what should worry them is said."""
    longer = facts["chosen_longer"]
    bias = " · a length bias: longer would be learnt as better" if longer > _BIASED else ""
    bias = " · a length bias: shorter would be learnt as better" if longer < 1 - _BIASED else bias
    lines = [
        f"the chosen answer is the longer one in {longer:.1%} of {facts['pairs']:,} pairs{bias}",
        f"mean characters: chosen {facts['chosen_characters']:.0f}, rejected {facts['rejected_characters']:.0f}",
        f"{facts['prompts']:,} different prompts, {facts['shared_prompts']:,} of them in more than one split",
    ]
    if facts["chosen_echoes"]:
        lines.append(f"{facts['chosen_echoes']:,} chosen answers repeat the question and nothing else")
    return lines


def _row(item: Pair | Rejected) -> dict[str, Any] | Rejected:
    if isinstance(item, Rejected):
        return item
    if fault := pair_fault(item):
        reason, _, detail = fault.partition(": ")
        return Rejected(where=item.id, reason=reason, detail=detail)
    row = dataclasses.asdict(item)
    return {**row, "prompt": list(row["prompt"]), "meta": dict(item.meta)}
