"""Optimizers as settings: which parameters get which update, rate and decay.

Weight decay acts on matrices that multiply activations. Norm gains and embeddings (also when tied to the head) have none:
decay would pull gains to zero and shrink the rows of rare tokens, which get no gradient to push back.
"""

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from lumi.errors import ConfigError
from lumi.optim.muon import MuonStep
from lumi.optim.schedule import Schedule

NamedParameters = Iterable[tuple[str, nn.Parameter]]


class Recipe(Protocol):
    """What a stage asks of an optimizer's settings.

    Attributes:
        schedule: factor on every rate, by step.
        clip_norm: gradients are scaled down to this norm; null is off.
    """

    schedule: Schedule
    clip_norm: float | None

    def initialise(self, parameters: NamedParameters, *, init_qk_std: float | None) -> None:
        """Change new weights in place, where the rates expect others than the decoder's own (``arch.init_…``)."""
        ...

    def optimizer(self, parameters: NamedParameters) -> torch.optim.Optimizer:
        """A new optimizer; each group keeps its peak rate as ``peak_lr``."""
        ...

    def state_bytes(self, parameters: NamedParameters) -> int:
        """What the optimizer will remember of these parameters, in bytes."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdamW:
    """Adam with decoupled weight decay (arXiv:1711.05101).

    Attributes:
        lr: peak learning rate.
        schedule: ``optim/schedule=…``.
        betas: decay of the first and second moment, per step.
        eps: added to the root of the second moment.
        weight_decay: per step, times the rate.
        clip_norm: largest norm of the whole gradient; null is off.
    """

    lr: float
    schedule: Schedule
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-8
    weight_decay: float = 0.1
    clip_norm: float | None = 1.0

    def __post_init__(self) -> None:
        """Raises ConfigError when a value is out of range."""
        _check_common(self)

    def initialise(self, parameters: NamedParameters, *, init_qk_std: float | None) -> None:
        """The decoder's own weights stay."""

    def state_bytes(self, parameters: NamedParameters) -> int:
        """Two moments."""
        return sum(2 * parameter.nbytes for _, parameter in parameters)

    def optimizer(self, parameters: NamedParameters) -> torch.optim.Optimizer:
        """Two groups: with decay, and without."""
        decayed, plain = split_decay(parameters)
        groups = [
            {"params": decayed, "weight_decay": self.weight_decay, "peak_lr": self.lr},
            {"params": plain, "weight_decay": 0.0, "peak_lr": self.lr},
        ]
        return fused_adamw(groups, self)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Muon:
    """Muon for the matrices of the blocks, AdamW for embeddings, head and norms (Jordan et al. 2024; arXiv:2502.16982).

    Muon orthogonalises the momentum of each matrix by a few Newton-Schulz steps. Rates are scaled so that its updates have
    AdamW's root mean square, hence one ``lr`` range serves both.

    Attributes:
        lr: peak rate of Muon.
        adamw_lr: peak rate of the AdamW part.
        schedule: ``optim/schedule=…``.
        momentum: of Muon, with Nesterov's look-ahead.
        newton_schulz_steps: iterations of the orthogonalisation.
        betas, eps: of the AdamW part.
        weight_decay: per step, times the rate.
        clip_norm: largest norm of the whole gradient; null is off.
    """

    lr: float
    adamw_lr: float
    schedule: Schedule
    momentum: float = 0.95
    newton_schulz_steps: int = 5
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-8
    weight_decay: float = 0.1
    clip_norm: float | None = 1.0

    def __post_init__(self) -> None:
        """Raises ConfigError when a value is out of range."""
        _check_common(self)
        if self.adamw_lr <= 0:
            raise ConfigError(f"optim.adamw_lr={self.adamw_lr}", "must be above 0")

    def initialise(self, parameters: NamedParameters, *, init_qk_std: float | None) -> None:
        """The decoder's own weights stay."""

    def state_bytes(self, parameters: NamedParameters) -> int:
        """One momentum of a block's matrix, two moments of the rest."""
        return sum((1 if is_of_block(name, p) else 2) * p.nbytes for name, p in parameters)

    def optimizer(self, parameters: NamedParameters) -> torch.optim.Optimizer:
        """Muon's group first, then AdamW's two."""
        muon, others = self._groups(list(parameters))
        first = MuonStep(
            [{**muon, "lr": muon["peak_lr"]}],
            lr=self.lr,
            weight_decay=self.weight_decay,
            momentum=self.momentum,
            ns_steps=self.newton_schulz_steps,
        )
        return Together(first, fused_adamw([group for group in others if group["params"]], self))

    def _groups(self, named: list[tuple[str, nn.Parameter]]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Of Muon, and of AdamW."""
        blocks = [(name, p) for name, p in named if is_of_block(name, p)]
        chosen = {name for name, _ in blocks}
        decayed, plain = split_decay((name, p) for name, p in named if name not in chosen)
        others = [
            {"params": decayed, "weight_decay": self.weight_decay, "peak_lr": self.adamw_lr},
            {"params": plain, "weight_decay": 0.0, "peak_lr": self.adamw_lr},
        ]
        return {"params": [p for _, p in blocks], "weight_decay": self.weight_decay, "peak_lr": self.lr}, others


def is_of_block(name: str, parameter: nn.Parameter) -> bool:
    """Whether it is a matrix that Muon updates."""
    return parameter.dim() == 2 and ".layers." in name


class Together(torch.optim.Optimizer):
    """Several optimizers on disjoint parameters, used and saved as one.

    Attributes:
        grad_scale, found_inf: for each part, as the fused kernels of PyTorch's optimizers take them.
    """

    grad_scale: Tensor | None = None
    found_inf: Tensor | None = None

    def __init__(self, *parts: torch.optim.Optimizer) -> None:
        self.parts = parts
        super().__init__([group for part in parts for group in part.param_groups], {})
        # The very same dicts: setting a rate here sets it in the part.
        self.param_groups = [group for part in parts for group in part.param_groups]

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """One step of each part; the closure runs once, before them."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for part in self.parts:
            part.grad_scale, part.found_inf = self.grad_scale, self.found_inf  # pyright: ignore[reportAttributeAccessIssue]
            part.step()
        return loss

    def state_dict(self) -> dict[str, Any]:
        """The parts' states, in order."""
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the parts."""
        for part, state in zip(self.parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
        self.param_groups = [group for part in self.parts for group in part.param_groups]


def split_decay(parameters: NamedParameters) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Parameters with weight decay, and without: norms (one dimension), embeddings, and what is trained in some rows only."""
    decayed, plain = [], []
    for name, parameter in parameters:
        is_matrix = parameter.dim() >= 2 and "embed_tokens" not in name
        has_decay = is_matrix and not getattr(parameter, "partly_trained", False)
        (decayed if has_decay else plain).append(parameter)
    return decayed, plain


def fused_adamw(groups: list[dict[str, Any]], recipe: AdamW | Muon) -> torch.optim.Optimizer:
    """PyTorch's AdamW; each group starts at its peak rate."""
    groups = [{**group, "lr": group["peak_lr"]} for group in groups]
    optimizer = torch.optim.AdamW(groups, betas=recipe.betas, eps=recipe.eps, fused=True)
    # With fp16 the fused kernel would offer to undo the loss scale inside the step; but the norm is measured and clipped
    # before that, and must not see 65,536 times the gradient. Saying no makes Lightning unscale first.
    optimizer._step_supports_amp_scaling = False
    return optimizer


def _check_common(recipe: AdamW | Muon) -> None:
    if recipe.lr <= 0:
        raise ConfigError(f"optim.lr={recipe.lr}", "must be above 0")
    if len(recipe.betas) != 2 or not all(0.0 <= beta < 1.0 for beta in recipe.betas):
        raise ConfigError(f"optim.betas={list(recipe.betas)}", "must be two numbers in [0, 1)")
    if recipe.weight_decay < 0:
        raise ConfigError(f"optim.weight_decay={recipe.weight_decay}", "must be 0 or more")
    if recipe.clip_norm is not None and recipe.clip_norm <= 0:
        raise ConfigError(f"optim.clip_norm={recipe.clip_norm}", "must be above 0, or null for no clipping")
