"""The chain as a person reads it: a tree for why=…, a table for verify=…."""

from collections.abc import Iterator

from rich.text import Text

from lumi.lineage.links import short
from lumi.lineage.node import Node, State

_MARKS: dict[State, tuple[str, str]] = {
    "verified": ("✓ verified", "green"),
    "same": ("✓ there", "green"),
    "missing": ("✗ missing", "bold red"),
    "changed": ("✗ changed", "bold red"),
    "unproven": ("? there, not proven", "yellow"),
    "generated": ("generated", "green"),
    "read": ("", ""),
}
_FILES_SHOWN = 5


def tree(root: Node) -> Iterator[Text]:
    """The lines of a tree; what was shown before is only named."""
    yield from _lines(root, "", "", "", set(), "")


def _lines(node: Node, role: str, first: str, rest: str, seen: set[int], code: str) -> Iterator[Text]:
    mark, style = _mark(node)
    line = Text(first)
    if role and role != node.kind:
        line.append(f"{role}: ", "dim")
    line.append(f"{node.kind} ", "bold").append(node.name, "bold cyan")
    if node.sha256:
        line.append(f"  {node.sha256[:12]}", "dim")
    line.append(f"  {mark}", style)
    again = id(node) in seen and bool(node.parents)
    if again:
        yield line.append("  (as above)", "dim")
        return
    seen.add(id(node))
    yield line
    bar = rest + ("│  " if node.parents else "   ")
    own_code = _code(node)
    for text, colour in _details(node, own_code if own_code != code else ""):
        yield Text(bar, "").append(text, colour)
    for number, (parent_role, parent) in enumerate(node.parents):
        is_last = number == len(node.parents) - 1
        yield from _lines(
            parent,
            parent_role,
            rest + ("└─ " if is_last else "├─ "),
            rest + ("   " if is_last else "│  "),
            seen,
            own_code or code,
        )


def _mark(node: Node) -> tuple[str, str]:
    if node.state == "missing" and node.optional:
        return "– no longer here", "yellow"
    if node.state == "unproven" and node.path is None:
        return "not on this disk", "yellow"
    return _MARKS[node.state]


def _code(node: Node) -> str:
    """Which code made it; said only where it is another one than what was made from it."""
    if not node.code or node.state == "missing":
        return ""
    versions = node.made_by.get("versions", {})
    return f"code {node.code}" + (f" · torch {versions['torch']}" if "torch" in versions else "")


def _details(node: Node, code: str) -> Iterator[tuple[str, str]]:
    if node.made_with:
        yield node.made_with, ""
    if node.path is not None and node.state != "missing":
        yield str(short(node.path)), "dim"
    if code:
        yield code, "dim"
    bad = [one for one in node.files if one.state in ("missing", "changed")]
    shown = [*bad, *(one for one in node.files if node.kind == "source" and one not in bad)]
    for one in shown[:_FILES_SHOWN]:
        mark, style = _MARKS[one.state]
        yield f"{short(one.path)}  {one.expected[:12]}  {mark}", style if one.state in ("missing", "changed") else "dim"
    if len(shown) > _FILES_SHOWN:
        yield f"… and {len(shown) - _FILES_SHOWN:,} more files", "dim"
    if node.problem:
        style = "yellow" if not node.broken else "bold red"
        yield node.problem, style
        if node.fix:
            yield f"→ {node.fix}", style


def table(root: Node) -> list[list[str]]:
    """A row each: kind, name, files, bytes hashed, hash, state; for verify=…."""
    rows = []
    for node in root.chain():
        checked = len([one for one in node.files if one.actual is not None])
        mark, _ = _mark(node)
        found = mark.removeprefix("✓ ").removeprefix("✗ ").removeprefix("? ").removeprefix("– ")
        where = "" if node.path is None else str(short(node.path))
        rows.append([node.kind, where or node.name, (node.sha256 or "")[:12], f"{checked:,}", found or "read"])
    return rows
