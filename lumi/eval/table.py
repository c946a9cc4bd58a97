"""Tables that read well as plain text and as Markdown."""

from collections.abc import Sequence


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table with aligned columns: the first to the left, the others, usually numbers, to the right."""
    cells = [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in (header, *rows)]
    widths = [max(3, *map(len, column)) for column in zip(*cells, strict=True)]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join(_aligned(row, widths) for row in (cells[0], rule, *cells[1:]))


def number(value: float | None, digits: int = 3) -> str:
    """A figure with its digits, or a dash where there is none."""
    return "–" if value is None else f"{value:,.{digits}f}"


def share(value: float | None, interval: Sequence[float] | None = None) -> str:
    """A share without a sign, ``92.0 %``, with its interval when given, ``92.0 % (85.0–95.9)``."""
    if value is None:
        return "–"
    around = "" if interval is None else f" ({100 * interval[0]:.1f}–{100 * interval[1]:.1f})"
    return f"{100 * value:.1f} %{around}"


def percent(value: float | None) -> str:
    """A share with a sign, ``+12.3 %``, or a dash."""
    return "–" if value is None else f"{100 * value:+.1f} %"


def _aligned(row: Sequence[str], widths: Sequence[int]) -> str:
    left = row[0].ljust(widths[0])
    right = [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
    return f"| {' | '.join((left, *right))} |"
