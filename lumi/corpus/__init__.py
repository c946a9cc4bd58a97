"""Where text comes from, and the corpus on disk that it becomes."""

from lumi.corpus.build import build_corpus, read_corpus
from lumi.corpus.document import Document, Rejected, Source
from lumi.corpus.files import Files
from lumi.corpus.pydocs import PyDocs
from lumi.corpus.world import World

__all__ = ["Document", "Files", "PyDocs", "Rejected", "Source", "World", "build_corpus", "read_corpus"]
