"""What every kind of artefact says of what it was made from."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lumi.errors import DataError
from lumi.lineage.links import Link, near
from lumi.manifest import Manifest
from lumi.strangers import read_object

FOLDERS = ("packed", "chat", "preference")
"""Kinds of prepared data that a model may have read."""


def links_of(folder: Path, manifest: Manifest) -> list[Link]:
    """The parents of an artefact that are artefacts themselves."""
    makers: dict[str, Callable[[Path, Manifest], list[Link]]] = {
        "tokenizer": _of_tokenizer,
        "packed": _of_packed,
        "reference": _of_reference,
        "checkpoint": _of_checkpoint,
        "export": _of_export,
    }
    return makers[manifest.kind](folder, manifest) if manifest.kind in makers else []


def _again(step: str) -> str:
    return f"restore it, or make it again: python prepare.py step={step}"


def _of_tokenizer(folder: Path, manifest: Manifest) -> list[Link]:
    if not manifest.parents:
        return []
    noted = dict.fromkeys(place for role in manifest.places for place in _noted(folder, manifest, role))
    # Before places were noted, everything lay as `lumi.data.prepare` says.
    places = [*noted, *sorted((folder.parent.parent / "corpus").glob("*"))]
    return [
        Link(
            role="learnt from",
            kind="corpus",
            name=", ".join(manifest.parents),
            places=near(folder, places),
            expected=manifest.parents,
            by="content",
            fix=_again("corpus"),
        )
    ]


def _of_packed(folder: Path, manifest: Manifest) -> list[Link]:
    corpus, tokenizer = (_noted(folder, manifest, role) for role in ("corpus", "tokenizer"))
    if len(folder.resolve().parents) > 3:  # packed/<tokenizer>/<corpus>/<source>
        *_, root = folder.resolve().parents[:4]
        corpus.append(root / "corpus" / folder.resolve().parent.name)
        tokenizer.append(root / "tokenizer" / folder.resolve().parent.parent.name)
    return [
        Link(
            role="documents",
            kind="corpus",
            name=manifest.name,
            places=near(folder, corpus),
            expected={manifest.name: manifest.parents["corpus"]},
            by="content",
            fix=_again("corpus"),
        ),
        _tokenizer_link(near(folder, tokenizer), manifest.parents["tokenizer"], _again("tokenizer")),
    ]


def _of_reference(folder: Path, manifest: Manifest) -> list[Link]:
    settings = manifest.settings
    model = Link(
        role="model",
        kind="checkpoint",
        name="reference model",
        places=near(folder, _noted(folder, manifest, "model")),
        expected=settings["model"],
        by="files",
        fix="restore the run that preference training began from",
    )
    pairs = [
        Link(
            role="pairs",
            kind="preference",
            name=name,
            places=near(folder, [*_noted(folder, manifest, name), folder.parent.parent / "preference" / name]),
            expected={name: sha256},
            by="fingerprint",
            fix=_again("preference"),
        )
        for name, sha256 in settings["data"].items()
    ]
    return [model, *pairs]


def _of_checkpoint(folder: Path, manifest: Manifest) -> list[Link]:
    if "checkpoint" in manifest.places:  # merged from another one, and its facts are the other's
        expected = {
            name.partition("/")[2]: sha256
            for name, sha256 in manifest.parents.items()
            if name.startswith("checkpoint/")
        }
        return [_model_link("merged from", near(folder, _noted(folder, manifest, "checkpoint")), expected)]
    return links_of_facts(folder, read_object(folder / "run.json"))


def _of_export(folder: Path, manifest: Manifest) -> list[Link]:
    said = read_object(folder / "lumi.json").get("checkpoint", {})
    run = folder.resolve().parent.parent  # <run>/export/<format>
    places = [*_noted(folder, manifest, "checkpoint"), run / "checkpoints" / str(said.get("name"))]
    return [_model_link("exported from", near(folder, places), said.get("files", {}))]


def links_of_facts(folder: Path, facts: Mapping[str, Any]) -> list[Link]:
    """The parents of a model, from what its run said of itself."""
    links = []
    if initial := facts.get("initial"):
        links.append(_model_link("began from", near(folder, [initial["path"]]), initial["weights"]))
    data, packed = facts.get("data", {}), dict(facts.get("packed", {}))
    for name in (name.removeprefix("replay-") for name in data if name.startswith("replay-")):
        packed[f"replay-{name}"] = _replayed(folder, facts, name)
    for kind in FOLDERS:
        for name, path in (packed if kind == "packed" else facts.get(kind, {})).items():
            expected = {name: data[name]} if name in data else {}
            links.append(data_link(kind, name, near(folder, [path]), expected))
    if not links:
        settings = facts.get("settings", {}).get("tokenizer", {})
        path = settings.get("path") or Path(facts["settings"]["paths"]["data"]) / "tokenizer" / settings["name"]
        links.append(_tokenizer_link(near(folder, [path]), facts["tokenizer_sha256"], _again("tokenizer")))
    return links


def data_link(kind: str, name: str, places: list[Path], expected: Mapping[str, str]) -> Link:
    """To packed text, conversations or pairs."""
    role = {"packed": "text", "chat": "conversations", "preference": "pairs"}[kind]
    step = "pack" if kind == "packed" else kind
    return Link(role=role, kind=kind, name=name, places=places, expected=expected, by="fingerprint", fix=_again(step))


def _replayed(folder: Path, facts: Mapping[str, Any], name: str) -> str | None:
    """Where the text lies that a model goes on reading: its first ancestor says so."""
    while initial := facts.get("initial"):
        before = next((path for path in near(folder, [initial["path"]]) if (path / "run.json").exists()), None)
        if before is None:
            return None
        try:
            facts = read_object(before / "run.json")
        except DataError:
            return None
        if name in facts.get("packed", {}):
            return facts["packed"][name]
    return None


def _model_link(role: str, places: list[Path], expected: Mapping[str, str]) -> Link:
    run = places[0].parent.parent if places else Path("RUN")
    return Link(
        role=role,
        kind="checkpoint",
        name=f"{run.name}/{places[0].name}" if places else "a model",
        places=places,
        expected=expected,
        by="files",
        fix=f"restore it, or train it again: python evaluate.py reproduce={run}",
    )


def _tokenizer_link(places: list[Path], sha256: str, fix: str) -> Link:
    name = places[0].name if places else "tokenizer"
    return Link(
        role="tokenizer",
        kind="tokenizer",
        name=name,
        places=places,
        expected={name: sha256},
        by="tokenizer",
        fix=fix,
    )


def _noted(folder: Path, manifest: Manifest, role: str) -> list[Path]:
    return [Path(os.path.normpath(folder / manifest.places[role]))] if role in manifest.places else []
