"""Everything that Lumi writes says what it was made from, with which settings, by which code."""

import json
from pathlib import Path
from typing import Any

import pytest

from lumi.eval.scaling import Law, Point, Target
from lumi.eval.scaling_runs import Fitted, write_scaling
from lumi.lineage import trace
from lumi.manifest import MANIFEST
from lumi.prepare import prepare
from lumi.serve.api import Service
from lumi.serve.metrics import Metrics
from lumi.serve.protocol import Preference
from lumi.sweep.study import Study

from .conftest import Made

KINDS = {"corpus", "tokenizer", "packed", "chat", "preference", "reference", "checkpoint", "export"}
FIGURES = {
    "run.json", "results.json", "comparison.json", "law.json", "study.json", "both.plan.json", ".texts.baselines.json",
    ".second.baselines.json",
}  # fmt: skip
POINTERS = {"best.json"}  # names a checkpoint, which says the rest


@pytest.fixture(scope="session")
def everything(reported: Made) -> Made:
    """The pipeline with the files that no run of it has written yet."""
    root = reported.root
    law = Law(E=1.0, A=2.0, B=3.0, alpha=0.3, beta=0.3)
    points = [Point(n_params=10.0**n, n_tokens=10.0**n, flops=10.0**n, loss=6.0 - n, name="base") for n in (3, 4, 5)]
    fitted = Fitted(law=law, resamples=[law], points=points, seq_len=64)
    target = Target(name="larger", n_params=1e6, n_tokens=1e6)
    write_scaling(root / "scaling", fitted, [target], [reported.run("base")])
    study = Study(root=root, name="sweep", kind="grid", overrides=["seed=0,1"], arguments=[])
    study.add(["seed=0"], reported.run("base"))
    study.save()
    pair = {"messages": [{"role": "user", "content": "hello"}], "chosen": "yes", "rejected": "no"}
    Service([], Metrics(()), root / "pairs.jsonl").save(Preference.model_validate(pair))
    files = ("source=files", f"source.path='{reported.texts}/*.jsonl'", "source.name=texts", "corpus.name=both")
    prepare(reported.compose("prepare", *files, "step=corpus", "analyze_only=true", "tokenizer.vocab_size=700"))
    return reported


def artefacts(root: Path) -> list[Path]:
    return [path.parent for path in sorted(root.rglob(MANIFEST))]


def check_made_by(said: dict[str, Any]) -> None:
    assert len(said["code"]["source_sha256"]) == 64
    assert said["code"]["lumi"]
    assert {"python", "torch", "numpy"} <= said["versions"].keys()


def test_every_kind_of_artefact_says_which_code_made_it_and_with_which_settings(everything: Made) -> None:
    found = {}
    for folder in artefacts(everything.root):
        manifest = json.loads((folder / MANIFEST).read_bytes())
        check_made_by(manifest["made_by"])
        inner = next((folder / name for name in ("run.json", "lumi.json") if (folder / name).exists()), None)
        facts = json.loads(inner.read_bytes()) if inner else {}
        assert manifest["settings"] or facts["settings"], folder
        found.setdefault(manifest["kind"], folder)
    assert found.keys() == KINDS


def test_every_artefact_names_its_parents_by_hash_and_they_are_found(everything: Made) -> None:
    for folder in artefacts(everything.root):
        root = trace(folder, full=False)
        assert root.parents, folder
        for node in root.chain():
            assert node.state in ("same", "generated"), (folder, node.problem)
            assert node.sha256 is not None


def test_every_file_of_figures_says_so_too(everything: Made) -> None:
    inside = {path for folder in artefacts(everything.root) for path in folder.rglob("*.json")}
    loose = [path for path in everything.root.rglob("*.json") if path not in inside and path.name not in POINTERS]
    assert {path.name for path in loose} == FIGURES
    for path in loose:
        said = json.loads(path.read_bytes())
        said = {**said, **said.get("origin", {})}
        check_made_by(said.get("made_by", said))  # run.json has it beside its settings
        assert said.get("settings") or said["sweep"], path
        assert said.get("made_from") or said.get("data") or path.name in ("study.json", "both.plan.json"), path


def test_a_collected_pair_says_which_server_collected_it(everything: Made) -> None:
    (line,) = (everything.root / "pairs.jsonl").read_text().splitlines()
    check_made_by(json.loads(line)["made_by"])
    assert trace(everything.root / "pairs.jsonl", full=False).made_with == "1 pairs, chosen by people"


def test_a_checkpoint_names_the_weights_it_began_from(made: Made) -> None:
    (*_, before), (*_, after) = (sorted(made.run(name).glob("checkpoints/step_*")) for name in ("base", "chat"))
    parents = json.loads((after / MANIFEST).read_bytes())["parents"]
    files = json.loads((before / MANIFEST).read_bytes())["files"]
    assert parents["initial/model.safetensors"] == files["model.safetensors"]["sha256"]
