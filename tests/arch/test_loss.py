"""The fused loss against `F.cross_entropy` on shifted logits, which holds everything and hides nothing."""

import copy
import dataclasses

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from lumi.arch import Decoder, loss, next_token_loss, token_nll

B, T, D, V = 3, 9, 8, 50
N_TARGETS = {"all": B * (T - 1), "some": 11, "one": 1}


@pytest.fixture
def inputs():
    """Hidden (B, T, D) and weight (V, D), both with gradients, and tokens (B, T)."""
    torch.manual_seed(0)
    hidden, weight = torch.randn(B, T, D, requires_grad=True), torch.randn(V, D, requires_grad=True)
    return hidden, weight, torch.randint(V, (B, T))


def mask_of(which: str) -> Tensor:
    """So many targets after column 0, which is True as well and must not count."""
    mask = torch.zeros(B, T, dtype=torch.bool)
    places = torch.randperm(B * (T - 1), generator=torch.Generator().manual_seed(2))[: N_TARGETS[which]]
    mask[places // (T - 1), places % (T - 1) + 1] = True
    mask[:, 0] = True
    return mask


def reference(hidden: Tensor, weight: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
    """Sum over the masked targets."""
    logits = hidden[:, :-1] @ weight.T  # (B, T - 1, V)
    targets = tokens[:, 1:].masked_fill(~mask[:, 1:], -100)  # the index that cross_entropy leaves out
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum")


def leaf(tensor: Tensor, dtype: torch.dtype = torch.float64) -> Tensor:
    """A copy to differentiate by."""
    return tensor.detach().to(dtype).requires_grad_()


@pytest.mark.parametrize("which", N_TARGETS)
@pytest.mark.parametrize(("rows_a_chunk", "tile"), [(1, 1024), (4, 16), (1000, 1024), (1000, 7)])
def test_value_and_gradients_are_those_of_cross_entropy(inputs, which, rows_a_chunk, tile, monkeypatch):
    monkeypatch.setitem(loss.CHUNK_BYTES, "cpu", 4 * V * rows_a_chunk)
    monkeypatch.setitem(loss._TILE, torch.float32, tile)
    hidden, weight, tokens = inputs
    exact = leaf(hidden), leaf(weight)
    expected = reference(exact[0], exact[1], tokens, mask_of(which))
    nll, targets = next_token_loss(hidden, weight, tokens, mask_of(which))
    (nll * 0.25).backward()
    (expected * 0.25).backward()
    assert int(targets) == N_TARGETS[which]
    assert_close(nll.double(), expected, atol=0, rtol=1e-6)
    for mine, theirs in zip((hidden, weight), exact, strict=True):
        assert mine.grad is not None
        assert_close(mine.grad.double(), theirs.grad, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("number", [0, 1])
def test_the_gradient_is_the_slope_of_the_loss(inputs, number):
    tokens, mask = inputs[2], mask_of("all")
    next_token_loss(inputs[0], inputs[1], tokens, mask)[0].backward()
    along, ends = torch.randn_like(inputs[number]), []
    for step in (1e-2, -1e-2):
        moved = [x.detach() + (step * along if place == number else 0) for place, x in enumerate(inputs[:2])]
        ends.append(next_token_loss(moved[0], moved[1], tokens, mask)[0].item())
    assert (ends[0] - ends[1]) / 2e-2 == pytest.approx((inputs[number].grad * along).sum().item(), rel=2e-3)


def test_a_second_backward_pass_is_refused_not_wrong(inputs):
    nll, _ = next_token_loss(inputs[0], inputs[1], inputs[2], mask_of("all"))
    nll.backward(retain_graph=True)
    with pytest.raises(AssertionError, match="differentiable once"):
        nll.backward()


def test_no_target_is_a_loss_and_a_gradient_of_zero(inputs):
    hidden, weight, tokens = inputs
    nll, targets = next_token_loss(hidden, weight, tokens, torch.zeros(B, T, dtype=torch.bool))
    nll.backward()
    assert (nll.item(), targets.item()) == (0.0, 0)
    assert not hidden.grad.any()
    assert not weight.grad.any()


def test_a_frozen_head_gets_no_gradient_and_the_states_still_do(inputs):
    hidden, weight, tokens = inputs
    frozen = weight.detach()
    next_token_loss(hidden, frozen, tokens, mask_of("all"))[0].backward()
    expected = leaf(hidden, torch.float32)
    reference(expected, frozen, tokens, mask_of("all")).backward()
    assert_close(hidden.grad, expected.grad, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("tied", [False, True])
def test_every_weight_of_a_model_gets_the_gradient_of_cross_entropy(tiny_config, tied):
    torch.manual_seed(0)
    model = Decoder(dataclasses.replace(tiny_config, tied=tied))
    twin = copy.deepcopy(model)
    tokens = torch.randint(64, (B, T))
    next_token_loss(model(tokens), model.lm_weight, tokens, mask_of("some"))[0].backward()
    reference(twin(tokens), twin.lm_weight, tokens, mask_of("some")).backward()
    assert sum(1 for _ in model.parameters()) == 20 + (not tied)  # two blocks of 9, last norm, embedding, head
    for (name, mine), theirs in zip(model.named_parameters(), twin.parameters(), strict=True):
        assert_close(mine.grad, theirs.grad, atol=1e-5, rtol=1e-4, msg=name)


def test_bf16_autocast_is_near_float32(inputs):
    hidden, weight, tokens = inputs
    exact = leaf(hidden, torch.float32), leaf(weight, torch.float32)
    expected = reference(exact[0], exact[1], tokens, mask_of("all"))
    with torch.autocast("cpu", torch.bfloat16):
        nll, _ = next_token_loss(hidden, weight, tokens, mask_of("all"))
    nll.backward()
    expected.backward()
    assert (nll.dtype, hidden.grad.dtype, weight.grad.dtype) == (torch.float32,) * 3
    assert_close(nll, expected, atol=0, rtol=5e-3)
    for mine, theirs in zip((hidden, weight), exact, strict=True):
        assert_close(mine.grad, theirs.grad, atol=3e-2, rtol=3e-2)


def test_logits_that_overflow_an_exponential_are_no_trouble(inputs):
    hidden, weight, tokens = inputs
    large = (1000 * hidden).detach()
    nll, _ = next_token_loss(large, weight, tokens, mask_of("all"))
    assert_close(nll, reference(large, weight, tokens, mask_of("all")), atol=0, rtol=1e-5)


def test_a_state_that_is_not_a_number_shows_in_the_loss(inputs):
    hidden, weight, tokens = inputs
    broken = hidden.detach().clone()
    broken[1, 3] = torch.nan
    assert next_token_loss(broken, weight, tokens, mask_of("all"))[0].isnan()


def test_nothing_as_large_as_all_logits_is_ever_made(inputs, monkeypatch):
    monkeypatch.setitem(loss.CHUNK_BYTES, "cpu", 4 * V * 5)
    hidden, weight, tokens = inputs
    with LargestTensor() as seen:
        next_token_loss(hidden, weight, tokens, mask_of("all"))[0].backward()
    assert seen.numel == V * D  # the weight's own gradient; five rows of logits are 5 x V, all would be 24 x V


def test_without_gradients_no_product_is_spent_on_them(inputs):
    hidden, weight, tokens = inputs
    for function, arguments in ((next_token_loss, (tokens, mask_of("all"))), (token_nll, (tokens,))):
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            function(hidden, weight, *arguments)
        assert counter.get_total_flops() == 2 * (B * (T - 1)) * D * V  # the logits and nothing else


class LargestTensor(TorchDispatchMode):
    """Remembers how many elements the largest result of any operation had."""

    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else (result,):
            if isinstance(tensor, Tensor):
                self.numel = max(self.numel, tensor.numel())
        return result


def test_token_nll_is_the_surprise_of_each_token_and_zero_for_the_first(inputs):
    hidden, weight, tokens = inputs
    nll = token_nll(hidden, weight, tokens)
    surprise = -(hidden @ weight.T).log_softmax(dim=-1).detach()
    expected = torch.tensor([[0.0] + [surprise[b, t - 1, tokens[b, t]] for t in range(1, T)] for b in range(B)])
    assert_close(nll, expected, atol=1e-5, rtol=1e-5)
    assert not nll.requires_grad
