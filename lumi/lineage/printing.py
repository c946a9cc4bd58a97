"""Windows of a batch in a terminal."""

from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from lumi.lineage.documents import ReadDocument, ReadWindow
from lumi.lineage.links import short

_HEAD, _TAIL = 160, 60
"""Characters of a long text that are shown of its beginning and its end."""


def print_windows(console: Console, heading: str, windows: Sequence[ReadWindow]) -> None:
    """A block for each window, a line for each document, an excerpt of its text below."""
    console.print(Text(heading, "bold"))
    for window in windows:
        place = [f"micro-batch {window.micro_batch}"] if windows[-1].micro_batch else []
        place += [f"rank {window.rank}"] if any(one.rank for one in windows) else []
        where = f"window {window.window:,}" + (f" piece {window.piece}" if window.piece else "")
        line = Text("\n").append(" · ".join([*place, f"row {window.row}"]), "bold cyan")
        line.append(f" · {window.source} {where}")
        if window.split_tokens is not None:
            line.append(f" · tokens {window.split_tokens[0]:,} to {window.split_tokens[1]:,} of the stream", "dim")
        console.print(line.append(f" · {short(window.folder)}", "dim"))
        for document in window.documents:
            _print_document(console, document)
    documents = sum(len(window.documents) for window in windows)
    tokens = sum(document.tokens for window in windows for document in window.documents)
    learnt = sum(document.supervised for window in windows for document in window.documents)
    console.print(
        f"\n{len(windows)} windows, {documents} documents or parts, {tokens:,} tokens, {learnt:,} learnt from"
    )


def _print_document(console: Console, document: ReadDocument) -> None:
    name = document.id or f"document {document.number:,}"
    part = (
        f"{document.tokens} tokens"
        if document.tokens == document.of_tokens
        else f"tokens {document.first:,} to {document.first + document.tokens:,} of {document.of_tokens:,}"
    )
    line = Text("  ").append(name, "green")
    if document.role:
        line.append(f" {document.role}", "bold")
    number = f" · number {document.number:,}" if document.id else ""
    console.print(line.append(f"{number} · {part}, {document.supervised} learnt from", "dim"))
    console.print(Text("    ").append(excerpt(document.text)))


def excerpt(text: str) -> str:
    """Beginning and end of a text on one line."""
    line = text.replace("\n", "⏎")
    return line if len(line) <= _HEAD + _TAIL + 3 else f"{line[:_HEAD]} … {line[-_TAIL:]}"
