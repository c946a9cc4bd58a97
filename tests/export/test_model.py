"""A whole export: what is written, what is refused, and that nothing stays of one that failed."""

import json
import sys
from pathlib import Path

import pytest

from lumi.errors import ConfigError
from lumi.export import parity
from lumi.export.parity import ParityError
from lumi.manifest import verify


def test_a_hugging_face_folder_is_compared_in_all_three_ways(hf):
    assert hf["parity"]["logits"]["max_difference"] <= hf["parity"]["logits"]["tolerance"]
    assert hf["parity"]["ids"] == {"texts": 10_000, "different": 0}
    assert hf["parity"]["conversations"]["rendered"] > 300


def test_every_file_of_an_export_is_in_its_manifest(hf):
    manifest = verify(Path(hf["folder"]), kind="export")
    assert {"config.json", "model.safetensors", "tokenizer.json", "tokenizer.model", "lumi.json"} <= set(manifest.files)


def test_the_facts_name_the_tokenizer_the_template_and_the_checkpoint(hf, trained):
    facts = json.loads((Path(hf["folder"]) / "lumi.json").read_bytes())
    assert facts["tokenizer_sha256"] == trained.tokenizer.sha256
    assert facts["template"]["name"] == "chatml"
    assert facts["checkpoint"]["name"] == trained.checkpoint.name
    assert "adapter_model.safetensors" in facts["checkpoint"]["files"]
    assert facts["parity"] == hf["parity"]


def test_answers_end_at_the_stop_tokens_of_the_template(hf, trained):
    found = json.loads((Path(hf["folder"]) / "generation_config.json").read_bytes())
    assert found["eos_token_id"] == [trained.tokenizer.eos_id, trained.tokenizer.controls["<|im_end|>"]]


def test_an_earlier_export_is_replaced(export, tmp_path):
    export(tmp_path / "out", "gguf", "f32")
    export(tmp_path / "out", "gguf", "q8_0")
    assert verify(tmp_path / "out").info["dtype"] == "q8_0"


def test_a_folder_of_somebody_else_is_never_replaced(export, tmp_path, trained):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ConfigError, match="is no export of Lumi"):
        export(tmp_path, "gguf")
    with pytest.raises(ConfigError, match="is a checkpoint"):
        export(trained.checkpoint, "gguf")
    assert (tmp_path / "mine.txt").read_text() == "mine"


def test_a_difference_fails_the_export_and_leaves_nothing(export, tmp_path, monkeypatch):
    monkeypatch.setattr(parity, "LOGIT_TOLERANCE", 0.0)
    with pytest.raises(ParityError, match=r"logits differ by \d"):
        export(tmp_path / "out", "hf")
    assert [path.name for path in tmp_path.iterdir()] == [".out.lock"]


@pytest.mark.parametrize(("kind", "module"), [("gguf", "gguf"), ("gguf", "xllamacpp"), ("hf", "transformers")])
def test_a_missing_package_is_an_error_with_its_command_and_no_unchecked_export(
    export, tmp_path, monkeypatch, kind, module
):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigError, match=rf"the package {module} .* pip install -c constraints\.txt"):
        export(tmp_path / "out", kind)
    assert not (tmp_path / "out").exists()


def test_words_of_the_other_program_for_the_same_numbers_are_understood(export, tmp_path):
    assert export(tmp_path / "out", "gguf", "float32")["dtype"] == "f32"


@pytest.mark.parametrize(("kind", "dtype"), [("hf", "q8_0"), ("gguf", "q4_0"), ("adapter", "bfloat16"), ("onnx", None)])
def test_an_unknown_format_or_dtype_is_named(export, tmp_path, kind, dtype):
    with pytest.raises(ConfigError, match="format=onnx" if dtype is None else f"dtype={dtype}"):
        export(tmp_path / "out", kind, dtype)
