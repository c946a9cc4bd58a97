"""Comparing what lies on the disk with the hashes that were noted."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lumi.lineage.node import FileCheck, Node
from lumi.manifest import Manifest, sha256_file
from lumi.strangers import is_inside


def check_files(folder: Path, manifest: Manifest, *, full: bool) -> list[FileCheck]:
    """Every file of an artefact: its size always, its hash when ``full``."""
    return [_check(folder, name, entry, full=full) for name, entry in manifest.files.items()]


def _check(folder: Path, name: str, entry: Mapping[str, Any], *, full: bool) -> FileCheck:
    path, expected = folder / name, entry["sha256"]
    if not is_inside(folder, name):
        return FileCheck(path=path, expected=expected, actual=None, state="missing")
    if not full and path.stat().st_size == entry["bytes"]:
        return FileCheck(path=path, expected=expected, actual=None, state="same")
    return compare(path, expected)


def compare(path: Path, expected: str) -> FileCheck:
    """One file, hashed."""
    if not path.is_file():
        return FileCheck(path=path, expected=expected, actual=None, state="missing")
    actual = sha256_file(path)
    return FileCheck(path=path, expected=expected, actual=actual, state="verified" if actual == expected else "changed")


def judge(node: Node, checks: Sequence[FileCheck], *, full: bool) -> None:
    """Give a node the state of its files; the first one that differs is its problem."""
    node.files = list(checks)
    bad = [one for one in checks if one.state in ("missing", "changed")]
    if not bad:
        node.state = "verified" if full else "same"
        return
    first = bad[0]
    node.state = "missing" if all(one.state == "missing" for one in checks) else "changed"
    others = f" (and {len(bad) - 1} more of its files)" if len(bad) > 1 else ""
    if first.state == "missing":
        node.problem = f"{first.path} is not here, it had sha256 {first.expected[:12]}…{others}"
    else:
        assert first.actual is not None, "a file that changed was hashed"
        node.problem = f"{first.path} has sha256 {first.actual[:12]}…, expected {first.expected[:12]}…{others}"
