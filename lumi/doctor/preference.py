"""Preference optimisation begins where policy and reference are one model: its first loss is known."""

import math

import torch

from lumi.doctor.finding import Finding, error, not_applicable, ok
from lumi.doctor.subject import Subject
from lumi.stage.dpo import DPO, compare

_FIRST = {"sigmoid": math.log(2), "hinge": 1.0, "kto": 1.0}
"""Loss of a pair when both answers are as likely as under the reference; ipo's depends on beta."""


def dpo_step_0(subject: Subject) -> Finding:
    """Before the first step the policy is the reference, so no pair has a margin yet: the loss of dpo is ln 2."""
    stage = subject.stage
    if not isinstance(stage, DPO):
        return not_applicable("not a preference stage")
    if not stage.needs_reference:
        return not_applicable(f"stage.objective.kind={stage.objective.kind} has no reference")
    few, objective = subject.few, stage.objective
    with torch.no_grad(), subject.precision():
        answers = compare(stage.decoder, few)
    ratios = float(answers.log_ratios.abs().max())
    expected = _FIRST.get(objective.kind, (1 / (2 * objective.strength)) ** 2)
    if objective.nll_weight:
        expected -= objective.nll_weight * float(answers.mean_policy[:, 0].mean())
    loss = subject.mean_loss(few)
    seen = f"first loss {loss:.4f} a pair, expected {expected:.4f}; log-ratios up to {ratios:.2g} nats"
    exact = subject.setup.resolved_precision() == "32-true"
    nats = 1e-2 if exact else 1.0  # a sum over an answer's tokens
    if ratios > nats:
        return error(
            seen,
            "policy and reference are not the same model: the loss pulls towards something else than the start",
            "reference and start are one checkpoint (init_from); an adapter begins with B = 0; remove "
            "data/reference/… if it was written by something else",
        )
    if abs(loss - expected) > max(2e-3, objective.strength * nats) * max(1.0, expected):
        return error(
            seen,
            "the loss is not the one that stage.objective.kind names",
            "see lumi/stage/objective.py, and how the stage pairs answers with reference",
        )
    adapter = " with the adapter on" if stage.lora is not None else ""
    return ok(f"{seen}: the policy is the reference{adapter}")
