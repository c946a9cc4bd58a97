"""An exported folder is read back exactly, and only when it is what it says."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from lumi.errors import CheckpointError, DataError, TokenizerMismatch
from lumi.export import load_huggingface
from lumi.trained import load_trained


@pytest.fixture
def folder(hf, tmp_path) -> Path:
    """A copy of the export without its manifest, to be changed."""
    shutil.copytree(hf["folder"], tmp_path / "copy", ignore=shutil.ignore_patterns("MANIFEST.json"))
    return tmp_path / "copy"


def change(path: Path, **fields: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_bytes()), **fields}))


def test_it_is_the_model_that_was_exported(hf, trained):
    again = load_trained(Path(hf["folder"]))
    for name, value in trained.decoder.state_dict().items():
        assert torch.equal(again.decoder.state_dict()[name], value), name
    assert again.tokenizer.sha256 == trained.tokenizer.sha256
    assert (again.facts, again.template) == (trained.facts, trained.template)
    assert (again.decoder.config, again.run) == (trained.decoder.config, None)


def test_sixteen_bits_are_read_back_as_they_were_written(export, trained, tmp_path):
    export(tmp_path / "out", "hf", "bfloat16")
    again = load_trained(tmp_path / "out").decoder.state_dict()
    for name, value in trained.decoder.state_dict().items():
        assert torch.equal(again[name], value.bfloat16().float()), name


def test_shards_are_read_by_their_index(folder, trained):
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    shards = {name: f"model-0000{1 + number % 2}-of-00002.safetensors" for number, name in enumerate(sorted(tensors))}
    for shard in set(shards.values()):
        save_file({name: tensors[name] for name in tensors if shards[name] == shard}, folder / shard)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
    decoder, _, _ = load_huggingface(folder)
    assert all(torch.equal(a, b) for a, b in zip(decoder.parameters(), trained.decoder.parameters(), strict=True))


def test_a_flipped_bit_is_found_by_the_manifest(hf, tmp_path):
    shutil.copytree(hf["folder"], tmp_path / "copy")
    data = bytearray((tmp_path / "copy" / "model.safetensors").read_bytes())
    data[-3] ^= 1
    (tmp_path / "copy" / "model.safetensors").write_bytes(data)
    with pytest.raises(DataError, match="changed or damaged"):
        load_trained(tmp_path / "copy")


def test_a_shard_outside_the_folder_is_refused(folder):
    (folder / "model.safetensors").rename(folder.parent / "x.safetensors")
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../x.safetensors"}}')
    with pytest.raises(CheckpointError, match="same folder"):
        load_trained(folder)


def test_a_pickle_is_not_opened(folder):
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"anything")
    with pytest.raises(CheckpointError, match=r"a pickle, which can run code .*save_pretrained"):
        load_trained(folder)


def test_code_of_the_folder_is_refused(folder):
    change(folder / "config.json", auto_map={"AutoModelForCausalLM": "evil.Model"})
    with pytest.raises(CheckpointError, match="auto_map"):
        load_trained(folder)


def test_a_llama_of_somebody_else_is_refused_for_its_tokenizer(folder):
    (folder / "lumi.json").unlink()
    with pytest.raises(CheckpointError, match="its tokenizer is not one of Lumi's"):
        load_trained(folder)


def test_another_tokenizer_is_refused(folder, unicode_tokenizer):
    (folder / "tokenizer.model").write_bytes(unicode_tokenizer.model_bytes)
    with pytest.raises(TokenizerMismatch):
        load_trained(folder)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_hidden_layers": 1_000_000_000}, "n_layers is 1000000000"),
        ({"max_position_embeddings": 1_000_000_000}, "must be at most 1,048,576"),
        ({"attention_bias": True}, "attention_bias=True"),
        ({"quantization_config": {"bits": 4}}, "quantization_config"),
        ({"rope_theta": 7.0, "rope_parameters": {"rope_theta": 7.0}}, "rope_theta is 7.0"),
    ],
)
def test_a_config_that_is_not_the_models_is_refused_before_anything_is_made(folder, fields, message):
    change(folder / "config.json", **fields)
    with pytest.raises(CheckpointError, match=message):
        load_trained(folder)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"d_model": 7}, "d_model is 32 .* lumi.json says 7"),
        ({"d_extra": None}, "d_extra is nothing .* lumi.json says None"),
        ({"rope_scaling": ["linear"]}, "is not a Llama that Lumi can run"),
    ],
)
def test_facts_that_are_not_the_models_are_refused(folder, fields, message):
    facts = json.loads((folder / "lumi.json").read_bytes())
    change(folder / "lumi.json", decoder={**facts["decoder"], **fields})
    with pytest.raises(CheckpointError, match=message):
        load_trained(folder)


def test_sizes_are_compared_before_anything_is_allocated(folder):
    change(folder / "config.json", intermediate_size=1_000_000_000)
    facts = json.loads((folder / "lumi.json").read_bytes())
    change(folder / "lumi.json", decoder={**facts["decoder"], "d_ff": 1_000_000_000})
    with pytest.raises(CheckpointError, match="too small for the"):
        load_trained(folder)


def test_a_tensor_of_another_shape_is_named(folder):
    tensors = load_file(folder / "model.safetensors")
    tensors["model.norm.weight"] = tensors["model.norm.weight"][:-1].clone()
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"model\.norm\.weight is \(31,\) in F32, not \(32,\)"):
        load_trained(folder)


def test_weights_that_are_no_numbers_with_a_point_are_refused(folder):
    tensors = load_file(folder / "model.safetensors")
    tensors["model.norm.weight"] = tensors["model.norm.weight"].to(torch.int8)
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"model\.norm\.weight is \(32,\) in I8"):
        load_trained(folder)


@pytest.mark.parametrize("text", ["[]", "{}", "not JSON", '{"schema_version": 1, "facts": 1}'])
def test_facts_of_another_form_are_refused(folder, text):
    (folder / "lumi.json").write_text(text)
    with pytest.raises(DataError, match=r"lumi\.json"):
        load_trained(folder)


def test_an_index_without_shards_is_refused(folder):
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {}}')
    with pytest.raises(CheckpointError, match="has no weight_map"):
        load_trained(folder)
