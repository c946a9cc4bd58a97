"""What flows through a corpus: documents, and rows that could not become one."""

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from lumi.errors import ConfigError


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    r"""One text with its origin.

    Attributes:
        text: the text as it will be tokenised; any newline convention of the origin is already ``\n``.
        id: unique within its source and stable between runs.
        bits: exact information content −log2 p(text) in bits, known only for generated text, its end included.
        meta: anything a later step may want, as plain JSON.
    """

    text: str
    id: str
    bits: float | None = None
    meta: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """A row that is left out, with where it stands and why: counted, never silent.

    Attributes:
        where: ``file:line``, or the document's id where there is no line.
        reason: a short class of fault such as ``invalid JSON``; counts are kept by it.
        detail: what a person needs to find the fault, shortened.
    """

    where: str
    reason: str
    detail: str = ""


class Source(Protocol):
    """Where documents come from: one class a kind, one YAML file in ``conf/source/`` a preset.

    A class of your own inherits from it for the defaults, or from `SourceSettings`, which makes every one of them a setting.

    Attributes:
        name: of its part of the corpus, and the name under which its loss is logged.
        weight: share in a mixture, relative to the other sources.
        tokens: budget: documents are taken in order until it is reached; None takes all there are.
        max_chars: longer documents are left out; None leaves out none.
        language: code such as ``en`` that the step `lumi.corpus.steps.Language` checks; None checks nothing.
        category: what kind of text, for the data card.
        licence: of the text, for the data card.
        notes: anything else for the data card.
    """

    name: str
    weight: float
    licence: str
    notes: str
    tokens: int | None = None
    max_chars: int | None = None
    language: str | None = None
    category: str = ""

    def settings(self) -> dict[str, Any]:
        """Everything that decides the bytes of the documents, as plain JSON: equal settings, equal corpus."""
        ...

    def documents(self) -> Iterator[Document | Rejected]:
        """The documents in a fixed order."""
        ...


@dataclasses.dataclass(kw_only=True)
class SourceSettings:
    """What a person can say about any source; the attributes of `Source`, which explains them."""

    name: str
    weight: float = 1.0
    tokens: int | None = None
    max_chars: int | None = None
    language: str | None = None
    category: str = ""
    licence: str = "unknown"
    notes: str = ""

    def violations(self) -> list[ConfigError]:
        """What is wrong with them."""
        number = isinstance(self.weight, int | float) and not isinstance(self.weight, bool)
        rules = {
            "name": (is_name(self.name), "must be a name for a folder: not empty, without / and not beginning with a dot"),
            "weight": (number and 0 <= self.weight < math.inf, "must be a number of at least 0"),
            "tokens": (self.tokens is None or is_count(self.tokens), "must be a whole number of at least 1, or null"),
            "max_chars": (self.max_chars is None or is_count(self.max_chars), "must be a whole number from 1 on, or null"),
            "language": (self.language is None or _is_language(self.language), "must be a code such as en, or null"),
            "category": (isinstance(self.category, str), "must be a string"),
            "licence": (isinstance(self.licence, str), "must be a string"),
            "notes": (isinstance(self.notes, str), "must be a string"),
        }  # fmt: skip
        return broken_rules("source", self, rules)


def broken_rules(group: str, settings: object, rules: Mapping[str, tuple[object, str]]) -> list[ConfigError]:
    """An error for every rule that does not hold: ``name → (whether it holds, the rule)``."""
    return [
        ConfigError(f"{group}.{key}={getattr(settings, key)!r}", rule)
        for key, (holds, rule) in rules.items()
        if not holds
    ]


def is_count(value: object) -> bool:
    """Whether it is a whole number of at least 1."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def is_name(value: object) -> bool:
    """Whether a folder can be called so."""
    return isinstance(value, str) and bool(value) and not value.startswith(".") and not set(value) & {"/", "\0"}


def _is_language(value: object) -> bool:
    return isinstance(value, str) and value.isascii() and value.isalpha() and value.islower() and len(value) in (2, 3)
