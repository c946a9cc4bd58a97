"""The data card: what a person wants to know of a corpus before training on it."""

import dataclasses
import json
from array import array
from collections import Counter
from typing import Any

from lumi import __version__
from lumi.corpus.document import Document

_QUANTILES = {"shortest": 0.0, "10 %": 0.1, "25 %": 0.25, "median": 0.5, "75 %": 0.75, "90 %": 0.9, "longest": 1.0}
_MOST_SETTINGS = 30


@dataclasses.dataclass(kw_only=True)
class Tally:
    """Counts over the documents of a corpus while it is written.

    Attributes:
        n_documents: kept documents.
        n_chars: their characters.
        n_bytes: their UTF-8 bytes.
        bits: sum of their information content, None as soon as one of them does not know it.
        n_duplicates: documents left out because their text had been there already.
        rejected: rows left out by the source, by reason.
        lengths: characters of each kept document (8 bytes a document).
        excerpt: the beginning of the first document.
    """

    n_documents: int = 0
    n_chars: int = 0
    n_bytes: int = 0
    bits: float | None = 0.0
    n_duplicates: int = 0
    rejected: Counter[str] = dataclasses.field(default_factory=Counter)
    lengths: "array[int]" = dataclasses.field(default_factory=lambda: array("Q"))
    excerpt: str = ""

    def add(self, document: Document, n_bytes: int) -> None:
        """Count one kept document of ``n_bytes`` UTF-8 bytes."""
        self.excerpt = self.excerpt or document.text[:400]
        self.n_documents += 1
        self.n_chars += len(document.text)
        self.n_bytes += n_bytes
        self.lengths.append(len(document.text))
        self.bits = None if self.bits is None or document.bits is None else self.bits + document.bits

    def info(self) -> dict[str, Any]:
        """The counts under the names that they have in the manifest."""
        return {
            "documents": self.n_documents,
            "chars": self.n_chars,
            "bytes": self.n_bytes,
            "bits": self.bits,
            "duplicates": self.n_duplicates,
            "rejected": dict(sorted(self.rejected.items())),
            "length_quantiles": self._quantiles(),
        }

    def _quantiles(self) -> dict[str, int]:
        """Characters of the document at some places of the order by length (nearest rank)."""
        lengths = sorted(self.lengths)
        return {name: lengths[round(share * (len(lengths) - 1))] for name, share in _QUANTILES.items()}


def data_card(info: dict[str, Any], settings: dict[str, Any], excerpt: str) -> str:
    """The text of DATA_CARD.md: the same corpus gives the same card, so it has no date.

    Args:
        info: as in the manifest: name, licence, notes and `Tally.info`.
        settings: what the corpus was made from.
        excerpt: the beginning of its first document.
    """
    left_out = {"exact duplicate": info["duplicates"], **info["rejected"]}
    facts = {
        "Licence": info["licence"],
        "Notes": info["notes"] or "none",
        "Documents": f"{info['documents']:,}",
        "Characters": f"{info['chars']:,}",
        "Bytes (UTF-8)": f"{info['bytes']:,} ({info['bytes'] / 1e6:,.2f} MB)",
        "Rows left out": f"{sum(left_out.values()):,}",
    }
    if info["bits"] is not None:
        facts["Entropy"] = f"{info['bits'] / info['bytes']:.4f} bits per byte, exact: no model does better on average"
    sections = [
        f"# Corpus {info['name']}",
        _table(("", ""), facts),
        "## Length of a document in characters",
        _table(("", "characters"), {name: f"{length:,}" for name, length in info["length_quantiles"].items()}),
        "## Left out",
        _table(("reason", "rows"), {reason: f"{count:,}" for reason, count in left_out.items()}),
        "Each rejected row is named in `rejected.jsonl`." if info["rejected"] else "No row was rejected.",
        "## The first document begins",
        "\n".join(f"    {line}" for line in excerpt.splitlines()),
        "## How it was made",
        f"By Lumi {__version__}, from the settings below. The same settings give the same bytes.",
        "```json\n" + json.dumps(_shortened(settings), indent=2, ensure_ascii=False) + "\n```",
    ]
    return "\n\n".join(sections) + "\n"


def _table(head: tuple[str, str], rows: dict[str, str]) -> str:
    lines = [f"| {head[0]} | {head[1]} |", "|---|---|"]
    # A bar or a newline in a cell would break the table.
    cells = ((key, " ".join(value.replace("|", "\\|").split())) for key, value in rows.items())
    return "\n".join(lines + [f"| {key} | {value} |" for key, value in cells])


def _shortened(settings: dict[str, Any]) -> dict[str, Any]:
    """``settings`` with long maps cut: the manifest has them whole."""
    short = dict(settings)
    for key, value in settings.items():
        if isinstance(value, dict) and len(value) > _MOST_SETTINGS:
            kept = dict(list(value.items())[:_MOST_SETTINGS])
            short[key] = {**kept, "…": f"{len(value) - _MOST_SETTINGS:,} more in MANIFEST.json"}
    return short
