"""A model as one GGUF file, which llama.cpp and everything built on it runs.

The tensors are those of llama.cpp's ``llama`` architecture. It turns neighbouring features of a head against each other where
Lumi and Hugging Face turn halves, so the rows of the query and key projections are put in its order, as its own converter does.
"""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lumi.arch import Decoder
from lumi.arch.layers import rotary_frequencies
from lumi.errors import ConfigError
from lumi.export.chat_template import Marks, chat_template
from lumi.export.source import Source, need
from lumi.export.vocabulary import Vocabulary, make_vocabulary

INSTALL = "-e '.[gguf]'"
MODEL = "model.gguf"
TYPES = ("f32", "f16", "q8_0")

_FILE_TYPES = {"f32": 0, "f16": 1, "q8_0": 7}  # general.file_type
_Q8_BLOCK = 32  # weights that share a scale
_NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
_TOP = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


def write_gguf(source: Source, folder: Path, dtype: str) -> Vocabulary:
    """Write model.gguf into ``folder``; returns its vocabulary, which knows what texts it reads as Lumi does.

    Args:
        dtype: of the matrices: f32, f16 or q8_0. Vectors are always f32.

    Raises:
        ConfigError: an unknown type, a tokenizer that llama.cpp cannot run, or the package gguf is not installed.
    """
    if dtype not in TYPES:
        raise ConfigError(f"dtype={dtype}", f"must be one of {', '.join(TYPES)} for a GGUF file")
    gguf = need("gguf", INSTALL)
    logging.getLogger("gguf").setLevel(logging.WARNING)  # it announces every file
    vocabulary = make_vocabulary(source.tokenizer)
    if vocabulary.model == "llama" and not vocabulary.falls_back:
        raise ConfigError(
            "tokenizer.byte_fallback=false",
            "llama.cpp cannot read a text with a character that has no piece then",
            "format=hf, or a model whose tokenizer has byte_fallback",
        )
    writer = gguf.GGUFWriter(folder / MODEL, "llama")
    _add_settings(writer, gguf, source, dtype)
    _add_vocabulary(writer, source, vocabulary)
    for name, tensor in _tensors(source.decoder).items():
        data = tensor.numpy()
        kind = tensor_type(data.shape, dtype)
        if kind == "f32":
            writer.add_tensor(name, data)
        else:
            quantised = gguf.GGMLQuantizationType[kind.upper()]
            writer.add_tensor(name, gguf.quants.quantize(data, quantised), raw_dtype=quantised)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return vocabulary


def rounded(decoder: Decoder, dtype: str) -> Decoder:
    """A decoder with the weights that the file holds, in float32: what it must compute, but for the order of sums."""
    gguf = need("gguf", INSTALL)
    other = Decoder(decoder.config)
    state = {}
    for name, value in decoder.state_dict().items():
        data = value.detach().float().cpu().numpy()
        kind = gguf.GGMLQuantizationType[tensor_type(data.shape, dtype).upper()]
        state[name] = torch.from_numpy(
            gguf.quants.dequantize(gguf.quants.quantize(data, kind), kind).reshape(data.shape)
        )
    other.load_state_dict(state)
    return other.eval()


def tensor_type(shape: tuple[int, ...], dtype: str) -> str:
    """How a tensor is stored: vectors in f32, a matrix whose rows do not divide into blocks in f16 instead of q8_0."""
    if len(shape) == 1:
        return "f32"
    return "f16" if dtype == "q8_0" and shape[-1] % _Q8_BLOCK else dtype


def _add_settings(writer: Any, gguf: Any, source: Source, dtype: str) -> None:
    config = source.decoder.config
    writer.add_name(str(source.facts.get("name") or "lumi"))
    writer.add_file_type(_FILE_TYPES[dtype])
    if dtype == "q8_0":
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(config.max_seq_len)
    writer.add_embedding_length(config.d_model)
    writer.add_block_count(config.n_layers)
    writer.add_feed_forward_length(config.d_ff)
    writer.add_head_count(config.n_heads)
    writer.add_head_count_kv(config.n_kv_heads)
    writer.add_layer_norm_rms_eps(config.norm_eps)
    writer.add_rope_dimension_count(config.d_head)
    writer.add_rope_freq_base(config.rope_theta)
    if config.rope_scaling == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(config.rope_factor)


def _add_vocabulary(writer: Any, source: Source, vocabulary: Vocabulary) -> None:
    tokenizer = source.tokenizer
    writer.add_tokenizer_model(vocabulary.model)
    writer.add_tokenizer_pre("default")
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_scores(vocabulary.scores)
    writer.add_token_types(vocabulary.types)
    if vocabulary.replacements is not None:
        writer.add_precompiled_charsmap(vocabulary.replacements)
    writer.add_bos_token_id(tokenizer.bos_id)
    writer.add_eos_token_id(tokenizer.eos_id)
    writer.add_unk_token_id(tokenizer.unk_id)
    writer.add_pad_token_id(tokenizer.pad_id)
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(False)
    writer.add_remove_extra_whitespaces(False)
    for stop in source.stop_ids[1:]:
        writer.add_eot_token_id(stop)
    if source.template is not None:
        writer.add_chat_template(chat_template(source.template, tokenizer, Marks.llamacpp()))


def _tensors(decoder: Decoder) -> dict[str, Tensor]:
    """Every tensor by llama.cpp's name, float32; a tied head is left out, llama.cpp takes the embedding then."""
    config, found = decoder.config, {}
    for name, value in decoder.state_dict().items():
        module = name.removesuffix(".weight")
        tensor = value.detach().float().cpu().contiguous()
        if module in _TOP:
            if not (module == "lm_head" and config.tied):
                found[f"{_TOP[module]}.weight"] = tensor
            continue
        _, _, layer, part = module.split(".", 3)  # model.layers.0.self_attn.q_proj
        if _NAMES[part] in ("attn_q", "attn_k"):
            tensor = _interleaved(tensor, config.n_heads if _NAMES[part] == "attn_q" else config.n_kv_heads)
        found[f"blk.{layer}.{_NAMES[part]}.weight"] = tensor
    if config.rope_scaling == "llama3":
        plain = config.rope_theta ** -(torch.arange(0, config.d_head, 2, dtype=torch.float32) / config.d_head)
        found["rope_freqs.weight"] = plain / rotary_frequencies(config)  # (E / 2,)
    return {name: torch.from_numpy(np.ascontiguousarray(tensor.numpy())) for name, tensor in found.items()}


def _interleaved(weight: Tensor, n_heads: int) -> Tensor:
    """Rows of each head in the order first of one half, first of the other, second …: (heads * E, D) -> same."""
    halves = weight.unflatten(0, (n_heads, 2, -1))  # (heads, 2, E / 2, D)
    return halves.transpose(1, 2).flatten(0, 2).contiguous()  # (heads * E, D)
