"""``python evaluate.py why=runs/demo/eval/results.json``: from a number to the documents behind it."""

import json
import logging
from pathlib import Path
from typing import Any

from rich.console import Console

from lumi.errors import ConfigError, DataError
from lumi.lineage.node import Node
from lumi.lineage.trace import trace
from lumi.lineage.tree import tree
from lumi.manifest import write_atomic

log = logging.getLogger(__name__)


def why(settings: dict[str, Any]) -> Node:
    """Print the chain; with ``json=true`` as JSON, with ``out=`` as JSON to that file too.

    Raises:
        ConfigError: a setting is wrong.
        DataError: there is nothing to explain, or a link of the chain is broken.
    """
    path, full, as_json = settings["why"], settings["verify"], settings["json"]
    if not isinstance(path, str):
        raise ConfigError(f"why={path}", "must be a result, a report, a run, an export or an artefact")
    for key in ("verify", "json"):
        if not isinstance(settings[key], bool):
            raise ConfigError(f"{key}={settings[key]}", "must be true or false")
    root = trace(Path(path), full=full)
    text = json.dumps(root.as_dict(), indent=2, ensure_ascii=False, default=str) + "\n"
    console = Console(highlight=False, soft_wrap=True)
    if as_json:
        console.out(text, highlight=False, end="")
    else:
        for line in tree(root):
            console.print(line)
    if settings["out"]:
        write_atomic(Path(settings["out"]), text)
        log.info("written: %s", settings["out"])
    refuse_broken(root)
    log.info("%s", _summary(root))
    return root


def _summary(root: Node) -> str:
    """How far the chain is known, in a line."""
    nodes = [node for node in root.chain() if node.files]
    hashed = sum(one.actual is not None for node in nodes for one in node.files)
    open_ends = [node for node in root.chain() if node.state in ("unproven", "missing")]
    text = f"the chain is whole: {len(nodes)} links, {hashed:,} files hashed"
    return text + (f"; not proven: {', '.join(f'{node.kind} {node.name}' for node in open_ends)}" if open_ends else "")


def refuse_broken(root: Node) -> None:
    """Raises DataError naming every link that is missing or changed, with what to do about the first."""
    broken = [node for node in root.chain() if node.broken]
    if not broken:
        return
    problems = "\n".join(f"  - {node.problem}" for node in broken[1:6])
    more = f"\n  … and {len(broken) - 6} more" if len(broken) > 6 else ""
    others = f"\nalso broken:\n{problems}{more}" if broken[1:] else ""
    raise DataError(broken[0].problem, "the chain breaks here", f"{broken[0].fix}{others}")
