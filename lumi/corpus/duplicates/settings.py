"""Which documents count as duplicates (``corpus.duplicates``)."""

import dataclasses
from typing import Any

from lumi.corpus.document import broken_rules, is_count
from lumi.corpus.duplicates.signature import Signature
from lumi.errors import join_violations


@dataclasses.dataclass(frozen=True, kw_only=True)
class Duplicates:
    """Of documents that are the same or nearly so, the first one is kept, in the order of the sources.

    Args:
        exact: leave out documents whose text was there before.
        near: leave out documents whose word shingles overlap with those of another one: Jaccard similarity of at least
            ``threshold``. What is similar to a similar one belongs to the same group, and a group keeps its first document.
        threshold: of the similarity.
        shingle_words: words in a shingle.
        bands: of ``rows`` minima each. Two documents are compared when one band agrees: with similarity s that happens with
            probability 1 - (1 - s**rows)**bands, 99.7 % at 0.8.
        rows: minima in a band.

    Raises:
        ConfigError: a value is out of range.
    """

    exact: bool = True
    near: bool = False
    threshold: float = 0.8
    shingle_words: int = 3
    bands: int = 32
    rows: int = 8

    def __post_init__(self) -> None:
        bins = self.bands * self.rows if is_count(self.bands) and is_count(self.rows) else 0
        rules = {
            "exact": (isinstance(self.exact, bool), "must be true or false"),
            "near": (isinstance(self.near, bool), "must be true or false"),
            "threshold": (
                isinstance(self.threshold, float) and 0 < self.threshold <= 1,
                "must be above 0 and at most 1",
            ),
            "shingle_words": (is_count(self.shingle_words), "must be a whole number of at least 1"),
            "bands": (bins in _POWERS_OF_TWO, "times corpus.duplicates.rows must be a power of two from 8 to 4096"),
        }
        if violations := broken_rules("corpus.duplicates", self, rules):
            raise join_violations(violations)

    def signature(self) -> Signature | None:
        """What is computed of each document, or None when near duplicates stay."""
        return Signature(self.shingle_words, self.bands, self.rows) if self.near else None

    def settings(self) -> dict[str, Any]:
        """What decides which documents are left out."""
        if not self.near:
            return {"exact": self.exact, "near": False}
        return {**dataclasses.asdict(self), "version": Signature.version}


_POWERS_OF_TWO = {2**power for power in range(3, 13)}
