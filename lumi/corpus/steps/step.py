"""What a corpus step is: it looks at one document, changes its text or gives a reason to leave it out.

Steps are datatrove pipeline steps, so that any of its executors runs them. A document that is left out is not lost on the
way: it keeps flowing with its reason, later steps pass it over, and the last step counts and keeps it. So the totals add up
by construction, and a person can look at what was left out.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep

DROPPED = "dropped"
"""Key of a document's metadata: ``step: reason`` once a step has left it out."""
SOURCE = "source"
"""Key of a document's metadata: name of the source that it comes from."""
LANGUAGE = "language"
"""Key of a document's metadata: code of the language that its source is to have; absent when any is welcome."""

BITS = "bits"
"""Key of a document's metadata: its exact information content, where it is known."""

NOTES = "notes"
"""Key of a document's metadata: what a step wants counted, a list of short texts; also of documents that are kept."""


@dataclasses.dataclass(kw_only=True, repr=False, eq=False)
class Step(PipelineStep):
    """A step that looks at one document at a time; see the module.

    Args:
        enabled: whether it takes part.
    """

    name = "step"  # without annotations: these two are datatrove's, of the class and no settings
    type = "corpus"
    version: ClassVar[int] = 1
    """To be raised with every change that makes other documents from the same settings."""

    hashes_words: ClassVar[bool] = False
    """Whether it asks for the `lumi.corpus.steps.words` of every document, so that the ones after it have them for nothing."""

    enabled: bool = True

    def __post_init__(self) -> None:
        """Start datatrove's own counts."""
        super().__init__()

    def prepare(self, folder: Path) -> None:
        """Once, before any document, by the process that leads: what all workers need goes to a file in ``folder``."""

    def apply(self, document: Document) -> str | None:
        """Change ``document.text`` if need be; return why the document is to be left out, in a few words, or None."""
        raise NotImplementedError

    def report(self, notes: Mapping[str, int]) -> str:
        """What the data card says about it, as Markdown; ``notes`` are the counts of all notes of a corpus."""
        return ""

    def settings(self) -> dict[str, Any]:
        """Everything that decides what it does to a document, as plain JSON."""
        fields = {
            field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.name != "enabled"
        }
        return {**fields, "version": self.version}

    def run(self, data: Iterable[Document] | None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """Every document of ``data`` in its order, those that are left out with their reason."""
        for document in data or ():
            if DROPPED not in document.metadata:
                text = document.text
                if (reason := self.apply(document)) is not None:
                    document.metadata[DROPPED] = f"{self.name}: {reason}"
                elif document.text != text:
                    document.metadata[BITS] = None  # what was known of the text is not known of another one
            yield document
