"""The data card: what a person wants to know of a corpus before training on it."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from lumi import __version__

_MOST_SETTINGS = 30


def data_card(
    info: dict[str, Any], settings: dict[str, Any], excerpts: Mapping[str, str], reports: Sequence[str], picture: str
) -> str:
    """The text of DATA_CARD.md: the same corpus gives the same card, so it has no date.

    Args:
        info: as in the manifest.
        settings: what the corpus was made from.
        excerpts: source → the beginning of its first document.
        reports: sections that the steps contribute.
        picture: file of the histogram.
    """
    sections = [
        f"# Corpus {info['name']}",
        table(("", ""), _facts(info, settings).items()),
        "## Sources",
        _sources(info),
        *_notes(info),
        "## What was left out",
        _left_out(info),
        *reports,
        "## How long the documents are",
        f"![length of the documents]({picture})",
        _lengths(info),
        "## How the documents begin",
        *(f"**{name}**\n\n{_quoted(excerpt)}" for name, excerpt in excerpts.items() if excerpt),
        "## How it was made",
        f"By Lumi {__version__}, from the settings below. The same settings give the same bytes.",
        "```json\n" + json.dumps(_shortened(settings), indent=2, ensure_ascii=False) + "\n```",
    ]
    return "\n\n".join(sections) + "\n"


def table(head: Sequence[str], rows: Any) -> str:
    """A Markdown table; a bar or a newline in a cell would break it."""
    cells = [[" ".join(str(cell).replace("|", "\\|").split()) for cell in row] for row in (head, *rows)]
    lines = ["| " + " | ".join(row) + " |" for row in cells]
    # Figures stand to the right, so that their digits line up.
    marks = ["---" if column == 0 or not _is_figure(cells[1:], column) else "---:" for column in range(len(head))]
    return "\n".join([lines[0], "|" + "|".join(marks) + "|", *lines[1:]])


def _is_figure(rows: Sequence[Sequence[str]], column: int) -> bool:
    return bool(rows) and all(not row[column] or row[column][0].isdigit() for row in rows)


def _facts(info: dict[str, Any], settings: dict[str, Any]) -> dict[str, str]:
    n_left_out = info["rows"] - info["documents"]
    facts = {
        "Documents": f"{info['documents']:,}",
        "Characters": f"{info['chars']:,}",
        "Bytes (UTF-8)": f"{info['bytes']:,} ({info['bytes'] / 1e6:,.2f} MB)",
        "Tokens": f"{info['tokens']:,} ({settings.get('counter', {}).get('tokens', 'estimated')})",
        "Rows read": f"{info['rows']:,}",
        "Rows left out": f"{n_left_out:,} ({n_left_out / max(1, info['rows']):.1%})",
    }
    if info["bits"] is not None:
        facts["Entropy"] = f"{info['bits'] / info['bytes']:.4f} bits per byte, exact: no model does better on average"
    return facts


def _sources(info: dict[str, Any]) -> str:
    head = ("source", "category", "licence", "documents", "MB", "share", "tokens", "budget")
    rows = [
        (
            name,
            facts["category"],
            facts["licence"],
            f"{facts['documents']:,}",
            f"{facts['bytes'] / 1e6:,.2f}",
            f"{facts['bytes'] / max(1, info['bytes']):.1%}",
            f"{facts['tokens']:,}",
            _budget(facts),
        )
        for name, facts in info["sources"].items()
    ]
    return table(head, rows)


def _budget(facts: dict[str, Any]) -> str:
    if facts["budget"] is None:
        return "all"
    return f"{facts['budget']:,}" if facts["tokens"] >= facts["budget"] else f"{facts['budget']:,} (it has no more)"


def _notes(info: dict[str, Any]) -> list[str]:
    lines = [f"- **{name}**: {facts['notes']}" for name, facts in info["sources"].items() if facts["notes"]]
    return ["\n".join(lines)] if lines else []


def _left_out(info: dict[str, Any]) -> str:
    reasons = {**info["rejected"], **info["dropped"]}
    if not reasons:
        return "Nothing: every row became a document."
    names = list(info["sources"])
    rows = []
    for reason, count in sorted(reasons.items(), key=lambda item: -item[1]):
        kind = "rejected" if reason in info["rejected"] else "dropped"
        n_bytes = info["dropped_bytes"].get(reason)
        megabytes = f"{n_bytes / 1e6:,.2f}" if n_bytes is not None else ""
        each = [f"{n:,}" if (n := info["sources"][name][kind].get(reason, 0)) else "" for name in names]
        rows.append((reason, f"{count:,}", f"{count / info['rows']:.2%}", megabytes, *each))
    where = "Every rejected row is named in `rejected/`, and `dropped/` holds examples for every reason."
    return table(("reason", "rows", "of all", "MB", *names), rows) + f"\n\n{where}"


def _lengths(info: dict[str, Any]) -> str:
    names = list(info["length_quantiles"])
    rows = [
        (source, *(f"{facts['length_quantiles'].get(name, 0):,}" for name in names))
        for source, facts in info["sources"].items()
    ]
    return table(("characters", *names), rows)


def _quoted(excerpt: str) -> str:
    return "\n".join(f"    {line}" for line in excerpt.splitlines())


def _shortened(settings: Any) -> Any:
    """``settings`` with long maps cut, however deep: the manifest has them whole."""
    if not isinstance(settings, dict):
        return settings
    kept = {key: _shortened(value) for key, value in list(settings.items())[:_MOST_SETTINGS]}
    more = len(settings) - len(kept)
    return {**kept, "…": f"{more:,} more in MANIFEST.json"} if more else kept
