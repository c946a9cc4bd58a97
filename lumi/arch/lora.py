"""Low-rank adapters on a decoder, by peft: added, saved beside the frozen weights, merged into them.

Projections are named as in Hugging Face's Llama, so that an adapter trained here fits the exported model.
"""

import copy
import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from lumi.arch.decoder import Decoder
from lumi.arch.low_rank import quick_class
from lumi.errors import CheckpointError, ConfigError
from lumi.strangers import read_object

ADAPTER = "adapter_model.safetensors"
ADAPTER_CONFIG = "adapter_config.json"

PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
_HUB_PREFIX = "base_model.model."  # how peft's own files name a model's parameters
_MAGNITUDE = ".lora_magnitude_vector"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Lora:
    """Low-rank adaptation: each weight W becomes W + scale * B A (arXiv:2106.09685).

    Attributes:
        r: rank of B A.
        alpha: the scale is alpha / r, or alpha / sqrt(r) with ``rank_stabilised``.
        dropout: of the adapter's input, while training.
        targets: which projections; all linear layers of the blocks by default. Never the head, which may be tied.
        rank_stabilised: scale by sqrt(r), so that a larger rank learns as fast (arXiv:2312.03732).
        dora: learn direction and magnitude apart (arXiv:2402.09353).
        control_rows: also train the rows of control tokens in the embedding and the head. Pretraining never sees a chat
            marker, so its row is still noise, and no adapter on frozen weights can read it or make the model write it.
        merge: also leave the model with the adapter added into its weights, in ``merged/`` of the run's folder.
    """

    r: int = 16
    alpha: float = 32.0
    dropout: float = 0.0
    targets: Sequence[str] = PROJECTIONS
    rank_stabilised: bool = False
    dora: bool = False
    control_rows: bool = True
    merge: bool = False

    def __post_init__(self) -> None:
        """Raises ConfigError when a value is out of range."""
        if self.r < 1:
            raise ConfigError(f"stage.lora.r={self.r}", "must be at least 1", "stage.lora=null trains all weights")
        if not math.isfinite(self.alpha) or self.alpha <= 0:
            raise ConfigError(f"stage.lora.alpha={self.alpha}", "must be above 0")
        if not 0.0 <= self.dropout < 1.0:
            raise ConfigError(f"stage.lora.dropout={self.dropout}", "must be in [0, 1)")
        unknown = [name for name in self.targets if name not in PROJECTIONS]
        if unknown or not self.targets:
            raise ConfigError(f"stage.lora.targets={list(self.targets)}", f"must be some of {', '.join(PROJECTIONS)}")


def add_adapter(decoder: Decoder, lora: Lora, control: Tensor | None = None) -> None:
    """Put an adapter on a decoder, in place: B is zero, so it computes what it did; only the adapter has gradients.

    Args:
        control: (C,) ids of the control tokens, whose rows are trained too with ``lora.control_rows``; they belong to the
            weights under the adapter.
    """
    from peft import LoraConfig, inject_adapter_in_model  # seven seconds of import: only where it is used

    for parameter in decoder.parameters():
        parameter.requires_grad_(False)
    inject_adapter_in_model(LoraConfig(**_peft_settings(lora)), decoder)
    for module in decoder.modules():
        if hasattr(module, "lora_A"):
            module.__class__ = quick_class()
    if control is not None and lora.control_rows:
        _train_rows(decoder, control)


def _train_rows(decoder: Decoder, rows: Tensor) -> None:
    """Let gradients into these rows of embedding and head only."""
    for weight in {id(p): p for p in (decoder.model.embed_tokens.weight, decoder.lm_head.weight)}.values():
        chosen = torch.zeros(len(weight), 1, dtype=torch.bool)
        chosen[rows] = True
        weight.requires_grad_(True)
        # A row without a gradient has no moment either, so Adam leaves it as it is, to the last bit; decay must too.
        weight.register_hook(lambda gradient, chosen=chosen: gradient * chosen.to(gradient.device))
        weight.trained_rows = rows  # pyright: ignore[reportAttributeAccessIssue]  # seen by lumi.arch.loss
        weight.partly_trained = True  # pyright: ignore[reportAttributeAccessIssue]  # seen by lumi.optim.recipe.split_decay


def merge_adapter(decoder: Decoder) -> Decoder:
    """The same decoder with its adapter added into its weights, in place; afterwards nothing of peft is left in it."""
    for name, module in list(decoder.named_modules()):
        if hasattr(module, "base_layer") and hasattr(module, "merge"):
            merge: Any = module.merge
            merge(safe_merge=True)
            parent, _, child = name.rpartition(".")
            setattr(decoder.get_submodule(parent), child, module.base_layer)
    return decoder.requires_grad_(True)


def merged_weight(projection: nn.Linear) -> Tensor:
    """The matrix of a projection, with an adapter on it added in; the projection stays as it is."""
    if not hasattr(projection, "base_layer"):
        return projection.weight
    copied: Any = copy.deepcopy(projection)
    copied.merge(safe_merge=True)
    return copied.base_layer.weight


def split_state(state: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """A decoder's state as the weights under the adapter, in their plain names, and the adapter's own."""
    adapter = {name: value for name, value in state.items() if ".lora_" in name}
    base = {name.replace(".base_layer.", "."): value for name, value in state.items() if name not in adapter}
    return base, adapter


def join_state(base: dict[str, Tensor], adapter: dict[str, Tensor]) -> dict[str, Tensor]:
    """What `split_state` took apart."""
    wrapped = {name.partition(".lora_")[0] for name in adapter}
    named = {}
    for name, value in base.items():
        module, _, parameter = name.rpartition(".")
        named[f"{module}.base_layer.{parameter}" if module in wrapped else name] = value
    return {**named, **adapter}


def save_adapter(folder: Path, adapter: dict[str, Tensor], lora: Lora) -> None:
    """Write an adapter as peft does, so that it loads over the exported model too."""
    named = {_HUB_PREFIX + _to_hub(name): value.detach().contiguous().cpu() for name, value in adapter.items()}
    save_file(named, folder / ADAPTER)
    settings = {**_peft_settings(lora), "peft_type": "LORA", "task_type": "CAUSAL_LM", "bias": "none"}
    (folder / ADAPTER_CONFIG).write_text(json.dumps(settings, indent=2) + "\n")


def load_adapter(folder: Path) -> tuple[dict[str, Tensor], Lora]:
    """The adapter in ``folder``, in the decoder's own names, and its settings.

    Raises:
        CheckpointError: it cannot be read.
    """
    settings = read_object(folder / ADAPTER_CONFIG, CheckpointError)
    try:
        lora = Lora(
            r=settings["r"],
            alpha=float(settings["lora_alpha"]),
            dropout=settings["lora_dropout"],
            targets=sorted(settings["target_modules"], key=PROJECTIONS.index),
            rank_stabilised=settings["use_rslora"],
            dora=settings["use_dora"],
        )
    except (ValueError, OverflowError, KeyError, TypeError, ConfigError) as error:
        raise CheckpointError(f"{folder / ADAPTER_CONFIG}", f"cannot be read ({error!r})") from None
    try:
        tensors = load_file(folder / ADAPTER)
    except (OSError, ValueError, KeyError, TypeError, safetensors.SafetensorError) as error:
        raise CheckpointError(f"{folder / ADAPTER}", f"cannot be read ({error!r})") from None
    # Before anything of that size is made: the file has bytes for its tensors, its settings may say any number.
    ranks = sorted({value.shape[0] if value.ndim else 0 for name, value in tensors.items() if "lora_A" in name})
    if ranks != [lora.r]:
        raise CheckpointError(f"{folder / ADAPTER_CONFIG}: r={lora.r}", f"the weights have {ranks}")
    return {_from_hub(name.removeprefix(_HUB_PREFIX)): value for name, value in tensors.items()}, lora


def attach_adapter(decoder: Decoder, folder: Path) -> None:
    """Load the adapter in ``folder`` onto a plain decoder.

    Raises:
        CheckpointError: it was made for another architecture.
    """
    adapter, lora = load_adapter(folder)
    add_adapter(decoder, lora)
    mine = {name: value for name, value in decoder.state_dict().items() if ".lora_" in name}
    wrong = sorted(mine.keys() ^ adapter.keys()) or [n for n, v in mine.items() if v.shape != adapter[n].shape]
    if wrong:
        raise CheckpointError(f"{folder / ADAPTER}", f"does not fit the model ({wrong[0]})", "take its own base model")
    decoder.load_state_dict(adapter, strict=False)


def _peft_settings(lora: Lora) -> dict[str, Any]:
    return {
        "r": lora.r,
        "lora_alpha": lora.alpha,
        "lora_dropout": lora.dropout,
        "target_modules": list(lora.targets),
        "use_rslora": lora.rank_stabilised,
        "use_dora": lora.dora,
    }


def _to_hub(name: str) -> str:
    name = name.replace(".default", "")
    return name.removesuffix(".weight") if _MAGNITUDE in name else name


def _from_hub(name: str) -> str:
    if _MAGNITUDE in name:
        return f"{name.removesuffix('.weight')}.default.weight"
    head, _, parameter = name.rpartition(".")
    return f"{head}.default.{parameter}"
