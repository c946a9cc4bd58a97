"""Weights on disk: safetensors and JSON, checked before anything is allocated."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from lumi.arch.config import DecoderConfig
from lumi.arch.decoder import Decoder
from lumi.errors import CheckpointError, LumiError

WEIGHTS = "model.safetensors"
CONFIG = "decoder.json"


def save_weights(folder: Path, state: dict[str, Tensor], config: DecoderConfig) -> None:
    """Write a decoder's state and configuration into ``folder``; a tied head is written once, as the embedding."""
    tensors = {name: value.detach().contiguous().cpu() for name, value in state.items()}
    if config.tied:
        tensors.pop("lm_head.weight", None)
    save_file(tensors, folder / WEIGHTS)
    (folder / CONFIG).write_text(json.dumps(dataclasses.asdict(config), indent=2) + "\n")


def load_decoder(folder: Path) -> Decoder:
    """The decoder in ``folder``, on the CPU.

    Raises:
        CheckpointError: the configuration is not one of ours, or the weights are not those it describes.
    """
    config = read_config(folder)
    path = folder / WEIGHTS
    if path.is_file() and config.n_params() * 2 > path.stat().st_size:  # 2 bytes is the least that a weight takes
        raise CheckpointError(f"{path}", f"is too small for the {config.n_params():,} parameters of its configuration")
    state = load_state(folder, config)
    decoder = Decoder(config)
    decoder.load_state_dict(state)
    return decoder


def load_state(folder: Path, config: DecoderConfig) -> dict[str, Tensor]:
    """The state dict in ``folder``, complete and of the shapes that ``config`` describes.

    Raises:
        CheckpointError: a tensor is missing, unknown, or of another shape.
    """
    try:
        state = load_file(folder / WEIGHTS)
    except (OSError, safetensors.SafetensorError) as error:
        raise CheckpointError(f"{folder / WEIGHTS}", f"cannot be read ({error})") from None
    if config.tied and "model.embed_tokens.weight" in state:
        state["lm_head.weight"] = state["model.embed_tokens.weight"]
    with torch.device("meta"):
        expected = {name: value.shape for name, value in Decoder(config).state_dict().items()}
    for name in sorted(expected.keys() ^ state.keys()):
        what = "is missing" if name in expected else "is not part of this architecture"
        raise CheckpointError(f"{folder / WEIGHTS}", f"the tensor {name} {what}")
    for name, shape in expected.items():
        if state[name].shape != shape:
            raise CheckpointError(
                f"{folder / WEIGHTS}", f"the tensor {name} is {tuple(state[name].shape)}, not {tuple(shape)}"
            )
    return state


def read_config(folder: Path) -> DecoderConfig:
    """The architecture in ``folder``.

    Raises:
        CheckpointError: it is missing, not JSON, or breaks a rule of `DecoderConfig`.
    """
    path = folder / CONFIG
    try:
        fields: dict[str, Any] = json.loads(path.read_bytes())
        return DecoderConfig(**fields)
    except (OSError, ValueError, TypeError, LumiError) as error:
        raise CheckpointError(f"{path}", f"is not a decoder's configuration ({error})") from None
