"""Weights on disk: safetensors and JSON, checked before anything is allocated."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import safetensors
import torch
from safetensors.torch import save_file
from torch import Tensor

from lumi.arch.config import DecoderConfig
from lumi.arch.decoder import Decoder
from lumi.errors import CheckpointError, LumiError
from lumi.strangers import read_object

WEIGHTS = "model.safetensors"
CONFIG = "decoder.json"
LONGEST = 2**20
"""Tokens of a window, for a model from a file."""
_DTYPES = ("F32", "BF16", "F16")


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
    state = load_state(folder, config)
    decoder = Decoder(config)
    decoder.load_state_dict(state)
    return decoder


def load_state(folder: Path, config: DecoderConfig) -> dict[str, Tensor]:
    """The state dict in ``folder``, complete and of the shapes that ``config`` describes.

    Raises:
        CheckpointError: a tensor is missing, unknown, or of another shape or type.
    """
    return load_files([folder / WEIGHTS], config)


def load_files(files: Sequence[Path], config: DecoderConfig) -> dict[str, Tensor]:
    """A decoder's state from one or several files; sizes and shapes are compared before any tensor is read.

    Raises:
        CheckpointError: as `load_state`.
    """
    size = sum(path.stat().st_size for path in files if path.is_file())
    if size and size < config.n_params() * 2:  # two bytes are the least that a weight takes
        raise CheckpointError(
            f"{files[0]}", f"is too small for the {config.n_params():,} parameters of its configuration"
        )
    with torch.device("meta"):
        expected = {name: tuple(value.shape) for name, value in Decoder(config).state_dict().items()}
    if config.tied:
        del expected["lm_head.weight"]
    state: dict[str, Tensor] = {}
    for path in files:
        state |= read_tensors(path, expected)
    for name in sorted(expected.keys() - state.keys()):
        raise CheckpointError(f"{files[0]}", f"the tensor {name} is missing")
    if config.tied:
        state["lm_head.weight"] = state["model.embed_tokens.weight"]
    return state


def read_tensors(path: Path, expected: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """The tensors of a file, each of the shape that is expected of its name.

    Raises:
        CheckpointError: the file is no safetensors, or holds something else.
    """
    state = {}
    try:
        with safetensors.safe_open(path, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118  # not a mapping
                if name == "lm_head.weight" and name not in expected:
                    continue  # of a tied model, written by another program
                header = tensors.get_slice(name)
                shape, dtype = tuple(header.get_shape()), header.get_dtype()
                if name not in expected:
                    raise CheckpointError(f"{path}", f"the tensor {name} is not part of this architecture")
                if shape != expected[name] or dtype not in _DTYPES:
                    needed = f"{expected[name]} in {', '.join(_DTYPES)}"
                    raise CheckpointError(f"{path}", f"the tensor {name} is {shape} in {dtype}, not {needed}")
                state[name] = tensors.get_tensor(name)
    except (OSError, safetensors.SafetensorError) as error:
        raise CheckpointError(f"{path}", f"cannot be read ({error})") from None
    return state


def read_config(folder: Path) -> DecoderConfig:
    """The architecture in ``folder``.

    Raises:
        CheckpointError: it is missing, not JSON, or breaks a rule of `DecoderConfig`.
    """
    path = folder / CONFIG
    fields = read_object(path, CheckpointError, what="a decoder's configuration")
    try:
        config = DecoderConfig(**fields)
    except (TypeError, LumiError) as error:
        raise CheckpointError(f"{path}", f"is not a decoder's configuration ({error})") from None
    if config.max_seq_len > LONGEST:  # a table of this length is made, whatever the weights are
        raise CheckpointError(f"{path}: max_seq_len={config.max_seq_len}", f"must be at most {LONGEST:,}")
    return config
