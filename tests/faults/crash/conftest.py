"""What tests of kills share."""

from tests.corpus.conftest import listing

__all__ = ["listing"]
