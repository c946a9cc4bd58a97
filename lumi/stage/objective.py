"""Preference losses as one axis: per pair, from log-probabilities alone.

Notation: pi the policy's and ref the reference's log-probability of an answer, c the chosen and r the rejected one, |y| the
tokens of an answer, sigma the logistic function. ``gap = (pi_c - ref_c) - (pi_r - ref_r)``.
"""

import dataclasses
import math
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from lumi.errors import ConfigError

Kind = Literal["sigmoid", "hinge", "ipo", "simpo", "orpo", "kto"]
NEEDS_REFERENCE = ("sigmoid", "hinge", "ipo", "kto")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Answers:
    """What a loss sees of a batch of P pairs; in each array, column 0 is the chosen answer.

    Attributes:
        policy: (P, 2) summed log-probabilities, differentiable.
        reference: (P, 2) the same under the reference model; zeros for a loss without one.
        lengths: (P, 2) supervised tokens.
    """

    policy: Tensor
    reference: Tensor
    lengths: Tensor

    @property
    def log_ratios(self) -> Tensor:
        """(P, 2) how much likelier the policy finds an answer than the reference does."""
        return self.policy - self.reference

    @property
    def mean_policy(self) -> Tensor:
        """(P, 2) log-probability per token."""
        return self.policy / self.lengths


@dataclasses.dataclass(frozen=True, kw_only=True)
class Objective:
    """Which loss, and how strong (``stage.objective.kind=…``).

    Attributes:
        kind: sigmoid (DPO, arXiv:2305.18290, equation 7), hinge (SLiC, arXiv:2305.10425), ipo (arXiv:2310.12036, equation
            17), simpo (arXiv:2405.14734, equation 6), orpo (arXiv:2403.07691, equations 4 to 7), kto (arXiv:2402.01306,
            on pairs: each answer against the batch's mean log-ratio of the opposite kind).
        beta: strength of the preference against staying with the reference; in ORPO the weight of the odds ratio. Null is 2 for
            simpo, whose rewards are means over tokens, and 0.1 for the others, as their papers do.
        label_smoothing: probability that a label is wrong, for sigmoid (arXiv:2310.12036, conservative DPO).
        margin: of SimPO only: by how much the chosen answer should lead, in units of its reward; null is half a beta.
        nll_weight: adds so much of the chosen answer's mean negative log-likelihood, which keeps its likelihood from falling
            (arXiv:2404.19733).
        reference_free: take the reference as uniform.
    """

    kind: Kind = "sigmoid"
    beta: float | None = None
    label_smoothing: float = 0.0
    margin: float | None = None
    nll_weight: float = 0.0
    reference_free: bool = False

    def __post_init__(self) -> None:
        """Raises ConfigError when a value is out of range."""
        if self.kind not in get_args(Kind):
            raise ConfigError(f"stage.objective.kind={self.kind}", f"must be one of {', '.join(get_args(Kind))}")
        if self.beta is not None and (not math.isfinite(self.beta) or self.beta <= 0):
            raise ConfigError(f"stage.objective.beta={self.beta}", "must be above 0, or null")
        if not 0.0 <= self.label_smoothing < 0.5:
            raise ConfigError(f"stage.objective.label_smoothing={self.label_smoothing}", "must be in [0, 0.5)")
        if self.label_smoothing and self.kind != "sigmoid":
            raise ConfigError(
                f"stage.objective.label_smoothing={self.label_smoothing}", "is defined for kind=sigmoid only", "use 0"
            )
        if self.margin is not None and self.kind != "simpo":
            raise ConfigError(f"stage.objective.margin={self.margin}", "is of kind=simpo only", "use null")
        if self.reference_free and self.kind not in NEEDS_REFERENCE:
            raise ConfigError("stage.objective.reference_free=true", f"kind={self.kind} has no reference", "use false")
        if self.nll_weight < 0:
            raise ConfigError(f"stage.objective.nll_weight={self.nll_weight}", "must be 0 or more")

    @property
    def strength(self) -> float:
        """``beta``, or the usual one of this kind."""
        return self.beta if self.beta is not None else 2.0 if self.kind == "simpo" else 0.1

    @property
    def needs_reference(self) -> bool:
        """Whether the reference model's log-probabilities take part."""
        return self.kind in NEEDS_REFERENCE and not self.reference_free

    def per_pair(self, answers: Answers) -> Tensor:
        """(P,) losses."""
        if not self.needs_reference:
            answers = dataclasses.replace(answers, reference=torch.zeros_like(answers.reference))
        loss = _LOSSES[self.kind](self, answers)
        if self.nll_weight:
            loss = loss - self.nll_weight * answers.mean_policy[:, 0]
        return loss

    def rewards(self, answers: Answers) -> Tensor:
        """(P, 2) implicit rewards, whose difference is the margin that is logged."""
        if self.kind in ("simpo", "orpo"):
            return self.strength * answers.mean_policy
        if not self.needs_reference:
            return self.strength * answers.policy
        return self.strength * answers.log_ratios


def _gap(answers: Answers) -> Tensor:
    return answers.log_ratios[:, 0] - answers.log_ratios[:, 1]


def _sigmoid(objective: Objective, answers: Answers) -> Tensor:
    logit, wrong = objective.strength * _gap(answers), objective.label_smoothing
    return -(1 - wrong) * F.logsigmoid(logit) - wrong * F.logsigmoid(-logit)


def _hinge(objective: Objective, answers: Answers) -> Tensor:
    return torch.relu(1 - objective.strength * _gap(answers))


def _ipo(objective: Objective, answers: Answers) -> Tensor:
    return (_gap(answers) - 1 / (2 * objective.strength)) ** 2


def _simpo(objective: Objective, answers: Answers) -> Tensor:
    means = answers.mean_policy
    margin = objective.strength / 2 if objective.margin is None else objective.margin
    return -F.logsigmoid(objective.strength * (means[:, 0] - means[:, 1]) - margin)


def _orpo(objective: Objective, answers: Answers) -> Tensor:
    means = answers.mean_policy
    log_odds = means - _log1mexp(means)  # (P, 2) log p - log (1 - p), p the geometric mean over tokens
    return -means[:, 0] - objective.strength * F.logsigmoid(log_odds[:, 0] - log_odds[:, 1])


def _kto(objective: Objective, answers: Answers) -> Tensor:
    ratios = answers.log_ratios
    # Estimates of the divergence from the reference, without gradient and never negative, as in the paper.
    baseline = ratios.detach().mean(dim=0).clamp(min=0)  # (2,)
    chosen = 1 - torch.sigmoid(objective.strength * (ratios[:, 0] - baseline[1]))
    rejected = 1 - torch.sigmoid(objective.strength * (baseline[0] - ratios[:, 1]))
    return chosen + rejected


def _log1mexp(x: Tensor) -> Tensor:
    """log(1 - exp(x)) for x < 0 without cancellation (Maechler 2012)."""
    x = x.clamp(max=-1e-7)
    return torch.where(x > -math.log(2), torch.log(-torch.expm1(x)), torch.log1p(-torch.exp(x)))


_LOSSES = {
    "sigmoid": _sigmoid,
    "hinge": _hinge,
    "ipo": _ipo,
    "simpo": _simpo,
    "orpo": _orpo,
    "kto": _kto,
}
