"""A model as a Hugging Face Llama folder, which transformers, vLLM, peft and many others load.

    config.json, model.safetensors, generation_config.json    the model; parameters have Llama's names already
    tokenizer.json, tokenizer_config.json                     the tokenizer with the same ids, and the chat template

`lumi.export.reading` reads such a folder back.
"""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from lumi.arch import DecoderConfig
from lumi.arch.weights import WEIGHTS
from lumi.errors import ConfigError
from lumi.export.chat_template import BORDER, GLUE, Marks, chat_template
from lumi.export.source import Source
from lumi.tokenizer import Tokenizer, to_huggingface
from lumi.tokenizer.huggingface import tokenizer_json

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

SAMPLING = {"do_sample": True, "temperature": 0.8, "top_p": 0.95}
"""What programs sample with that are told nothing else; as ``python evaluate.py prompt=…``."""


def write_huggingface(source: Source, folder: Path, dtype: str) -> None:
    """Write weights, configuration and tokenizer into ``folder``.

    Args:
        dtype: of the weights: float32, bfloat16 or float16.

    Raises:
        ConfigError: an unknown dtype, or weights that it cannot hold.
    """
    write_weights(source, folder, dtype)
    tokenizer = source.tokenizer
    _write(folder / "config.json", config_json(source.decoder.config, tokenizer, dtype))
    ids = {"bos_token_id": tokenizer.bos_id, "eos_token_id": source.stop_ids, "pad_token_id": tokenizer.pad_id}
    _write(folder / "generation_config.json", {**ids, **SAMPLING})
    to_huggingface(tokenizer, folder)
    _write(folder / "tokenizer.json", tokenizer_for_chat(tokenizer))
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_bytes())
    config["model_max_length"] = source.decoder.config.max_seq_len
    config["model_input_names"] = ["input_ids", "attention_mask"]  # a Llama has no token types
    if source.template is not None:
        config["chat_template"] = chat_template(source.template, tokenizer, Marks.huggingface(tokenizer))
    _write(path, config)


def write_weights(source: Source, folder: Path, dtype: str) -> None:
    """Write model.safetensors; a tied head is written once, as the embedding.

    Raises:
        ConfigError: an unknown dtype, or a weight beyond the largest number of it.
    """
    if dtype not in DTYPES:
        raise ConfigError(f"dtype={dtype}", f"must be one of {', '.join(DTYPES)} for a Hugging Face folder")
    tensors = {}
    for name, value in source.decoder.state_dict().items():
        if name == "lm_head.weight" and source.decoder.config.tied:
            continue
        tensors[name] = value.detach().to("cpu", DTYPES[dtype]).contiguous()
        if not tensors[name].isfinite().all():
            raise ConfigError(f"dtype={dtype}", f"cannot hold all of {name}", "dtype=bfloat16 or float32 can")
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})  # without it transformers refuses the file


def config_json(config: DecoderConfig, tokenizer: Tokenizer, dtype: str) -> dict[str, Any]:
    """The architecture in transformers' words."""
    rope: dict[str, Any] = {"rope_type": config.rope_scaling or "default", "rope_theta": config.rope_theta}
    if config.rope_scaling is not None:
        rope["factor"] = config.rope_factor
    if config.rope_scaling == "llama3":  # the constants of Llama 3.1, as in `lumi.arch.layers.rotary_frequencies`
        rope |= {"low_freq_factor": 1.0, "high_freq_factor": 4.0}
        rope["original_max_position_embeddings"] = config.rope_original_len
    legacy = {key: value for key, value in rope.items() if key != "rope_theta"}
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": config.vocab_size,
        "hidden_size": config.d_model,
        "intermediate_size": config.d_ff,
        "num_hidden_layers": config.n_layers,
        "num_attention_heads": config.n_heads,
        "num_key_value_heads": config.n_kv_heads,
        "head_dim": config.d_head,
        "max_position_embeddings": config.max_seq_len,
        "rms_norm_eps": config.norm_eps,
        "rope_parameters": rope,
        # The two that programs of before transformers 5 read.
        "rope_theta": config.rope_theta,
        "rope_scaling": legacy if config.rope_scaling is not None else None,
        "tie_word_embeddings": config.tied,
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "attention_dropout": 0.0,
        "initializer_range": config.init_std,
        "bos_token_id": tokenizer.bos_id,
        "eos_token_id": tokenizer.eos_id,
        "pad_token_id": tokenizer.pad_id,
        "dtype": dtype,
        "torch_dtype": dtype,
    }


def tokenizer_for_chat(tokenizer: Tokenizer) -> dict[str, Any]:
    """tokenizer.json with the marks of chat templates understood, and with bos before every text unless it is refused."""
    content = tokenizer_json(tokenizer)
    content["normalizer"] = {"type": "Replace", "pattern": {"String": GLUE}, "content": ""}
    cut = {"type": "Split", "pattern": {"String": BORDER}, "behavior": "Removed", "invert": False}
    others = [content["pre_tokenizer"]] if content["pre_tokenizer"] else []
    content["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [cut, *others]}
    bos = tokenizer.piece(tokenizer.bos_id)
    begin = {"SpecialToken": {"id": bos, "type_id": 0}}
    first, second = ({"Sequence": {"id": name, "type_id": number}} for number, name in enumerate("AB"))
    content["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [begin, first],
        "pair": [begin, first, second],
        "special_tokens": {bos: {"id": bos, "ids": [tokenizer.bos_id], "tokens": [bos]}},
    }
    return content


def _write(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
