"""A peft folder: it fits the base beside it, and no other."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lumi.errors import CheckpointError, ConfigError
from lumi.trained import load_trained, save_trained


def assert_same(one, other) -> None:
    for name, value in one.decoder.state_dict().items():
        assert torch.equal(other.decoder.state_dict()[name], value), name


def test_peft_computes_what_the_merged_model_computes(adapter):
    assert adapter["parity"]["logits"]["max_difference"] <= adapter["parity"]["logits"]["tolerance"]


def test_it_reads_back_as_the_model_that_was_trained(adapter, trained):
    again = load_trained(Path(adapter["folder"]))
    assert_same(trained, again)
    assert again.facts == trained.facts


def test_the_folder_can_move(adapter, trained, tmp_path):
    shutil.copytree(adapter["folder"], tmp_path / "moved")
    assert_same(trained, load_trained(tmp_path / "moved"))


def test_its_base_holds_the_trained_rows_of_control_tokens(adapter, trained):
    base = load_file(Path(adapter["folder"]) / "base" / "model.safetensors")["model.embed_tokens.weight"]
    before = load_trained(Path(trained.facts["initial"]["path"])).decoder.model.embed_tokens.weight
    changed = (base != before).any(dim=1).nonzero().flatten().tolist()
    assert changed
    assert set(changed) <= {trained.tokenizer.unk_id, *trained.tokenizer.controls.values()}


def test_the_run_can_be_given_as_the_base(adapter, trained, chat_run):
    assert_same(trained, load_trained(Path(adapter["folder"]), base=chat_run))


def test_the_pretrained_model_is_not_its_base(adapter, trained):
    with pytest.raises(CheckpointError, match="rows of control tokens were trained too"):
        load_trained(Path(adapter["folder"]), base=Path(trained.facts["initial"]["path"]))


def test_a_base_that_is_gone_is_named(adapter, tmp_path):
    shutil.copytree(adapter["folder"], tmp_path / "moved", ignore=shutil.ignore_patterns("base", "MANIFEST.json"))
    with pytest.raises(CheckpointError, match="base base · is not here · base=PATH"):
        load_trained(tmp_path / "moved")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"r": 10**9}, "r=1000000000 · the weights have"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"peft_type": "IA3"}, "peft_type=IA3"),
    ],
)
def test_settings_that_would_compute_something_else_are_refused(adapter, tmp_path, fields, message):
    shutil.copytree(adapter["folder"], tmp_path / "copy", ignore=shutil.ignore_patterns("MANIFEST.json"))
    path = tmp_path / "copy" / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_bytes()), **fields}))
    with pytest.raises(CheckpointError, match=message):
        load_trained(tmp_path / "copy")


def test_a_model_without_an_adapter_has_none_to_export(export, trained, tmp_path):
    save_trained(trained, tmp_path / "merged")
    with pytest.raises(ConfigError, match=r"has no adapter over weights of its own · .* · format=hf"):
        export(tmp_path / "out", "adapter", of=load_trained(tmp_path / "merged"))
