"""``evaluate.py why=…`` and ``prepare.py verify=…``: the chain behind a number, and where it breaks."""

import json
import shutil
from pathlib import Path

import pytest

from lumi.errors import DataError
from lumi.evaluate import evaluate
from lumi.lineage import hashes_of, trace, verify_chain
from lumi.lineage.node import Node
from lumi.lineage.tree import tree
from lumi.manifest import MANIFEST, sha256_file
from lumi.prepare import prepare

from .conftest import Made, changed, gone


def path_to(root: Node, *kinds: str) -> Node:
    """The node that is reached by going to a parent of each kind in turn."""
    node = root
    for kind in kinds:
        node = next(parent for _, parent in node.parents if parent.kind == kind)
    return node


def test_a_number_leads_back_to_the_files_its_model_was_taught_from(reported: Made) -> None:
    root = trace(reported.run("liked") / "eval" / "results.json", full=True)
    source = path_to(root, "checkpoint", "checkpoint", "checkpoint", "packed", "corpus", "source")
    assert {one.path.name: one.actual for one in source.files} == {
        path.name: sha256_file(path) for path in reported.texts.iterdir()
    }
    tokenizer = path_to(root, "checkpoint", "checkpoint", "checkpoint", "packed", "tokenizer")
    assert tokenizer.sha256 == sha256_file(reported.root / "data/tokenizer/both/tokenizer.model")
    assert {node.state for node in root.chain()} == {"read", "verified", "generated"}


@pytest.mark.parametrize(
    "path", ["eval", "eval/report.md", "run.json", "", "merged", "export/hf", "checkpoints/step_00000004.ckpt"]
)
def test_every_way_to_point_at_a_model_leads_to_its_corpus(reported: Made, path: str) -> None:
    kinds = {node.kind for node in trace(reported.run("chat") / path, full=False).chain()}
    assert {"checkpoint", "chat", "packed", "tokenizer", "corpus", "source"} <= kinds


@pytest.mark.parametrize("path", ["comparison", "comparison/comparison.md", "study", "study/report.html"])
def test_a_report_over_runs_leads_to_all_of_them(reported: Made, path: str) -> None:
    chain = list(trace(reported.root / path, full=False).chain())
    assert {"checkpoint", "packed", "source"} <= {node.kind for node in chain}
    assert not [node for node in chain if node.broken]


def test_the_tree_shows_each_thing_once_with_its_hash(reported: Made) -> None:
    root = trace(reported.run("liked") / "eval", full=False)
    lines = [line.plain for line in tree(root)]
    corpus = sha256_name(root, "corpus")
    with_corpus = [line for line in lines if corpus in line]
    assert len(with_corpus) > 1
    assert [line for line in with_corpus if "(as above)" not in line] == with_corpus[:1]


def sha256_name(root: Node, kind: str) -> str:
    node = next(node for node in root.chain() if node.kind == kind)
    assert node.sha256 is not None
    return node.sha256[:12]


def test_json_says_the_same_as_the_tree(reported: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "chain.json"
    evaluate(reported.compose("evaluate", f"why='{reported.run('base')}/eval'", "json=true", f"out='{out}'"))
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads(out.read_bytes())
    assert printed["made_from"][0]["made_from"][0]["made_from"][0]["kind"] == "corpus"
    assert printed["made_by"]["threads"] == 1


DAMAGED = {
    "the text that was packed": "data/packed/both/both/texts/train-00000.bin",
    "a shard of the corpus": "data/corpus/both/texts-00000.jsonl.zst",
    "the tokenizer": "data/tokenizer/both/tokenizer.model",
    "a file it all began with": "texts/part-0.jsonl",
    "weights": "runs/base/checkpoints/step_00000004.ckpt/model.safetensors",
}


@pytest.mark.parametrize("name", DAMAGED.values(), ids=DAMAGED.keys())
def test_a_changed_byte_anywhere_is_named_with_both_hashes(reported: Made, name: str) -> None:
    path = reported.root / name
    expected = sha256_file(path)
    with changed(path) as actual, pytest.raises(DataError) as caught:
        prepare(reported.compose("prepare", f"verify='{reported.run('base')}/eval'"))
    assert caught.value.exit_code == 3
    assert all(part in str(caught.value) for part in (str(path), actual[:12], expected[:12]))


def test_verify_agrees_with_an_untouched_chain(reported: Made, capsys: pytest.CaptureFixture[str]) -> None:
    root = verify_chain(reported.run("base"))
    rows = [line.split()[0] for line in capsys.readouterr().out.splitlines()[1:] if line.strip()]
    assert rows == [node.kind for node in root.chain()]


def test_the_quick_form_finds_a_cut_file_but_hashes_none(reported: Made) -> None:
    path = reported.root / "data/corpus/both/texts-00000.jsonl.zst"
    with changed(path):
        assert not [node for node in trace(reported.run("base"), full=False).chain() if node.broken]
        path.write_bytes(path.read_bytes()[:-1])
        assert [node.kind for node in trace(reported.run("base"), full=False).chain() if node.broken] == ["corpus"]


def test_a_missing_link_is_named_with_the_way_to_get_it_back(reported: Made) -> None:
    with (
        gone(reported.root / "data/corpus"),
        pytest.raises(DataError, match=r"(?s)is not here.*prepare.py step=corpus"),
    ):
        evaluate(reported.compose("evaluate", f"why='{reported.run('base')}'"))


def test_files_that_are_no_longer_there_do_not_break_a_chain_whose_corpus_holds_them(reported: Made) -> None:
    with gone(reported.texts):
        root = trace(reported.run("base"), full=True)
    source = next(node for node in root.chain() if node.name == "texts" and node.kind == "source")
    assert (source.state, source.broken) == ("missing", False)


def test_another_tokenizer_in_the_place_of_the_first_is_not_taken_for_it(reported: Made) -> None:
    manifest = reported.root / "data/tokenizer/both" / MANIFEST
    said = json.loads(manifest.read_bytes())
    del said["seal"]
    said["files"]["tokenizer.model"]["sha256"] = "0" * 64
    whole = manifest.read_bytes()
    manifest.write_text(json.dumps(said))
    try:
        root = trace(reported.run("base"), full=False)
    finally:
        manifest.write_bytes(whole)
    broken = [node for node in root.chain() if node.broken]
    assert broken
    assert all("has tokenizer 000000000000…, expected" in node.problem for node in broken)


def test_a_moved_pipeline_is_followed_where_it_lies_now(reported: Made, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(reported.root, moved, symlinks=True)
    with gone(reported.root):
        chain = list(trace(moved / "runs/liked/eval", full=False).chain())
    assert {node.kind for node in chain} >= {"packed", "corpus", "preference"}
    assert not [node for node in chain if node.state == "missing" or node.broken]


def test_a_result_from_before_hashes_were_noted_says_what_is_not_known(reported: Made, tmp_path: Path) -> None:
    said = json.loads((reported.run("base") / "eval/results.json").read_bytes())
    for key in ("made_from", "made_by", "settings"):
        del said[key]
    (tmp_path / "results.json").write_text(json.dumps(said))
    root = trace(tmp_path, full=False)
    assert root.code == said["lumi_version"]
    assert [parent.state for _, parent in root.parents] == ["unproven"]


def test_what_lumi_did_not_make_is_refused_with_words(tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text('{"a": 1}')
    for path in (tmp_path, tmp_path / "other.json", tmp_path / "none"):
        with pytest.raises(DataError):
            trace(path, full=False)


def test_the_same_content_elsewhere_is_the_same_origin() -> None:
    one = {"checkpoint": {"path": "a", "files": {"x": "1"}}, "files": {"a.txt": "2"}}
    two = {"checkpoint": {"path": "b", "files": {"x": "1"}}, "files": {"b.txt": "2"}}
    other = {"checkpoint": {"path": "a", "files": {"x": "3"}}, "files": {"a.txt": "2"}}
    assert hashes_of(one) == hashes_of(two) != hashes_of(other)
