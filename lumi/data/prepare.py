"""From sources to packed tokens: the same three steps for ``prepare.py`` and for a training run that lacks its data.

    <root>/corpus/<source>/              documents
    <root>/tokenizer/<tokenizer>/        the frozen tokenizer
    <root>/packed/<tokenizer>/<source>/  token shards

Each step does nothing where its result is there and was made from the same inputs with the same settings.
"""

import dataclasses
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

from lumi.corpus import Source, build_corpus, read_corpus
from lumi.data.pack import PackConfig, pack
from lumi.errors import DataError
from lumi.manifest import MANIFEST, read_manifest
from lumi.tokenizer import ExistingTokenizer, Tokenizer, TokenizerConfig, train_tokenizer

log = logging.getLogger(__name__)

Step = Literal["corpus", "tokenizer", "pack", "all"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Locations:
    """Where the artefacts of some sources and one tokenizer lie.

    Attributes:
        root: folder of all prepared data.
        tokenizer: settings of the tokenizer, or of one that exists already.
    """

    root: Path
    tokenizer: TokenizerConfig | ExistingTokenizer

    def corpus(self, source: str) -> Path:
        """Folder of a source's documents."""
        return self.root / "corpus" / source

    @property
    def tokenizer_folder(self) -> Path:
        """Folder of the frozen tokenizer."""
        if isinstance(self.tokenizer, ExistingTokenizer):
            return self.tokenizer.path
        return self.root / "tokenizer" / self.tokenizer.name

    def packed(self, source: str) -> Path:
        """Folder of a source's token shards."""
        return self.root / "packed" / self.tokenizer.name / source


def prepare(
    sources: Mapping[str, Source],
    places: Locations,
    pack_config: PackConfig,
    *,
    step: Step = "all",
    force: bool = False,
) -> None:
    """Make what is missing.

    Args:
        sources: by name.
        places: where the results go.
        pack_config: settings of the packing.
        step: one step only; it needs the results of those before it.
        force: make it again even if it is there.

    Raises:
        DataError: a source, or what an earlier step should have made, is missing or damaged.
    """
    if step in ("corpus", "all"):
        for name, source in sources.items():
            build_corpus(source, places.corpus(name), force=force)
    if step in ("tokenizer", "all"):
        _make_tokenizer(list(sources), places, force=force)
    if step in ("pack", "all"):
        for name in sources:
            pack(places.corpus(name), places.tokenizer_folder, places.packed(name), pack_config, force=force)


def lacking(sources: Mapping[str, Source], places: Locations) -> list[Path]:
    """The packed folders that do not exist yet."""
    return [folder for name in sources if not ((folder := places.packed(name)) / MANIFEST).exists()]


def _make_tokenizer(names: list[str], places: Locations, *, force: bool) -> None:
    if isinstance(places.tokenizer, ExistingTokenizer):
        Tokenizer.load(places.tokenizer_folder)  # complains now rather than after an hour of packing
        return
    parents = {}
    for name in names:
        try:
            manifest = read_manifest(places.corpus(name), kind="corpus")
        except DataError as error:
            raise DataError(
                error.found, error.rule, "make it: python prepare.py step=corpus (with the same source)"
            ) from None
        parents[name] = manifest.info["content_sha256"]

    def texts() -> Iterator[str]:
        for name in names:
            for document in read_corpus(places.corpus(name)):
                yield document.text

    train_tokenizer(texts, places.tokenizer_folder, places.tokenizer, parents=parents, force=force)
