"""What sources of rows have in common: the fault of a text, how many faults are too many, which files were read."""

import dataclasses
import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from lumi.corpus.document import Rejected
from lumi.corpus.streams import read_errors
from lumi.corpus.text import Fault, normalise_newlines, text_fault
from lumi.errors import DataError
from lumi.manifest import sha256_file

# A share says little about few rows: one bad row of three is no reason to stop.
_MIN_ROWS_FOR_RATIO = 100


@dataclasses.dataclass
class RowFaults:
    """Decides about faulty rows while a source is read, and counts them.

    Args:
        source: name of the source, for messages.
        on_error: ``fail`` stops at the first fault, ``skip`` goes on.
        max_ratio: share of faulty rows above which the reading stops even then.
    """

    source: str
    on_error: str
    max_ratio: float
    n_rows: int = 0
    counts: Counter[str] = dataclasses.field(default_factory=Counter)

    def rejected(self, fault: Fault, *, where: str, place: str) -> Rejected:
        """The row as one that is left out.

        Args:
            fault: of the row.
            where: how lists of rejected rows name it.
            place: where a person finds it.

        Raises:
            DataError: it is a fault and ``on_error=fail``, or there are too many of them.
        """
        if not fault.harmless:
            self.counts[fault.reason] += 1
            if self.on_error == "fail":
                skip = "source.on_error=skip leaves such rows out"
                raise DataError(place, fault.rule, f"{fault.fix}, or {skip}" if fault.fix else skip)
            # Now and then before the end, so that a wrong setting does not cost an hour.
            if self.counts.total() % 1000 == 0:
                self.check()
        return Rejected(where=where, reason=fault.reason, detail=fault.rule)

    def check(self) -> None:
        """Raise when the share of faulty rows is too large.

        Raises:
            DataError: with the counts by reason.
        """
        n_faults = self.counts.total()
        if self.n_rows >= _MIN_ROWS_FOR_RATIO and n_faults > self.max_ratio * self.n_rows:
            reasons = ", ".join(f"{count:,} {reason}" for reason, count in self.counts.most_common())
            raise DataError(
                f"source={self.source}: {n_faults:,} of {self.n_rows:,} rows are faulty ({reasons})",
                f"that is {n_faults / self.n_rows:.1%}, more than source.max_rejected_ratio={self.max_ratio}",
                "source.on_error=fail shows the first of them",
            )


def checked_text(text: str, max_bytes: int) -> str | Fault:
    """``text`` with plain newlines, or what keeps it from being a document of at most ``max_bytes`` UTF-8 bytes."""
    text = normalise_newlines(text)
    if len(text) > max_bytes // 4:  # a character has at most four bytes
        size = len(text.encode("utf-8", "surrogatepass"))
        if size > max_bytes:
            return too_large(size, max_bytes)
    return text_fault(text) or text


def too_large(n_bytes: int, max_bytes: int) -> Fault:
    """The fault of a row with more bytes than ``source.max_doc_bytes``."""
    return Fault(
        reason="too large",
        rule=f"has {n_bytes:,} bytes, more than source.max_doc_bytes={max_bytes}",
        fix=f"source.max_doc_bytes={n_bytes}",
    )


def hash_files(files: Mapping[str, Path]) -> dict[str, str]:
    """SHA-256 of every file, by name.

    Raises:
        DataError: one cannot be read.
    """
    hashes = {}
    for name, path in files.items():
        with read_errors(path):
            hashes[name] = sha256_file(path)
    return hashes


def is_words(value: object) -> bool:
    """Whether it is a string or a list of strings, none of them empty."""
    words = [value] if isinstance(value, str) else value
    return isinstance(words, list) and bool(words) and all(isinstance(word, str) and word for word in words)


def is_number(value: object, least: float = -math.inf, most: float = math.inf) -> bool:
    """Whether it is a number within bounds."""
    return isinstance(value, int | float) and not isinstance(value, bool) and least <= value <= most
