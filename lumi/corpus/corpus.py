"""What a corpus is made of (``corpus=…``): sources, what is done to their documents, and how much of them is wanted."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from lumi.corpus.document import Source, broken_rules, is_count, is_name
from lumi.corpus.duplicates import Duplicates
from lumi.corpus.engine.blocks import COMPRESSIONS
from lumi.corpus.steps.step import Step
from lumi.corpus.tokens import TokenCounter
from lumi.errors import ConfigError, join_violations

FORMAT_VERSION = 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class Corpus:
    """Sources, steps and budgets.

    Args:
        name: of its folder, and of the tokenizer that is trained on it.
        sources: key → source; null is left out. Their order decides which of two duplicates stays.
        steps: key → what is done to each document, in order; null is left out.
        duplicates: which documents count as duplicates.
        tokens: budget of all sources together, which their weights divide; null takes what the sources give. A source that
            has a budget of its own keeps it.
        block_megabytes: text that a task works on; also the size of a shard, before compression.
        compression: of the shards: zst, gz or none.
        examples: documents that are kept for a person to look at, of each source and reason to leave some out.
        path: for presets that read a folder of yours; used by their other settings.

    Raises:
        ConfigError: naming every value that breaks a rule.
    """

    name: str
    sources: Mapping[str, Source | None]
    steps: Mapping[str, Step | None] = dataclasses.field(default_factory=dict)
    duplicates: Duplicates = dataclasses.field(default_factory=Duplicates)
    tokens: int | None = None
    block_megabytes: float = 16.0
    compression: str = "zst"
    examples: int = 20
    path: str | None = None

    def __post_init__(self) -> None:
        names = [source.name for source in self.present]
        rules = {
            "name": (is_name(self.name), "must be a name for a folder"),
            "tokens": (self.tokens is None or is_count(self.tokens), "must be a whole number of at least 1, or null"),
            "block_megabytes": (self.block_megabytes > 0, "must be above 0"),
            "compression": (self.compression in COMPRESSIONS, f"must be one of {', '.join(COMPRESSIONS)}"),
            "examples": (isinstance(self.examples, int) and self.examples >= 0, "must be a whole number of at least 0"),
        }
        violations = broken_rules("corpus", self, rules)
        if not names or len(set(names)) < len(names):
            rule = "at least one, each with a name of its own"
            violations.append(ConfigError(f"corpus.sources={names}", rule, "set corpus.sources.KEY.name"))
        if self.tokens is not None and not any(source.weight for source in self.present):
            violations.append(ConfigError("corpus.sources", "need a weight above 0 to share corpus.tokens"))
        if violations:
            raise join_violations(violations)

    @property
    def present(self) -> list[Source]:
        """The sources that are not left out, in their order."""
        return [source for source in self.sources.values() if source is not None]

    @property
    def active_steps(self) -> list[Step]:
        """The steps that take part, in their order."""
        return [step for step in self.steps.values() if step is not None and step.enabled]

    def budgets(self) -> dict[str, int | None]:
        """Tokens that are wanted of each source; None is all. The shares of ``tokens`` add up to it exactly."""
        wanted: dict[str, int | None] = {source.name: source.tokens for source in self.present}
        if self.tokens is not None:
            free = [source for source in self.present if source.tokens is None]
            rest = max(0, self.tokens - sum(tokens or 0 for tokens in wanted.values()))
            total, seen, given = sum(source.weight for source in free), 0.0, 0
            for source in free:
                seen += source.weight
                share = round(rest * seen / total) - given if total else 0
                wanted[source.name], given = share, given + share
        return wanted

    def settings(self, counter: TokenCounter) -> dict[str, Any]:
        """All that decides the bytes of the corpus, as plain JSON.

        Raises:
            DataError: a source cannot be read.
        """
        budgets = self.budgets()
        counts = {"counter": counter.settings(), "budgets": budgets} if any(budgets.values()) else {}
        return {
            "sources": {source.name: {**source.settings(), **_about(source)} for source in self.present},
            "steps": {step.name: step.settings() for step in self.active_steps},
            "duplicates": self.duplicates.settings(),
            "block_megabytes": self.block_megabytes,
            "compression": self.compression,
            "examples": self.examples,
            "corpus_format": FORMAT_VERSION,
            **counts,
        }


def _about(source: Source) -> dict[str, Any]:
    return {key: getattr(source, key) for key in ("max_chars", "language", "category", "licence", "notes")}


def corpus_of(source: Source) -> Corpus:
    """The corpus of one source, whose documents are taken as they are but for exact duplicates."""
    return Corpus(name=source.name, sources={source.name: source})


__all__ = ["FORMAT_VERSION", "Corpus", "corpus_of"]
