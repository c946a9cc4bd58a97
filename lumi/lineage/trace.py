"""Following hashes from anything that Lumi made back to the files that it began with."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lumi.errors import DataError
from lumi.lineage import words
from lumi.lineage.artefacts import links_of, links_of_facts
from lumi.lineage.checks import check_files, judge
from lumi.lineage.links import Link, headline, short
from lumi.lineage.node import Node
from lumi.lineage.sources import source_nodes
from lumi.manifest import MANIFEST, Manifest, read_manifest
from lumi.provenance import code_words
from lumi.strangers import read_object


def trace(path: Path, *, full: bool) -> Node:
    """The chain behind an artefact, a run, a result or a report.

    Args:
        path: of its folder, or of a file of it.
        full: hash every byte; else names and sizes are compared.

    Raises:
        DataError: nothing that Lumi made lies there.
    """
    from lumi.lineage.reports import trace_report  # it asks for runs and artefacts again

    tracer = Tracer(full=full)
    path = path.parent if path.name == MANIFEST else path
    if (path / MANIFEST).exists():
        return tracer.artefact(path)
    if path.name in ("run.json", "config.yaml", "metrics.csv") and (path.parent / "run.json").exists():
        path = path.parent
    if (path / "run.json").exists():
        return tracer.run(path)
    return trace_report(path, tracer)


class Tracer:
    """Builds nodes, each artefact once.

    Args:
        full: hash every byte.
    """

    def __init__(self, *, full: bool) -> None:
        self.full = full
        self._recipes: list[Path] = []  # settings of the models on the way here: how their data were made
        self._known: dict[Path, Node] = {}

    def artefact(self, folder: Path) -> Node:
        """A folder with a manifest, and everything behind it."""
        key = folder.resolve()
        if key not in self._known:
            self._known[key] = self._artefact(folder)
        return self._known[key]

    def follow(self, link: Link) -> Node:
        """The parent that a link means, or what is wrong with it."""
        wrong = ""
        for place in (place for place in link.places if (place / MANIFEST).exists()):
            try:
                manifest = read_manifest(place)
                if manifest.kind != link.kind:
                    continue  # a guess that was none
                differs = link.differs(manifest)
            except DataError as error:
                differs = f"cannot be followed: {error}"
            if differs:
                wrong = wrong or f"{place} {differs}"
                continue
            found = self.artefact(place)
            is_whole = found.state in ("verified", "same")
            return dataclasses.replace(found, state="unproven") if is_whole and not link.expected else found
        return self._lost(link, wrong)

    def run(self, folder: Path, *, checkpoint: bool = True) -> Node:
        """A run, with its newest checkpoint."""
        state = read_object(folder / "run.json")
        settings = state.get("settings", {})
        figures = ", ".join(
            f"{name} {state['metrics'][name]:.4f}" for name in _SHOWN if name in state.get("metrics", {})
        )
        node = Node(
            kind="run",
            name=folder.name,
            path=folder,
            made_with=" · ".join(part for part in (str(state.get("status")), figures, words.of_run(settings)) if part),
            made_by=_made_by(state),
            code=code_words(state.get("code")),
            settings=settings,
        )
        saved = sorted((folder / "checkpoints").glob("step_*.ckpt"))
        if checkpoint and saved:
            node.parents.append(("weights", self.artefact(saved[-1])))
        elif checkpoint:
            where = folder / "checkpoints"
            fix = "run the same command again to train on, or restore the folder"
            lost = Node(kind="checkpoint", name="weights", path=where, state="missing", fix=fix)
            lost.problem = f"{where} holds no checkpoint"
            node.parents.append(("weights", lost))
        return node

    def _artefact(self, folder: Path) -> Node:
        try:
            manifest = read_manifest(folder)
        except DataError as error:
            fix = error.fix or "make it again"
            problem = f"{error.found} {error.rule}"
            return Node(kind="artefact", name=folder.name, path=folder, state="changed", problem=problem, fix=fix)
        facts = _facts(folder, manifest)
        node = Node(
            kind="model" if "checkpoint" in manifest.places and manifest.kind == "checkpoint" else manifest.kind,
            name=_name(folder, manifest),
            path=folder,
            sha256=headline(manifest),
            made_with=_made_with(manifest, facts),
            code=code_words(manifest.made_by.get("code") or facts.get("code") or {"lumi": manifest.code_version}),
            made_by=manifest.made_by or _made_by(facts),
            settings=manifest.settings or facts.get("settings", {}),
        )
        judge(node, check_files(folder, manifest, full=self.full), full=self.full)
        node.fix = "" if not node.problem else "restore that file from a copy, or make the folder again"
        self._recipes.append(folder.parent.parent / "config.yaml")
        try:
            self._add_parents(node, folder, manifest, facts)
        except (DataError, KeyError, TypeError, AttributeError) as error:
            node.state = "changed"
            node.problem = node.problem or f"{folder} does not say what it was made from ({error!r})"
        finally:
            self._recipes.pop()
        return node

    def _add_parents(self, node: Node, folder: Path, manifest: Manifest, facts: Mapping[str, Any]) -> None:
        node.parents += source_nodes(folder, manifest, self)
        for link in links_of(folder, manifest):
            parent = self.follow(link)
            if parent.state == "missing" and manifest.kind == "export":
                # The model is gone, but the export knows what it knew.
                parent.parents = [(one.role, self.follow(one)) for one in links_of_facts(folder, facts)]
            node.parents.append((link.role, parent))

    def _lost(self, link: Link, wrong: str) -> Node:
        place = link.places[0] if link.places else None
        is_named = f"{link.kind} {link.name}" + (f" with hash {link.hash[:12]}…" if link.hash else "")
        return Node(
            kind=link.kind,
            name=link.name,
            path=place,
            sha256=link.hash,
            state="changed" if wrong else "missing",
            problem=wrong or f"{is_named} is not here" + (f" ({place})" if place else ""),
            fix=link.fix + self._with_settings(),
            code="",
        )

    def _with_settings(self) -> str:
        """Where the settings are with which something was made: the nearest run above it has them."""
        found = next((path for path in reversed(self._recipes) if path.exists()), None)
        return f", with the settings in {short(found)}" if found else ""


_SHOWN = ("train/loss", "val/loss")


def _facts(folder: Path, manifest: Manifest) -> dict[str, Any]:
    """What a model's run said of itself; empty for other artefacts."""
    if manifest.kind == "checkpoint":
        return read_object(folder / "run.json")
    return read_object(folder / "lumi.json").get("facts", {}) if manifest.kind == "export" else {}


def _name(folder: Path, manifest: Manifest) -> str:
    parts = folder.resolve().parts
    if manifest.kind == "checkpoint" and parts[-2] == "checkpoints":
        return f"{parts[-3]}/{manifest.name}"
    return f"{parts[-3]}/{manifest.name}" if manifest.kind == "export" and parts[-2] == "export" else manifest.name


def _made_with(manifest: Manifest, facts: Mapping[str, Any]) -> str:
    if manifest.kind != "checkpoint":
        return words.of_manifest(manifest)
    return f"step {manifest.info.get('step', 0):,} · {words.of_run(facts.get('settings', {}))}"


def _made_by(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {key: facts[key] for key in ("code", "versions", "threads") if key in facts}
