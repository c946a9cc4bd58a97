"""What files of figures were made from: an evaluation, a comparison, a study, a scaling law, collected pairs."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lumi.errors import DataError
from lumi.lineage.artefacts import FOLDERS, data_link
from lumi.lineage.checks import compare, judge
from lumi.lineage.links import Link, candidates, near
from lumi.lineage.node import Node
from lumi.lineage.trace import Tracer
from lumi.manifest import sha256_file
from lumi.provenance import code_words
from lumi.strangers import read_object

Found = Mapping[str, Any]

FILES = ("results.json", "law.json", "comparison.json", "study.json", "report/results.json", "eval/results.json")
"""Where a folder of a report keeps what it was made from, best first."""


def trace_report(path: Path, tracer: Tracer) -> Node:
    """The chain behind a file of figures, or behind all that lie in a folder.

    Raises:
        DataError: there is none.
    """
    if path.is_dir():
        return _folder(path, tracer)
    if not path.is_file():
        raise DataError(f"{path}", "does not exist", "give a result, a report, a run, an export or an artefact")
    if path.suffix in (".md", ".html", ".png", ".csv"):  # made from the JSON beside it
        return _folder(path.parent, tracer)
    if path.suffix == ".jsonl":
        return _pairs(path)
    found = read_object(path, fix="give a results.json, or another file that Lumi has written")
    return _reader(path, found)(path, found, tracer)


def _reader(path: Path, found: Found) -> Callable[[Path, Found, Tracer], Node]:
    if "sources" in found and "model" in found:
        return _evaluation
    if "study" in found and "configurations" in found:
        return _study
    if "law" in found and "points" in found:
        return _law
    if "jobs" in found:
        return _jobs
    if "models" in found.get("settings", {}):
        return _comparison
    raise DataError(
        f"{path}", "is no file of figures that Lumi has written", "give a results.json, a run or an artefact"
    )


def _folder(folder: Path, tracer: Tracer) -> Node:
    for name in FILES:
        if (folder / name).is_file():
            return trace_report(folder / name, tracer)
    below = sorted(folder.glob("*/results.json"))
    if not below:
        names = ", ".join(FILES[:3])
        raise DataError(
            f"{folder}", f"holds neither a manifest nor one of {names}", "give a result, a run or an artefact"
        )
    node = Node(kind="folder", name=folder.name, path=folder, code="", made_with=f"{len(below)} results")
    node.parents = [(path.parent.name, trace_report(path, tracer)) for path in below]
    return node


def _node(kind: str, path: Path, found: Found, made_with: str) -> Node:
    made_by = found.get("made_by", {})
    return Node(
        kind=kind,
        name=path.parent.name,
        path=path,
        sha256=sha256_file(path),
        made_with=made_with,
        made_by=dict(made_by),
        code=code_words(made_by.get("code") or ({"lumi": found["lumi_version"]} if "lumi_version" in found else None)),
        settings=dict(found.get("settings", {})),
    )


def _evaluation(path: Path, found: Found, tracer: Tracer) -> Node:
    node = _node("result", path, found, _figures(found))
    node.name = str(found["model"].get("name", node.name))
    made_from = found.get("made_from") or _before_hashes(found["model"])
    node.parents = _evaluated(path, made_from, tracer)
    return node


def _before_hashes(model: Found) -> Found:
    """What results said before they named hashes: a path alone."""
    return {"checkpoint": {"path": model.get("checkpoint", ""), "files": {}}}


def _evaluated(path: Path, made_from: Found, tracer: Tracer) -> list[tuple[str, Node]]:
    said = made_from["checkpoint"]
    places = near(path.parent, [said["path"]])
    kind = "checkpoint" if "decoder.json" in said["files"] or not said["files"] else "export"
    run = Path(said["path"]).parent.parent
    model = Link(
        role="model",
        kind=kind,
        name=f"{run.name}/{Path(said['path']).name}",
        places=places,
        expected=said["files"],
        by="files",
        fix=f"restore it, or train it again: python evaluate.py reproduce={run}",
    )
    parents = [(model.role, tracer.follow(model))]
    for data in FOLDERS:
        for name, one in made_from.get(data, {}).items():
            expected = {name: one["fingerprint"]}
            link = data_link(data, name, near(path.parent, [one["path"]]), expected)
            parents.append((f"scored {link.role}", tracer.follow(link)))
    for name, sha256 in made_from.get("files", {}).items():
        file = Node(kind="text", name=Path(name).name, path=Path(name), sha256=sha256, code="")
        judge(file, [compare(Path(name), sha256)], full=True)
        file.fix = "restore the file, or evaluate again with the new one" if file.problem else ""
        parents.append(("scored text", file))
    return parents


def _figures(found: Found) -> str:
    """The numbers that somebody may ask about."""
    words = [
        f"{name} {part['score']['bits_per_byte']:.4f} bits per byte"
        for name, part in found["sources"].items()
        if part["score"].get("bits_per_byte") is not None
    ]
    words += [f"{name} perplexity {part['score']['token_perplexity']:.2f}" for name, part in found["texts"].items()]
    for name, part in found.get("tasks", {}).items():
        words += [f"{name} accuracy {part['accuracy']:.3f}"] if isinstance(part.get("accuracy"), float) else []
    words += [f"answers to {name}" for name in found.get("chat", {})]
    words += [f"preferences of {name}" for name in found.get("preference", {})]
    return " · ".join(words)


def _comparison(path: Path, found: Found, tracer: Tracer) -> Node:
    node = _node("comparison", path, found, ", ".join(found["settings"]["models"]))
    for name, one in found["made_from"].items():
        result = Node(kind="result", name=name, sha256=one["results_sha256"], code="")
        if "checkpoint" in one:
            result.parents = _evaluated(path, one, tracer)
        node.parents.append(("compared", result))
    return node


def _study(path: Path, found: Found, tracer: Tracer) -> Node:
    best = found["configurations"][0] if found["configurations"] else None
    metric = found["metric"]["name"]
    made_with = f"study {found['study']['name']} · {metric}"
    if best is not None:
        made_with += f" · best {best['name']}: {best['score']['mean']:.4f}"
    node = _node("report", path, found, made_with)
    folders = {run["folder"]: {} for one in found["configurations"] for run in one["runs"].values()}
    node.parents = _runs(path, found.get("made_from") or folders, tracer)
    return node


def _law(path: Path, found: Found, tracer: Tracer) -> Node:
    law = found["law"]
    node = _node(
        "scaling law", path, found, " · ".join(f"{key} {law[key]:.4g}" for key in law if isinstance(law[key], float))
    )
    named = {f"runs/{point['name']}": {} for point in found["points"] if "name" in point}
    node.parents = _runs(path, found.get("made_from") or named, tracer)
    return node


def _jobs(path: Path, found: Found, tracer: Tracer) -> Node:
    node = _node("study", path, found, f"{found.get('name')} · {len(found['jobs'])} runs")
    node.parents = _runs(path, {job["run"]: {} for job in found["jobs"] if job.get("run")}, tracer)
    return node


def _runs(path: Path, made_from: Mapping[str, Mapping[str, str]], tracer: Tracer) -> list[tuple[str, Node]]:
    """Runs whose files a report was made from."""
    parents = []
    for folder, hashes in made_from.items():
        place = next((found for found in _places(path, folder) if (found / "run.json").is_file()), Path(folder))
        if not (place / "run.json").is_file():
            node = Node(kind="run", name=place.name, path=place, state="missing", problem=f"{place} is not here")
            node.fix = "restore the run, or run the study's command again: it trains what is missing"
        else:
            node = tracer.run(place)
            checks = [compare(place / name, sha256) for name, sha256 in hashes.items()]
            if checks:
                judge(node, checks, full=True)
                node.fix = "make the report again: the run went on after it" if node.problem else ""
            else:
                node.state = "unproven"
        parents.append(("run", node))
    return parents


def _places(path: Path, folder: str) -> list[Path]:
    return list(candidates(path, Path(folder)))


def _pairs(path: Path) -> Node:
    """Pairs that people chose in the page: a line each, which names the weights that wrote both answers."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    weights = sorted({sha256 for row in rows for sha256 in row.get("made_from", {}).values()})
    codes = {code_words(row.get("made_by", {}).get("code")) for row in rows}
    node = Node(
        kind="pairs",
        name=path.name,
        path=path,
        sha256=sha256_file(path),
        made_with=f"{len(rows):,} pairs, chosen by people",
        code=", ".join(sorted(codes)) or "unknown",
        made_by=dict(rows[0].get("made_by", {})) if rows else {},
    )
    for sha256 in weights:
        answered = sum(sha256 in row.get("made_from", {}).values() for row in rows)
        model = Node(kind="model", name="weights", sha256=sha256, state="unproven", code="")
        model.made_with = f"wrote answers of {answered:,} pairs; the fingerprint is the server's"
        node.parents.append(("answers", model))
    return node
