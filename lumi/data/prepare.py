"""From a corpus to packed tokens: the same three steps for ``prepare.py`` and for a training run that lacks its data.

    <root>/corpus/<corpus>/                       documents of all its sources
    <root>/tokenizer/<tokenizer>/                 the frozen tokenizer
    <root>/packed/<tokenizer>/<corpus>/<source>/  token shards

Each step does nothing where its result is there and was made from the same inputs with the same settings.
"""

import dataclasses
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from lumi.corpus import Corpus, Executor, TokenCounter, build_corpus, read_corpus
from lumi.data.pack import PackConfig, pack
from lumi.errors import DataError
from lumi.manifest import MANIFEST, Manifest, read_manifest
from lumi.tokenizer import ExistingTokenizer, Tokenizer, TokenizerConfig, train_tokenizer

log = logging.getLogger(__name__)

Step = Literal["corpus", "tokenizer", "pack", "all"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Locations:
    """Where the artefacts of a corpus and one tokenizer lie.

    Attributes:
        root: folder of all prepared data.
        corpus_name: of the corpus; empty where only the tokenizer is wanted.
        tokenizer: settings of the tokenizer, or of one that exists already.
    """

    root: Path
    tokenizer: TokenizerConfig | ExistingTokenizer
    corpus_name: str = ""

    @property
    def corpus(self) -> Path:
        """Folder of the documents."""
        return self.root / "corpus" / self.corpus_name

    @property
    def tokenizer_folder(self) -> Path:
        """Folder of the frozen tokenizer."""
        if isinstance(self.tokenizer, ExistingTokenizer):
            return self.tokenizer.path
        return self.root / "tokenizer" / self.tokenizer.name

    def packed(self, source: str) -> Path:
        """Folder of a source's token shards."""
        return self.root / "packed" / self.tokenizer.name / self.corpus_name / source


def prepare(
    corpus: Corpus,
    places: Locations,
    pack_config: PackConfig,
    *,
    executor: Executor | None = None,
    step: Step = "all",
    force: bool = False,
    wait: bool = True,
) -> None:
    """Make what is missing.

    Args:
        corpus: sources, and what is done to their documents.
        places: where the results go.
        pack_config: settings of the packing.
        executor: where the work is done; None is this process alone.
        step: one step only; it needs the results of those before it.
        force: make it again even if it is there.
        wait: for another process that makes the same; else that is an error.

    Raises:
        DataError: a source, or what an earlier step should have made, is missing or damaged.
    """
    if step in ("corpus", "all"):
        counter = token_counter(corpus, places)
        build_corpus(corpus, places.corpus, executor=executor, counter=counter, force=force, wait=wait)
    if step in ("tokenizer", "all"):
        _make_tokenizer(places, force=force)
    if step in ("pack", "all"):
        for name in _packable(corpus, places):
            pack(
                places.corpus,
                places.tokenizer_folder,
                places.packed(name),
                pack_config,
                source=name,
                executor=executor,
                force=force,
                wait=wait,
            )


def token_counter(corpus: Corpus, places: Locations) -> TokenCounter:
    """Of the budgets: by a tokenizer that exists, else estimated, as the one to come will be trained on this corpus."""
    if isinstance(places.tokenizer, ExistingTokenizer) and any(corpus.budgets().values()):
        sha256 = Tokenizer.load(places.tokenizer_folder).sha256
        return TokenCounter(tokenizer=places.tokenizer_folder.absolute(), sha256=sha256)
    return TokenCounter()


def lacking(corpus: Corpus, places: Locations) -> list[Path]:
    """The packed folders that do not exist yet."""
    return [folder for source in corpus.present if not ((folder := places.packed(source.name)) / MANIFEST).exists()]


def _packable(corpus: Corpus, places: Locations) -> list[str]:
    """The sources of which something is left, by the corpus on disk."""
    sources = _corpus_manifest(places).info["sources"]
    names = [source.name for source in corpus.present]
    unknown = [name for name in names if name not in sources]
    if unknown:
        rule = f"has no source {', '.join(unknown)}, it has {', '.join(sources)}"
        raise DataError(f"{places.corpus}", rule, "python prepare.py step=corpus force=true, with the same corpus")
    for name in names:
        if not sources[name]["documents"]:
            log.warning("%s: nothing is left of the source %s, so it is not packed", places.corpus, name)
    return [name for name in names if sources[name]["documents"]]


def _corpus_manifest(places: Locations) -> Manifest:
    try:
        return read_manifest(places.corpus, kind="corpus")
    except DataError as error:
        fix = "make it: python prepare.py step=corpus (with the same corpus)"
        raise DataError(error.found, error.rule, error.fix or fix) from None


def _make_tokenizer(places: Locations, *, force: bool) -> None:
    if isinstance(places.tokenizer, ExistingTokenizer):
        Tokenizer.load(places.tokenizer_folder)  # complains now rather than after an hour of packing
        return
    parents = {name: facts["content_sha256"] for name, facts in _corpus_manifest(places).info["sources"].items()}

    def texts() -> Iterator[str]:
        for document in read_corpus(places.corpus):
            yield document.text

    train_tokenizer(
        texts, places.tokenizer_folder, places.tokenizer, parents=parents, force=force, corpus=places.corpus
    )
