"""Which parameter gets which update, and optimizers that are saved and continued."""

import copy
import dataclasses
import io
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from lumi.arch import Decoder
from lumi.errors import ConfigError
from lumi.optim import AdamW, Constant, Muon
from lumi.optim.muon import MuonStep

FLAT = Constant(warmup_steps=0)
ADAMW = AdamW(lr=1e-2, schedule=FLAT, weight_decay=0.1)
MUON = Muon(lr=1e-2, adamw_lr=3e-3, schedule=FLAT, weight_decay=0.1)
RECIPES = pytest.mark.parametrize("recipe", [ADAMW, MUON], ids=["adamw", "muon"])

BLOCK_MATRICES = {
    f"model.layers.{layer}.{part}_proj.weight"
    for layer in (0, 1)
    for part in ("self_attn.q", "self_attn.k", "self_attn.v", "self_attn.o", "mlp.gate", "mlp.up", "mlp.down")
}
NORMS = {f"model.layers.{n}.{part}_layernorm.weight" for n in (0, 1) for part in ("input", "post_attention")} | {
    "model.norm.weight"
}


@pytest.fixture(params=[False, True], ids=["untied", "tied"])
def model(request, tiny_config) -> Decoder:
    torch.manual_seed(0)
    return Decoder(dataclasses.replace(tiny_config, tied=request.param))


def names_by(optimizer: torch.optim.Optimizer, model: nn.Module, key: str) -> dict[Any, set[str]]:
    """Parameter names of all groups that have the same value of ``key``."""
    names = {parameter: name for name, parameter in model.named_parameters()}
    found: dict[Any, set[str]] = {}
    for group in optimizer.param_groups:
        found.setdefault(group[key], set()).update(names[parameter] for parameter in group["params"])
    return found


def train(model: Decoder, optimizer: torch.optim.Optimizer, steps: int) -> None:
    for step in range(steps):
        tokens = torch.randint(64, (2, 16), generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        model.logits(model(tokens)).logsumexp(dim=-1).sum().backward()
        optimizer.step()


@RECIPES
def test_norms_and_embeddings_have_no_decay_and_all_other_weights_have(model, recipe):
    plain = {"model.embed_tokens.weight"} | NORMS  # a tied head is the embedding
    head = set() if model.config.tied else {"lm_head.weight"}
    groups = names_by(recipe.optimizer(model.named_parameters()), model, "weight_decay")
    assert groups == {0.0: plain, 0.1: BLOCK_MATRICES | head}


@RECIPES
def test_every_parameter_is_in_exactly_one_group(model, recipe):
    groups = recipe.optimizer(model.named_parameters()).param_groups
    assert sorted(id(p) for group in groups for p in group["params"]) == sorted(map(id, model.parameters()))


def test_muon_gets_exactly_the_matrices_of_the_blocks(model):
    groups = names_by(MUON.optimizer(model.named_parameters()), model, "peak_lr")
    assert groups[1e-2] == BLOCK_MATRICES
    assert groups[3e-3] == {name for name, _ in model.named_parameters()} - BLOCK_MATRICES


@RECIPES
def test_decay_shrinks_by_rate_times_decay_where_there_is_no_gradient(model, recipe):
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    recipe.optimizer(model.named_parameters()).step()
    for name, parameter in model.named_parameters():
        rate = 1e-2 if recipe is ADAMW or name in BLOCK_MATRICES else 3e-3
        kept = 1.0 if "norm" in name or "embed" in name else 1.0 - rate * 0.1
        assert_close(parameter.detach(), before[name] * kept, atol=1e-9, rtol=1e-6, msg=name)


def test_the_first_step_of_adamw_has_the_size_of_the_rate():
    weight = nn.Parameter(torch.tensor([[1.0, -2.0]]))
    weight.grad = torch.tensor([[0.5, -30.0]])
    AdamW(lr=0.01, schedule=FLAT, weight_decay=0.0).optimizer([("w", weight)]).step()
    assert_close(weight.detach(), torch.tensor([[0.99, -1.99]]), atol=1e-6, rtol=0)


def test_a_step_of_muon_is_nearly_orthogonal_and_as_large_as_one_of_adamw():
    weight = nn.Parameter(torch.zeros(48, 48))
    weight.grad = torch.randn(48, 48, generator=torch.Generator().manual_seed(0))
    named = [("model.layers.0.w", weight), ("head", nn.Parameter(torch.zeros(2, 2)))]
    MUON.optimizer(named).step()
    sizes = torch.linalg.svdvals(weight.detach())
    # AdamW's usual root mean square is 0.2 of the rate (arXiv:2502.16982); so every singular value is 0.2 x sqrt(48) of it.
    assert_close(sizes / (1e-2 * 0.2 * 48**0.5), torch.ones(48), atol=0.4, rtol=0)


@RECIPES
def test_a_saved_and_restored_optimizer_steps_bit_for_bit_the_same(model, recipe):
    optimizer = recipe.optimizer(model.named_parameters())
    train(model, optimizer, 3)
    twin = copy.deepcopy(model)
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    restored = recipe.optimizer(twin.named_parameters())
    restored.load_state_dict(torch.load(io.BytesIO(file.getvalue()), weights_only=True))
    train(model, optimizer, 3)
    train(twin, restored, 3)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), twin.parameters(), strict=True))


@RECIPES
def test_a_rate_set_after_restoring_reaches_every_parameter(model, recipe):
    optimizer = recipe.optimizer(model.named_parameters())
    optimizer.load_state_dict(optimizer.state_dict())
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    before = copy.deepcopy(model)
    train(model, optimizer, 1)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), before.parameters(), strict=True))


@RECIPES
def test_a_closure_runs_once_a_step_with_gradients(model, recipe):
    calls = []

    def closure() -> Tensor:
        calls.append(torch.is_grad_enabled())
        loss = model(torch.zeros(1, 4, dtype=torch.int64)).sum()
        loss.backward()
        return loss

    assert recipe.optimizer(model.named_parameters()).step(closure) is not None
    assert calls == [True]


@RECIPES
def test_gradients_can_be_unscaled_before_the_step(model, recipe):
    # fp16: the norm is measured and clipped between unscaling and step. A fused kernel that unscales by itself, inside the
    # step, would have the clipping see 65,536 times the gradient.
    optimizer, scaler = recipe.optimizer(model.named_parameters()), torch.amp.GradScaler("cpu", init_scale=65_536.0)
    assert not getattr(optimizer, "_step_supports_amp_scaling", False)  # what Lightning asks before it unscales
    before, twin = copy.deepcopy(model), copy.deepcopy(model)
    for network, scale in ((model, scaler.scale(torch.tensor(1.0)).item()), (twin, 1.0)):
        (network(torch.zeros(1, 4, dtype=torch.int64)).square().sum() * scale).backward()
    scaler.unscale_(optimizer)
    scaler.step(optimizer)
    recipe.optimizer(twin.named_parameters()).step()
    for start, mine, theirs in zip(before.parameters(), model.parameters(), twin.parameters(), strict=True):
        assert_close(mine - start, theirs - start, atol=1e-6, rtol=1e-3)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("lr", 0.0),
        ("lr", -1.0),
        ("betas", (0.9, 1.0)),
        ("betas", (-0.1, 0.9)),
        ("betas", (0.9,)),
        ("weight_decay", -0.1),
        ("clip_norm", 0.0),
    ],
)
@RECIPES
def test_a_value_out_of_range_is_named(recipe, key, value):
    with pytest.raises(ConfigError, match=rf"optim\.{key}="):
        dataclasses.replace(recipe, **{key: value})


def test_the_second_rate_of_muon_is_checked_too():
    with pytest.raises(ConfigError, match=r"optim\.adamw_lr=0"):
        dataclasses.replace(MUON, adamw_lr=0.0)


@pytest.mark.parametrize("shape", [(48, 48), (96, 32), (32, 96)])
def test_muon_is_pytorchs_within_the_roundings_of_bfloat16(shape):
    start = torch.randn(3, *shape, generator=torch.Generator().manual_seed(0)) * 0.02
    weights = [[nn.Parameter(matrix.clone()) for matrix in start] for _ in range(2)]
    mine = MuonStep([{"params": weights[0]}], lr=1e-2, momentum=0.9, weight_decay=0.1, ns_steps=5)
    theirs = torch.optim.Muon(weights[1], 1e-2, 0.1, 0.9, adjust_lr_fn="match_rms_adamw")
    for step in range(3):
        gradients = torch.randn(3, *shape, generator=torch.Generator().manual_seed(step + 1))
        for optimizer, those in ((mine, weights[0]), (theirs, weights[1])):
            for parameter, gradient in zip(those, gradients, strict=True):
                parameter.grad = gradient.clone()
            optimizer.step()
    moved = [torch.stack([p.detach() for p in those]) - start for those in weights]
    # bfloat16 has three digits, and five iterations amplify their loss; a step along another direction would be 1.
    assert (moved[0] - moved[1]).norm() / moved[1].norm() < 0.02
