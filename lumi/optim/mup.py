"""Rates that do not move when the model grows wider: the maximal update parametrisation (``optim=mup_adamw``, ``mup_muon``).

Table 8 of arXiv:2203.03466 (Adam), with m = d_model / base_width:

| weight | initial deviation | factor on its output | rate |
|---|---|---|---|
| embedding, norms | 1 | 1 | 1 |
| matrices of the blocks | 1 / sqrt(m) | 1 | 1 / m |
| output head, also when it is the embedding | 1 | 1 / m | 1 |

all relative to the model of the base width, so that at ``base_width`` it is ``optim=adamw`` bit for bit. The factor on the
logits stands in the gain of the final norm: a gain that begins at 1 / m and moves at a rate of 1 / m is the same function at
every step as a factor of 1 / m behind a usual gain, because Adam's steps do not depend on the gradient's size. So the model
stays a plain Llama, in checkpoints, exports and generation.

Wider means more heads of one size and ``d_ff`` in proportion; depth and head size stay (with growing heads the scores would
need 1 / E instead of 1 / sqrt(E)).

Muon makes every update of a matrix orthogonal: its spectral norm is what the rate says, and should stay the same at every
width as long as the matrix keeps its proportions (arXiv:2310.17813). On AdamW's scale (`lumi.optim.muon`) it grows with the
root of the longer side, so that its rate is divided by sqrt(m); everything else is as in the table.
"""

import dataclasses
from typing import Any

import torch
from torch import nn

from lumi.errors import ConfigError
from lumi.optim.recipe import AdamW, Muon, NamedParameters, fused_adamw, is_of_block, split_decay

_FINAL_GAIN = "model.norm.weight"
_QUERY_KEY = (".q_proj.", ".k_proj.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class MupAdamW(AdamW):
    """AdamW in the maximal update parametrisation (arXiv:2203.03466); the other keys as in `AdamW`.

    Attributes:
        base_width: ``d_model`` of the model whose rate, decay and initial weights are meant; usually the small one that they
            were found on.
    """

    base_width: int

    def __post_init__(self) -> None:
        """Raises ConfigError when a value is out of range."""
        super().__post_init__()
        _check_width(self.base_width)

    def initialise(self, parameters: NamedParameters, *, init_qk_std: float | None) -> None:
        """Turn the decoder's own initial weights into those of this parametrisation, in place."""
        _scale_initial(list(parameters), self.base_width, init_qk_std)

    def optimizer(self, parameters: NamedParameters) -> torch.optim.Optimizer:
        """AdamW's two groups, each parted by its rate.

        Decay pulls at ``rate * weight_decay``, which is to be the same at every width (arXiv:2405.13698): where the rate is
        divided by m, the decay is multiplied by it.
        """
        named = list(parameters)
        ratio = _ratio(named, self.base_width)
        slow = {name for name, p in named if name == _FINAL_GAIN or is_of_block(name, p)} if ratio != 1 else set()
        groups = []
        for divisor, part in (
            (1.0, [(name, p) for name, p in named if name not in slow]),
            (ratio, [(name, p) for name, p in named if name in slow]),
        ):
            for chosen, decay in zip(split_decay(part), (self.weight_decay * divisor, 0.0), strict=True):
                groups.append({"params": chosen, "weight_decay": decay, "peak_lr": self.lr / divisor})
        return fused_adamw([group for group in groups if group["params"]], self)


@dataclasses.dataclass(frozen=True, kw_only=True)
class MupMuon(Muon):
    """Muon in the maximal update parametrisation, by the spectral norm of its updates; the other keys as in `Muon`.

    Attributes:
        base_width: ``d_model`` of the model whose rates, decay and initial weights are meant.
    """

    base_width: int

    def __post_init__(self) -> None:
        """Raises ConfigError when a value is out of range."""
        super().__post_init__()
        _check_width(self.base_width)

    def initialise(self, parameters: NamedParameters, *, init_qk_std: float | None) -> None:
        """Turn the decoder's own initial weights into those of this parametrisation, in place."""
        _scale_initial(list(parameters), self.base_width, init_qk_std)

    def _groups(self, named: list[tuple[str, nn.Parameter]]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Muon's rate divided by sqrt(m), and a group more for the gain that stands for the factor on the logits."""
        ratio = _ratio(named, self.base_width)
        muon, others = super()._groups([(name, p) for name, p in named if ratio == 1 or name != _FINAL_GAIN])
        muon |= {"peak_lr": self.lr / ratio**0.5, "weight_decay": self.weight_decay * ratio**0.5}
        if ratio != 1:
            others.append({"params": [dict(named)[_FINAL_GAIN]], "weight_decay": 0.0, "peak_lr": self.adamw_lr / ratio})
        return muon, others


def _check_width(base_width: int) -> None:
    if base_width < 1:
        raise ConfigError(f"optim.base_width={base_width}", "must be at least 1", "give d_model of a small model")


@torch.no_grad()
def _scale_initial(named: list[tuple[str, nn.Parameter]], base_width: int, init_qk_std: float | None) -> None:
    ratio = _ratio(named, base_width)
    for name, parameter in named:
        is_scaled = init_qk_std is None and any(part in name for part in _QUERY_KEY)  # 1 / sqrt(d_model) already
        if name == _FINAL_GAIN:
            parameter.div_(ratio)
        elif is_of_block(name, parameter) and not is_scaled:
            parameter.mul_(ratio**-0.5)


def _ratio(named: list[tuple[str, nn.Parameter]], base_width: int) -> float:
    """m: how many times wider than the base."""
    width = next((len(parameter) for name, parameter in named if name == _FINAL_GAIN), None)
    if width is None:
        raise ConfigError(
            "optim=mup_adamw and optim=mup_muon",
            "train all weights of a model, not an adapter",
            "use optim=adamw_sft, or stage.lora=null",
        )
    return width / base_width
