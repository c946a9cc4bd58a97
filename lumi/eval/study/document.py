"""A report as a list of blocks, and the same blocks as Markdown. What others wrote (names, errors) is text, never markup."""

import dataclasses
import re
from collections.abc import Sequence

from lumi.eval.table import markdown_table


@dataclasses.dataclass(frozen=True)
class Heading:
    """Of a section."""

    text: str


@dataclasses.dataclass(frozen=True)
class Strong:
    """Emphasised words in a paragraph."""

    text: str


Pieces = Sequence[str | Strong]


@dataclasses.dataclass(frozen=True)
class Paragraph:
    """Running text."""

    pieces: Pieces


@dataclasses.dataclass(frozen=True)
class Notes:
    """A list of remarks."""

    items: Sequence[Pieces]


@dataclasses.dataclass(frozen=True)
class Commands:
    """What to type."""

    lines: Sequence[str]


@dataclasses.dataclass(frozen=True)
class Cell:
    """Of a table.

    Attributes:
        text: as it is shown.
        key: the unrounded number to sort by; None sorts by the text.
        is_strong: the row's or column's best.
    """

    text: str
    key: float | None = None
    is_strong: bool = False


@dataclasses.dataclass(frozen=True)
class Table:
    """Numbered, with its caption above it; the first ``n_labels`` columns are words, the others numbers.

    ``marks_best`` tints the rows that have a strong cell.
    """

    caption: Pieces
    header: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    n_labels: int = 1
    marks_best: bool = False


@dataclasses.dataclass(frozen=True)
class Picture:
    """Numbered, with its caption below it. ``is_wide`` takes the whole page, others stand two beside each other."""

    file: str
    png: bytes
    caption: Pieces
    is_wide: bool = False


Block = Heading | Paragraph | Notes | Commands | Table | Picture


@dataclasses.dataclass(frozen=True)
class Document:
    """A title, a line under it, and blocks."""

    title: str
    subtitle: str
    blocks: Sequence[Block]


def render_markdown(document: Document) -> str:
    """The document as GitHub's Markdown."""
    parts = [f"# {markdown_text(document.title)}", markdown_text(document.subtitle)]
    tables = pictures = 0
    for block in document.blocks:
        if isinstance(block, Table):
            tables += 1
            parts.append(f"**Table {tables}.** {_inline(block.caption)}\n\n{_table(block)}")
        elif isinstance(block, Picture):
            pictures += 1
            alt = markdown_text("".join(plain(block.caption)).partition(". ")[0])
            parts.append(f"![{alt}]({block.file})\n\n**Figure {pictures}.** {_inline(block.caption)}")
        else:
            parts.append(_text_block(block))
    return "\n\n".join(parts) + "\n"


def plain(pieces: Pieces) -> list[str]:
    """The words of a paragraph."""
    return [piece.text if isinstance(piece, Strong) else piece for piece in pieces]


def markdown_text(text: str) -> str:
    """Text that Markdown shows as it is: whatever could begin markup, a link or a mention becomes a character reference."""
    text = re.sub(r"[\x00-\x1f\x7f\u2028\u2029]+", " ", text)
    text = re.sub(r"[&<>\\`*\[\]|~#@$]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])|:(?=//)", _reference, text)
    return re.sub(r"(?i)(?<=www)\.", _reference, text)


def _reference(found: re.Match[str]) -> str:
    return f"&#{ord(found[0])};"


def _text_block(block: Heading | Paragraph | Notes | Commands) -> str:
    if isinstance(block, Heading):
        return f"## {markdown_text(block.text)}"
    if isinstance(block, Notes):
        return "\n".join(f"- {_inline(item)}" for item in block.items)
    if isinstance(block, Commands):
        text = "\n".join(re.sub(r"[\r\n]+", " ", line) for line in block.lines)
        fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
        return f"{fence}bash\n{text}\n{fence}"
    return _inline(block.pieces)


def _inline(pieces: Pieces) -> str:
    return "".join(_strong(piece.text) if isinstance(piece, Strong) else markdown_text(piece) for piece in pieces)


def _strong(text: str) -> str:
    """Bold; spaces stay outside, where Markdown wants them."""
    words = text.strip()
    before, _, after = text.partition(words) if words else (text, "", "")
    return f"{before}**{markdown_text(words)}**{after}" if words else text


def _table(table: Table) -> str:
    rows = [[_strong(cell.text) if cell.is_strong else markdown_text(cell.text) for cell in row] for row in table.rows]
    return markdown_table([markdown_text(name) for name in table.header], rows)
