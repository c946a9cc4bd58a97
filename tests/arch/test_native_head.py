"""The loss of a head in C++ gives what the formula says, and so do its gradients; without matrix units by plain loops."""

import shutil

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from lumi.arch import loss, next_token_loss, target_nll
from lumi.arch.native import build, head

pytestmark = pytest.mark.skipif(not any(map(shutil.which, build.COMPILERS)), reason="needs a C++ compiler")

SHAPES = {
    "one token": (1, 32, 50),
    "less than a unit of anything": (5, 32, 31),
    "whole units": (64, 32, 64),
    "one piece more": (33, 64, 65),
    "several chunks": (400, 32, 700),
    "many units of pieces": (40, 96, 1000),
}
ROUNDING = 2.0**-8
"""Relative, of whole arrays: factors of products are rounded to bfloat16's eight bits, and so are the slopes between them."""


def drawn(n: int, d: int, n_vocab: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """States, head (numbers of bfloat16, so that rounding them changes nothing), targets with both ends, scales."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(n, d, generator=generator).bfloat16().float()
    weight = (0.4 * torch.randn(n_vocab, d, generator=generator)).bfloat16().float()
    targets = torch.randint(n_vocab, (n,), generator=generator)
    targets[0], targets[-1] = 0, n_vocab - 1
    return rows, weight, targets, torch.randn(n, generator=generator)


@pytest.fixture
def threads():
    """Sets their number; afterwards it is what it was."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def formula(rows: Tensor, weight: Tensor, targets: Tensor, scales: Tensor | None) -> list[Tensor]:
    """In float64: nll, and the gradients of its scaled sum."""
    rows, weight = rows.double().requires_grad_(), weight.double().requires_grad_()
    nll = F.cross_entropy(rows @ weight.T, targets, reduction="none")
    summed = nll.sum() if scales is None else (nll * scales.double()).sum()
    return [nll.detach(), *torch.autograd.grad(summed, (rows, weight))]


def with_gradients(*inputs: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """What the kernel gives, all of it."""
    rows, weight, targets, *scales = inputs
    assert rows is not None
    assert weight is not None
    assert targets is not None
    nll, grad_rows, grad_weight = head.head_loss(rows, weight, targets, *scales)
    assert grad_rows is not None
    assert grad_weight is not None
    return nll, grad_rows, grad_weight


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("n_threads", [1, 2, 3])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_nll_and_gradients_are_those_of_the_formula(shape, n_threads, scaled, threads):
    rows, weight, targets, scales = drawn(*shape)
    threads(n_threads)
    found = with_gradients(rows, weight, targets, scales if scaled else None)
    wanted = formula(rows, weight, targets, scales if scaled else None)
    assert (found[0] - wanted[0]).abs().max() < 1e-4, (
        "products of what needs no rounding are exact but for float32's sums"
    )
    for name, mine, exact in zip(("rows", "weight"), found[1:], wanted[1:], strict=True):
        assert (mine.double() - exact).norm() < ROUNDING * exact.norm(), name
    again = with_gradients(rows, weight, targets, scales if scaled else None)
    assert all(torch.equal(one, other) for one, other in zip(found, again, strict=True))


@pytest.mark.parametrize(("wants_rows", "wants_weight"), [(False, False), (True, False), (False, True)])
def test_only_what_is_wanted_is_made_and_is_the_same(wants_rows, wants_weight):
    rows, weight, targets, scales = drawn(*SHAPES["several chunks"])
    whole = with_gradients(rows, weight, targets, scales)
    part = head.head_loss(rows, weight, targets, scales, wants_rows=wants_rows, wants_weight=wants_weight)
    for one, other, wanted in zip(part, whole, (True, wants_rows, wants_weight), strict=True):
        assert (one is not None) == wanted
        assert one is None or torch.equal(one, other)


def test_logits_far_from_zero_and_certain_predictions_lose_nothing():
    rows, weight, targets, _ = drawn(*SHAPES["several chunks"])
    found = head.head_loss(64 * rows, weight, targets)
    logits = (64 * rows.double()) @ weight.double().T
    assert (
        found.nll.double() - F.cross_entropy(logits, targets, reduction="none")
    ).abs().max() < 2e-6 * logits.abs().max()
    certain = with_gradients(64 * rows, weight, logits.argmax(dim=1))
    sure = logits.softmax(dim=1).amax(dim=1) > 1 - 1e-7
    assert sure.any()
    assert certain[0][sure].abs().max() < 1e-3
    assert certain[1][sure].abs().max() < 1e-3, "neither pulls nor pushes"


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_a_state_that_is_no_number_shows_in_its_own_loss(value):
    rows, weight, targets, _ = drawn(*SHAPES["several chunks"])
    rows[7, 3] = value
    found = head.head_loss(rows, weight, targets)
    assert not found.nll[7].isfinite()
    assert torch.cat((found.nll[:7], found.nll[8:])).isfinite().all()


@pytest.mark.parametrize("target", [-1, 700])
def test_a_target_outside_of_the_vocabulary_is_refused(target):
    rows, weight, targets, _ = drawn(*SHAPES["several chunks"])
    targets[5] = target
    with pytest.raises(IndexError, match=f"{target}.*of 700 rows"):
        head.head_loss(rows, weight, targets)


def test_a_states_own_type_is_that_of_its_gradient():
    rows, weight, targets, _ = drawn(*SHAPES["whole units"])
    found = with_gradients(rows.bfloat16(), weight, targets)[1]
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, with_gradients(rows, weight, targets)[1].bfloat16())


@pytest.mark.parametrize("function", [next_token_loss, target_nll])
@pytest.mark.parametrize("frozen", [False, True])
def test_losses_take_it_for_bfloat16_and_give_what_they_gave(function, frozen, monkeypatch):
    generator = torch.Generator().manual_seed(0)
    hidden, weight = torch.randn(3, 40, 32, generator=generator), 0.4 * torch.randn(700, 32, generator=generator)
    tokens = torch.randint(700, (3, 40), generator=generator)
    mask = torch.rand(3, 40, generator=generator) > 0.3

    def run(has_units):
        monkeypatch.setattr(head, "ready", lambda: has_units)
        states, matrix = hidden.clone().requires_grad_(), weight.clone().requires_grad_(not frozen)
        with torch.autocast("cpu", torch.bfloat16):
            found = function(states, matrix, tokens, mask)
        nll = found[0] if isinstance(found, tuple) else found
        (nll * torch.linspace(0.5, 1.0, nll.numel())).sum().backward()
        return [nll.detach(), states.grad] if frozen else [nll.detach(), states.grad, matrix.grad]

    calls = []
    kernel = head.head_loss
    monkeypatch.setattr(loss, "head_loss", lambda *args, **kwargs: calls.append(args) or kernel(*args, **kwargs))
    without = run(has_units=False)
    assert not calls
    for mine, other in zip(run(has_units=True), without, strict=True):
        assert mine.dtype == other.dtype
        # The other path rounds the logits themselves, to 2^-9 of their size.
        assert (mine - other).norm() < 4 * ROUNDING * other.norm()
    assert calls


@pytest.mark.parametrize("function", [next_token_loss, target_nll])
@pytest.mark.parametrize("has_units", [False, True])
def test_of_a_head_trained_in_some_rows_these_get_the_gradient_of_the_whole_and_the_others_none(
    function, has_units, monkeypatch
):
    monkeypatch.setattr(head, "ready", lambda: has_units)
    generator = torch.Generator().manual_seed(0)
    states, weight = torch.randn(3, 40, 32, generator=generator), 0.4 * torch.randn(700, 32, generator=generator)
    tokens = torch.randint(700, (3, 40), generator=generator)
    some = torch.tensor([3, int(tokens[1, 7]), 650])
    mask = torch.rand(3, 40, generator=generator) > 0.3

    def gradient(rows):
        matrix = torch.nn.Parameter(weight.clone())
        if rows is not None:
            matrix.trained_rows = rows  # pyright: ignore[reportAttributeAccessIssue]  # as `lumi.arch.lora` does it
        with torch.autocast("cpu", torch.bfloat16):
            found = function(states, matrix, tokens, mask)
        nll = found[0] if isinstance(found, tuple) else found
        (nll * torch.linspace(0.5, 1.0, nll.numel())).sum().backward()
        assert matrix.grad is not None
        return matrix.grad

    whole, part = gradient(None), gradient(some)
    assert (part[some] - whole[some]).norm() < 2 * ROUNDING * whole[some].norm()
    part[some] = 0
    assert not part.any()


def test_widths_and_precisions_that_it_does_not_take_are_left_to_the_others(monkeypatch):
    monkeypatch.setattr(head, "ready", lambda: True)
    monkeypatch.setattr(loss, "head_loss", lambda *_, **__: pytest.fail("it does not take these"))
    tokens = torch.randint(50, (2, 9))
    for width, dtype in ((40, torch.bfloat16), (32, torch.float16)):
        with torch.autocast("cpu", dtype):
            next_token_loss(torch.randn(2, 9, width), torch.randn(50, width), tokens, torch.ones_like(tokens).bool())
    next_token_loss(torch.randn(2, 9, 32), torch.randn(50, 32), tokens, torch.ones_like(tokens).bool())
    no_target = torch.zeros_like(tokens).bool()
    with torch.autocast("cpu", torch.bfloat16):
        assert next_token_loss(torch.randn(2, 9, 32), torch.randn(50, 32), tokens, no_target)[0] == 0
