"""Duplicates across all sources of a corpus: exact ones by hash, near ones by MinHash, whatever fits into memory."""

from lumi.corpus.duplicates.settings import Duplicates
from lumi.corpus.duplicates.signature import Signature

__all__ = ["Duplicates", "Signature"]
