"""What flows through a corpus: documents, and rows that could not become one."""

import dataclasses
from collections.abc import Iterator
from typing import Any, Protocol


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

    Attributes:
        name: folder name of its corpus, and the name under which its loss is logged.
        weight: share in a mixture, relative to the other sources.
        licence: of the text, for the data card.
        notes: anything else for the data card.
    """

    name: str
    weight: float
    licence: str
    notes: str

    def settings(self) -> dict[str, Any]:
        """Everything that decides the bytes of the documents, as plain JSON: equal settings, equal corpus."""
        ...

    def documents(self) -> Iterator[Document | Rejected]:
        """The documents in a fixed order."""
        ...
