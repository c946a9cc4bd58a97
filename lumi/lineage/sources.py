"""Where documents and examples come from in the end: files, other corpora, the hub, or settings alone."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lumi.lineage.checks import compare, judge
from lumi.lineage.links import Link, near
from lumi.lineage.node import FileCheck, Node
from lumi.manifest import Manifest, fingerprint

if TYPE_CHECKING:
    from lumi.lineage.trace import Tracer

Said = Mapping[str, Any]


def source_nodes(folder: Path, manifest: Manifest, tracer: "Tracer") -> list[tuple[str, Node]]:
    """The sources of a corpus, of conversations or of pairs; other artefacts have none."""
    if manifest.kind == "corpus":
        said = manifest.settings["sources"]
    elif manifest.kind in ("chat", "preference"):
        said = {manifest.name: manifest.settings}
    else:
        return []
    return [("source", _source(name, one, folder, manifest, tracer)) for name, one in said.items()]


def _source(name: str, said: Said, folder: Path, manifest: Manifest, tracer: "Tracer") -> Node:
    root = Path(os.path.normpath(folder / manifest.places[name])) if name in manifest.places else None
    if "files" in said:
        return _files(name, said["files"], root, full=tracer.full)
    if said.get("kind") == "existing":
        contents = dict(said["sources"])
        fix = "restore the corpus that its documents were taken from"
        places = near(folder, [root] if root else [])
        return tracer.follow(
            Link(role="source", kind="corpus", name=name, places=places, expected=contents, by="content", fix=fix)
        )
    node = Node(kind="source", name=name, sha256=fingerprint(dict(said)), settings=dict(said), code="")
    if said.get("dataset"):
        node.state, node.made_with = (
            "unproven",
            f"hub {said['dataset']} at revision {said.get('revision') or 'unknown'}",
        )
    elif "python" in said or "docs_sha256" in said:
        node.state, node.made_with = "unproven", f"docstrings of Python {said.get('python', '')}".strip()
    else:
        node.state, node.made_with = "generated", _generated(said)
    return node


def _generated(said: Said) -> str:
    version = f"{said.get('source', 'generated')} version {said['version']}" if "version" in said else "generated"
    return f"{version} · seed {said.get('seed')}"


def _files(name: str, files: Mapping[str, str], root: Path | None, *, full: bool) -> Node:
    node = Node(kind="source", name=name, path=root, sha256=fingerprint(dict(files)), code="", optional=True)
    count = f"{len(files):,} {'file' if len(files) == 1 else 'files'}"
    node.made_with = count
    if root is None:
        node.state = "unproven"
        node.made_with = f"{count}; where they lay was not noted when this was made"
        return node
    judge(node, [_file(root / file, sha256, full=full) for file, sha256 in files.items()], full=full)
    if node.state == "missing":
        node.fix = "nothing needs them until the corpus is built again: it holds their documents"
    elif node.state == "changed":
        node.fix = "restore the file; a corpus that is built again from these files will be another one"
    return node


def _file(path: Path, sha256: str, *, full: bool) -> FileCheck:
    if full or not path.is_file():
        return compare(path, sha256)
    return FileCheck(path=path, expected=sha256, actual=None, state="same")
