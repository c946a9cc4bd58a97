"""The report as one HTML file that needs no other: pictures inside, both colour schemes, tables that a click sorts.

Its content security policy lets it load nothing and run nothing but the few lines below, whatever a run is called.
"""

import base64
import hashlib
import html
from collections.abc import Sequence

from lumi.eval.study.document import (
    Block,
    Cell,
    Commands,
    Document,
    Heading,
    Notes,
    Paragraph,
    Picture,
    Pieces,
    Strong,
    Table,
)

_STYLE = """
:root { color-scheme: light dark; --ground: light-dark(#fff, #161616); --ink: light-dark(#1f2937, #e5e5e2);
  --soft: light-dark(#5b6472, #a3a39d); --line: light-dark(#d6d9de, #3a3a38); --best: light-dark(#eef4fb, #1d2a38);
  --sunken: light-dark(#f5f6f7, #202020); --accent: light-dark(#0a5c99, #7fbce8); }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink); line-height: 1.5;
  font-family: Charter, "Bitstream Charter", "Sitka Text", Cambria, Georgia, "DejaVu Serif", serif; }
main { max-width: 64rem; margin: 0 auto; padding: 3rem 1.25rem 5rem; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .25rem; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 2.6rem 0 .6rem; }
p, ul { max-width: 46rem; margin: .6rem 0; overflow-wrap: anywhere; }
li { margin: .3rem 0; }
.subtitle { color: var(--soft); margin: 0 0 2rem; }
table, figcaption, .caption, pre, .subtitle {
  font-family: system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
.scroll { overflow-x: auto; margin: 0 0 1.2rem; }
table { border-collapse: collapse; font-size: .82rem; font-variant-numeric: tabular-nums; min-width: 60%;
  border-top: 2px solid var(--ink); border-bottom: 2px solid var(--ink); }
.caption { margin: 1.4rem 0 .5rem; font-size: .84rem; color: var(--soft); }
th, td { text-align: right; padding: .28rem .5rem; white-space: nowrap; }
th.word, td.word { text-align: left; }
td.long { white-space: normal; overflow-wrap: anywhere; min-width: 14rem; }
thead th { border-bottom: 1px solid var(--ink); vertical-align: bottom; font-weight: 600; padding: 0; }
thead button { all: unset; cursor: pointer; padding: .28rem .5rem; display: inline-block; }
thead button:focus-visible { outline: 2px solid var(--accent); outline-offset: -2px; }
thead button:hover { color: var(--accent); }
th[aria-sort] button::after { content: " \\2191" / ""; } th[aria-sort="descending"] button::after { content: " \\2193" / ""; }
tbody tr + tr td { border-top: 1px solid var(--line); }
tr.best td { background: var(--best); }
.figures { display: grid; grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 1.5rem; margin: 1.5rem 0; align-items: start; }
figure { margin: 0; min-width: 0; } figure.wide { grid-column: 1 / -1; }
figure img { width: 100%; height: auto; display: block; background: #fff; border-radius: 4px; }
@media (prefers-color-scheme: dark) { figure img { padding: .6rem; filter: brightness(.92); } }
figcaption { font-size: .84rem; color: var(--soft); margin-top: .5rem; max-width: 46rem; overflow-wrap: anywhere; }
figcaption b, .caption b { color: var(--ink); }
pre { background: var(--sunken); padding: .8rem 1rem; overflow-x: auto;
  font: .8rem/1.5 ui-monospace, Menlo, Consolas, monospace; border-radius: 4px; }
@media (max-width: 44rem) { .figures { grid-template-columns: 1fr; } }
@media print { main { max-width: none; padding: 0; } thead button::after { display: none; }
  .scroll { overflow: visible; } figure { break-inside: avoid; } }
"""

_SCRIPT = """
for (const button of document.querySelectorAll("thead button")) button.addEventListener("click", () => {
  const head = button.closest("th"), body = head.closest("table").tBodies[0];
  const place = head.cellIndex, down = head.getAttribute("aria-sort") === "ascending";
  for (const other of head.parentNode.cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", down ? "descending" : "ascending");
  const key = (row) => row.cells[place].dataset.key, text = (row) => row.cells[place].textContent;
  const order = (a, b) => key(a) && key(b) ? key(a) - key(b)
    : key(a) ? -1 : key(b) ? 1 : text(a).localeCompare(text(b), "en", { numeric: true });
  const rows = [...body.rows].sort((a, b) => down ? order(b, a) : order(a, b));
  body.append(...rows);
});
"""

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:;
  style-src 'sha256-{style_hash}'; script-src 'sha256-{script_hash}'">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<main>
<h1>{title}</h1>
<p class="subtitle">{subtitle}</p>
{body}
</main>
<script>{script}</script>
</body>
</html>
"""


_LONG = 44
"""Letters of a cell that may take more than one line."""


def render_page(document: Document) -> str:
    """The document as one HTML file."""
    return _PAGE.format(
        title=html.escape(document.title),
        subtitle=html.escape(document.subtitle),
        body="\n".join(_blocks(document.blocks)),
        style=_STYLE,
        script=_SCRIPT,
        style_hash=_hash(_STYLE),
        script_hash=_hash(_SCRIPT),
    )


def _blocks(blocks: Sequence[Block]) -> list[str]:
    """Blocks in their order; pictures that follow each other stand in one grid."""
    parts: list[str] = []
    tables, pictures, is_open = 0, 0, False
    for block in blocks:
        if is_open and not isinstance(block, Picture):
            parts.append("</div>")
            is_open = False
        if isinstance(block, Picture):
            pictures += 1
            parts += [] if is_open else ['<div class="figures">']
            is_open = True
            parts.append(_picture(block, pictures))
        elif isinstance(block, Table):
            tables += 1
            parts.append(_table(block, tables))
        else:
            parts.append(_text_block(block))
    return parts + (["</div>"] if is_open else [])


def _text_block(block: Heading | Paragraph | Notes | Commands) -> str:
    if isinstance(block, Heading):
        return f"<h2>{html.escape(block.text)}</h2>"
    if isinstance(block, Notes):
        return "<ul>" + "".join(f"<li>{_inline(item)}</li>" for item in block.items) + "</ul>"
    if isinstance(block, Commands):
        return "<pre>" + html.escape("\n".join(block.lines)) + "</pre>"
    return f"<p>{_inline(block.pieces)}</p>"


def _inline(pieces: Pieces) -> str:
    return "".join(f"<b>{_text(piece.text)}</b>" if isinstance(piece, Strong) else _text(piece) for piece in pieces)


def _text(text: str) -> str:
    return html.escape(text).replace(" %", "\u00a0%")  # no line ends between a number and its sign


def _picture(block: Picture, number: int) -> str:
    data = base64.b64encode(block.png).decode()
    alt = html.escape("".join(piece.text if isinstance(piece, Strong) else piece for piece in block.caption))
    kind = ' class="wide"' if block.is_wide else ""
    caption = f"<figcaption><b>Figure {number}.</b> {_inline(block.caption)}</figcaption>"
    return f'<figure{kind}><img alt="{alt}" src="data:image/png;base64,{data}">{caption}</figure>'


def _table(block: Table, number: int) -> str:
    head = "".join(
        f'<th scope="col"{_classes(place < block.n_labels, name)}><button type="button">{html.escape(name)}</button></th>'
        for place, name in enumerate(block.header)
    )
    rows = []
    for row in block.rows:
        kind = ' class="best"' if block.marks_best and any(cell.is_strong for cell in row) else ""
        rows.append(
            f"<tr{kind}>"
            + "".join(_cell(cell, _classes(place < block.n_labels, cell.text)) for place, cell in enumerate(row))
            + "</tr>"
        )
    caption = f'<p class="caption" id="table-{number}"><b>Table {number}.</b> {_inline(block.caption)}</p>'
    table = (
        f'<table aria-labelledby="table-{number}"><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>'
    )
    return f'{caption}<div class="scroll">{table}</div>'


def _classes(is_word: bool, text: str) -> str:
    if not is_word:
        return ""
    return ' class="word long"' if len(text) > _LONG else ' class="word"'


def _cell(cell: Cell, classes: str) -> str:
    key = "" if cell.key is None else f' data-key="{cell.key!r}"'
    text = html.escape(cell.text)
    return f"<td{classes}{key}>{f'<b>{text}</b>' if cell.is_strong else text}</td>"


def _hash(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
