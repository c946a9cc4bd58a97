"""Where text comes from, and the corpus on disk that it becomes."""

from lumi.corpus.corpus import Corpus, corpus_of
from lumi.corpus.document import Document, Rejected, Source, SourceSettings
from lumi.corpus.duplicates import Duplicates
from lumi.corpus.engine.build import build_corpus, corpus_shards, read_corpus
from lumi.corpus.engine.cluster import Ray, Slurm
from lumi.corpus.engine.executor import Executor, Local
from lumi.corpus.existing import Existing
from lumi.corpus.files import Files
from lumi.corpus.hub_source import Hub
from lumi.corpus.pydocs import PyDocs
from lumi.corpus.tokens import TokenCounter
from lumi.corpus.world import World

__all__ = [
    "Corpus",
    "Document",
    "Duplicates",
    "Executor",
    "Existing",
    "Files",
    "Hub",
    "Local",
    "PyDocs",
    "Ray",
    "Rejected",
    "Slurm",
    "Source",
    "SourceSettings",
    "TokenCounter",
    "World",
    "build_corpus",
    "corpus_of",
    "corpus_shards",
    "read_corpus",
]
