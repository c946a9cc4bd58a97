"""Each preference loss against numbers worked by hand, and its gradient against finite differences."""

import math

import pytest
import torch

from lumi.errors import ConfigError
from lumi.stage.objective import Answers, Objective

POLICY = torch.tensor([[-2.0, -5.0], [-3.0, -4.0]], dtype=torch.float64)
REFERENCE = torch.tensor([[-2.5, -4.0], [-3.0, -4.5]], dtype=torch.float64)
LENGTHS = torch.tensor([[2.0, 5.0], [3.0, 2.0]], dtype=torch.float64)
GAPS = [1.5, -0.5]  # (0.5 + 1.0), (0.0 - 0.5)


def answers(policy=POLICY, reference=REFERENCE) -> Answers:
    return Answers(policy=policy, reference=reference, lengths=LENGTHS)


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


def kto(pair: int) -> float:
    ratios = [(0.5, -1.0), (0.0, 0.5)][pair]
    base = (0.25, 0.0)  # means 0.25 and -0.25, the latter clamped
    sigmoid = lambda x: 1 / (1 + math.exp(-x))  # noqa: E731
    return 2 - sigmoid(0.1 * (ratios[0] - base[1])) - sigmoid(0.1 * (base[0] - ratios[1]))


def orpo(pair: int) -> float:
    means = [(-1.0, -1.0), (-1.0, -2.0)][pair]
    odds = [m - math.log(1 - math.exp(m)) for m in means]
    return -means[0] + 0.1 * softplus(odds[1] - odds[0])


EXPECTED = {
    "sigmoid": [softplus(-0.1 * gap) for gap in GAPS],
    "hinge": [1 - 0.1 * gap for gap in GAPS],
    "ipo": [(gap - 5.0) ** 2 for gap in GAPS],
    "simpo": [softplus(0.5 - 0.1 * 0.0), softplus(0.5 - 0.1 * 1.0)],
    "orpo": [orpo(0), orpo(1)],
    "kto": [kto(0), kto(1)],
}


@pytest.mark.parametrize("kind", EXPECTED)
def test_a_loss_is_what_its_paper_says(kind):
    margin = 0.5 if kind == "simpo" else None
    assert Objective(kind=kind, beta=0.1, margin=margin).per_pair(answers()).tolist() == pytest.approx(
        EXPECTED[kind], abs=1e-12
    )


@pytest.mark.parametrize(
    "kind", ["sigmoid", "hinge", "ipo", "simpo", "orpo"]
)  # KTO's baseline has no gradient by design
def test_its_gradient_is_that_of_finite_differences(kind):
    policy = POLICY.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda p: Objective(kind=kind).per_pair(answers(p)), policy)


def test_dpo_starts_at_ln_2():
    assert Objective().per_pair(answers(reference=POLICY)).tolist() == [math.log(2)] * 2


def test_smoothing_mixes_both_labels():
    loss = Objective(label_smoothing=0.1).per_pair(answers())
    assert loss[0].item() == pytest.approx(0.9 * softplus(-0.15) + 0.1 * softplus(0.15), abs=1e-12)


def test_without_a_reference_the_policy_alone_counts():
    loss = Objective(reference_free=True).per_pair(answers())
    assert loss.tolist() == pytest.approx([softplus(-0.3), softplus(-0.1)], abs=1e-12)


def test_the_chosen_answers_own_loss_can_be_added():
    added = Objective(nll_weight=0.5).per_pair(answers()) - Objective().per_pair(answers())
    assert added.tolist() == pytest.approx([0.5, 0.5], abs=1e-12)


@pytest.mark.parametrize(
    "wrong",
    [
        {"beta": 0.0},
        {"label_smoothing": 0.5},
        {"kind": "ipo", "label_smoothing": 0.1},
        {"margin": 0.5},
        {"kind": "orpo", "reference_free": True},
    ],
)
def test_a_setting_out_of_range_is_refused(wrong):
    with pytest.raises(ConfigError, match=r"stage\.objective"):
        Objective(**wrong)
