"""A run that is well passes every check, in every stage; and the doctor leaves no trace in it."""

import copy
import random
from typing import Any

import numpy as np
import pytest
import torch

from lumi.doctor import CHECKS, examine, report

STAGES = ["pretrain", "sft", "dpo"]
NOT_OF = {
    "pretrain": {"template round trip", "dpo step 0"},
    "sft": {"dpo step 0"},
    "dpo": set(),
}


@pytest.mark.parametrize("subject", STAGES, indirect=True)
def test_a_run_that_is_well_passes_every_check(subject, request):
    findings = examine(subject)
    assert {name for name, finding in findings.items() if finding.status == "not applicable"} == NOT_OF[
        request.node.callspec.params["subject"]
    ]
    assert [line for line in report(findings) if line.startswith(("error", "warning"))] == []


def test_every_check_has_a_name_of_its_own_and_says_what_it_does():
    assert len({check.name for check in CHECKS}) == len(CHECKS) == 15
    assert all(check.ask.__doc__ for check in CHECKS)


def legacy_numbers() -> list[int]:
    """State of numpy's global generator, which libraries may draw from."""
    state: Any = np.random.get_state()  # noqa: NPY002
    return state[1].tolist()


@pytest.mark.parametrize("subject", STAGES, indirect=True)
def test_an_examination_changes_no_weight_no_mode_and_no_random_number(subject):
    subject.stage.train()
    before = copy.deepcopy(subject.stage.state_dict())
    states = random.getstate(), legacy_numbers(), torch.get_rng_state()
    examine(subject)
    assert all(torch.equal(value, before[name]) for name, value in subject.stage.state_dict().items())
    assert all(module.training for module in subject.stage.modules())
    assert all(parameter.grad is None for parameter in subject.stage.parameters())
    assert random.getstate() == states[0]
    assert legacy_numbers() == states[1]
    assert torch.equal(torch.get_rng_state(), states[2])
