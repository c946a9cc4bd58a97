"""Weights on disk: what was saved comes back, and nothing else is taken for it."""

import dataclasses
import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from lumi.arch import Decoder
from lumi.arch.weights import load_decoder, read_config, save_weights
from lumi.errors import CheckpointError


@pytest.fixture(params=[False, True], ids=["untied", "tied"])
def saved(request, tiny_config, tmp_path):
    """A decoder and the folder that it was saved to."""
    decoder = Decoder(dataclasses.replace(tiny_config, tied=request.param))
    save_weights(tmp_path, decoder.state_dict(), decoder.config)
    return decoder, tmp_path


def test_a_saved_decoder_comes_back_bit_for_bit(saved):
    decoder, folder = saved
    again = load_decoder(folder)
    assert again.config == decoder.config
    assert again.state_dict().keys() == decoder.state_dict().keys()
    assert all(torch.equal(again.state_dict()[name], value) for name, value in decoder.state_dict().items())


def test_a_tied_matrix_is_written_once_and_tied_again(saved):
    decoder, folder = saved
    again = load_decoder(folder)
    assert ("lm_head.weight" in load_file(folder / "model.safetensors")) is not decoder.config.tied
    assert (again.lm_weight is again.model.embed_tokens.weight) is decoder.config.tied


def test_a_missing_tensor_is_named(saved):
    _, folder = saved
    state = load_file(folder / "model.safetensors")
    del state["model.norm.weight"]
    save_file(state, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"model\.norm\.weight is missing"):
        load_decoder(folder)


def test_a_tensor_that_does_not_belong_is_named(saved):
    _, folder = saved
    save_file({**load_file(folder / "model.safetensors"), "extra": torch.zeros(1)}, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match="extra is not part of this architecture"):
        load_decoder(folder)


def test_a_tensor_of_another_shape_is_named_with_both_shapes(saved):
    _, folder = saved
    state = load_file(folder / "model.safetensors") | {"model.norm.weight": torch.zeros(31)}
    save_file(state, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"model\.norm\.weight is \(31,\) in F32, not \(32,\)"):
        load_decoder(folder)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"vocab_size": 64}', b'{"surprise": 1}'], ids=repr
)
def test_a_configuration_that_is_none_is_refused(saved, content):
    _, folder = saved
    (folder / "decoder.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"decoder\.json .* is not a decoder's configuration"):
        read_config(folder)


@pytest.mark.parametrize(("key", "value"), [("n_layers", "2"), ("n_layers", 2.5), ("d_model", 10**9), ("n_heads", 3)])
def test_a_configuration_that_the_weights_cannot_have_is_refused_before_memory_is_taken(saved, key, value):
    _, folder = saved
    fields = json.loads((folder / "decoder.json").read_bytes())
    (folder / "decoder.json").write_text(json.dumps({**fields, key: value}))
    with pytest.raises(CheckpointError):
        load_decoder(folder)


@pytest.mark.parametrize("name", ["decoder.json", "model.safetensors"])
def test_a_missing_file_is_named(saved, name):
    _, folder = saved
    (folder / name).unlink()
    with pytest.raises(CheckpointError, match=name):
        load_decoder(folder)


def test_a_truncated_file_is_refused(saved):
    _, folder = saved
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=r"model\.safetensors .* cannot be read"):
        load_decoder(folder)
