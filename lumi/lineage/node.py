"""A link of the chain: what it is, which hash names it, whether it is still there and still the same."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

State = Literal["verified", "same", "missing", "changed", "unproven", "generated", "read"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class FileCheck:
    """A file beside the hash that its manifest, or whoever read it, noted.

    Attributes:
        path: of the file.
        expected: SHA-256 that was noted.
        actual: SHA-256 of its bytes now; None where it is missing or was not hashed.
        state: what comes of comparing.
    """

    path: Path
    expected: str
    actual: str | None
    state: State


@dataclasses.dataclass(kw_only=True)
class Node:
    """One thing that others were made from, or that was made.

    Attributes:
        kind: result, report, run, checkpoint, export, packed, tokenizer, corpus, source …
        name: as people say it.
        path: where it was looked for; None for what lies nowhere.
        sha256: what names its content.
        state: whether it is there and the same.
        problem: what is wrong, with expected and actual hash; empty where nothing is.
        fix: how to get it back.
        made_with: settings that matter most, in words.
        code: which code made it, in words.
        made_by: the same as it was recorded, with package versions.
        settings: all settings, as recorded.
        files: what was compared.
        parents: role and what it was made from.
        optional: whether the chain holds without it: a source file whose documents the corpus has.
    """

    kind: str
    name: str
    path: Path | None = None
    sha256: str | None = None
    state: State = "read"
    problem: str = ""
    fix: str = ""
    made_with: str = ""
    code: str = "unknown"
    made_by: dict[str, Any] = dataclasses.field(default_factory=dict)
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    files: list[FileCheck] = dataclasses.field(default_factory=list)
    parents: list[tuple[str, "Node"]] = dataclasses.field(default_factory=list)
    optional: bool = False

    @property
    def broken(self) -> bool:
        """Whether the chain breaks here."""
        return self.state == "changed" or (self.state == "missing" and not self.optional)

    def chain(self) -> Iterator["Node"]:
        """This node and everything it was made from, each once."""
        seen: set[int] = set()
        stack = [self]
        while stack:
            node = stack.pop()
            if id(node) in seen:
                continue
            seen.add(id(node))
            yield node
            stack += [parent for _, parent in reversed(node.parents)]

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON, nested as the tree is."""
        return {
            "kind": self.kind,
            "name": self.name,
            "path": None if self.path is None else str(self.path),
            "sha256": self.sha256,
            "state": self.state,
            "problem": self.problem,
            "fix": self.fix,
            "made_with": self.made_with,
            "made_by": self.made_by,
            "settings": self.settings,
            "files": [
                {"path": str(one.path), "expected": one.expected, "actual": one.actual, "state": one.state}
                for one in self.files
            ],
            "made_from": [{"role": role, **parent.as_dict()} for role, parent in self.parents],
        }
