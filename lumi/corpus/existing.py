"""A part of a corpus that Lumi made before, as a source: ``python prepare.py source=existing source.path=data/corpus/demo``.

All of it or some of its sources, and of these a random share: for a small corpus from a large one, or for a mixture of
corpora without going back to where they came from.
"""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lumi.corpus.document import Document, Rejected, SourceSettings, broken_rules
from lumi.corpus.engine.blocks import read_documents
from lumi.corpus.engine.build import corpus_shards
from lumi.corpus.engine.pack import split_fraction
from lumi.errors import ConfigError, DataError, did_you_mean, join_violations
from lumi.manifest import Manifest, read_manifest, verify

# Raised whenever the same corpus would give other documents than before.
READER_VERSION = 2
_SHARE_SALT = b"share\0"


@dataclasses.dataclass(kw_only=True)
class Existing(SourceSettings):
    """The documents of a finished corpus, in its order.

    Whether a document is in the share depends on its text, ``seed`` and ``share`` alone: duplicates stay together, and of
    the same seed a smaller share is a part of every larger one.

    Args:
        path: folder of the corpus.
        sources: names of the sources in it that are taken; null is all. A document's id begins with the name of its own.
        share: of the documents, above 0 and at most 1; about so many, drawn one by one.
        seed: of the share.
        name: of its part of the new corpus, and of its loss in the logs.
        weight, tokens, max_chars, language, category, licence, notes: as in `Source`; the old corpus has its own in its
            DATA_CARD.md.

    Raises:
        ConfigError: a setting has the wrong type or value; all of them in one error.
    """

    path: str
    sources: list[str] | None = None
    share: float = 1.0
    seed: int = 0
    name: str = "existing"

    def __post_init__(self) -> None:
        if violations := [*self.violations(), *self._violations()]:
            raise join_violations(violations)

    def settings(self) -> dict[str, Any]:
        """The options, and name and content hash of every source that is taken, but not where the corpus is.

        Raises:
            DataError: there is no finished corpus, or it has no such source.
        """
        chosen = self._chosen(read_manifest(Path(self.path), kind="corpus"))
        options = {"share": self.share, "seed": self.seed}
        # A list, because their order is that of the documents.
        return {
            "kind": "existing",
            "reader_version": READER_VERSION,
            **options,
            "sources": list(map(list, chosen.items())),
        }

    def documents(self) -> Iterator[Document | Rejected]:
        """The documents in the share, source by source in the order of the corpus.

        Raises:
            DataError: there is no finished corpus, it has no such source, or it was changed or damaged.
        """
        folder = Path(self.path)
        manifest = verify(folder, kind="corpus")  # once, and not for every source
        for name in self._chosen(manifest):
            for shard in corpus_shards(folder, manifest, name):
                for document in read_documents(shard):
                    if self._is_in_share(document.text):
                        yield dataclasses.replace(document, id=f"{name}/{document.id}")

    def _is_in_share(self, text: str) -> bool:
        if self.share == 1.0:
            return True
        # Not the number that splits off validation, which would fill up with the share: of 0.1, half would be held out.
        return split_fraction(_SHARE_SALT + text.encode("utf-8"), self.seed) < self.share

    def _chosen(self, manifest: Manifest) -> dict[str, str]:
        """Content hash of each source that is taken, in the order of the corpus."""
        if "sources" not in manifest.info:
            raise DataError(self.path, "was written by a Lumi that did not tell its sources apart", "make it again")
        found = {name: part["content_sha256"] for name, part in manifest.info["sources"].items()}
        if self.sources is None:
            return found
        for name in self.sources:
            if name not in found:
                raise DataError(f"source.sources={name}", f"is no source of {self.path}", did_you_mean(name, found))
        return {name: content for name, content in found.items() if name in self.sources}

    def _violations(self) -> list[ConfigError]:
        rules = {
            "path": (isinstance(self.path, str) and self.path, "must be the folder of a corpus"),
            "sources": (self.sources is None or _is_words(self.sources), "must be a list of names, or null"),
            "share": (_is_number(self.share) and 0 < self.share <= 1, "must be a number above 0 and at most 1"),
            "seed": (_is_number(self.seed) and isinstance(self.seed, int), "must be a whole number"),
        }
        return broken_rules("source", self, rules)


def _is_words(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(word, str) and word for word in value)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
