"""``python prepare.py verify=runs/demo``: every byte of an artefact, and of all that it was made from, hashed again."""

import logging
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from lumi.lineage.node import Node
from lumi.lineage.trace import trace
from lumi.lineage.tree import table
from lumi.lineage.why import refuse_broken

log = logging.getLogger(__name__)

_UNFOLDED = 1000
"""Columns where nobody looks: a program that reads the table finds a row on a line."""


def verify_chain(path: Path) -> Node:
    """Hash, compare, print a table.

    Raises:
        DataError: a file differs from the hash that was noted, with both, or something that others were made from is gone.
    """
    start = time.monotonic()
    root = trace(path, full=True)
    shown = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("kind", "where", "hash", "files hashed", "found"):
        shown.add_column(name, overflow="fold", justify="right" if name == "files hashed" else "left")
    for row in table(root):
        shown.add_row(*row)
    console = Console(highlight=False)
    console.width = console.width if console.is_terminal else _UNFOLDED
    console.print(shown)
    files = [one for node in root.chain() for one in node.files if one.actual is not None]
    size = sum(one.path.stat().st_size for one in files if one.path.is_file())
    log.info("%d files, %.1f MB hashed in %.1f s", len(files), size / 1e6, time.monotonic() - start)
    refuse_broken(root)
    return root
