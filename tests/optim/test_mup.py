"""A parametrisation under which width changes neither the size of the activations nor the best rate (arXiv:2203.03466)."""

import copy
import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.testing import assert_close

from lumi.arch import Decoder, DecoderConfig
from lumi.errors import ConfigError
from lumi.optim import AdamW, Constant, Muon, MupAdamW, MupMuon

FLAT = Constant(warmup_steps=0)
STANDARD = AdamW(lr=5e-3, schedule=FLAT)
MUP = MupAdamW(lr=5e-3, schedule=FLAT, base_width=64)
MUON = Muon(lr=5e-3, adamw_lr=2e-3, schedule=FLAT)
MUP_MUON = MupMuon(lr=5e-3, adamw_lr=2e-3, schedule=FLAT, base_width=64)
TOKENS = torch.randint(64, (2, 16), generator=torch.Generator().manual_seed(1))


def model(width: int, recipe: Any, **arch: object) -> Decoder:
    """Two layers with heads of 16, initialised for the recipe."""
    torch.manual_seed(0)
    shape = {"vocab_size": 64, "n_layers": 2, "max_seq_len": 16, "d_model": width, "d_ff": 2 * width, "tied": True}
    config = DecoderConfig(**{**shape, "n_heads": width // 16, "n_kv_heads": width // 16, **arch})  # pyright: ignore[reportArgumentType]
    decoder = Decoder(config)
    recipe.initialise(decoder.named_parameters(), init_qk_std=config.init_qk_std)
    return decoder


def loss(logits: Tensor) -> Tensor:
    return F.cross_entropy(logits[:, :-1].flatten(0, 1), TOKENS[:, 1:].flatten())


def train(decoder: Decoder, recipe: Any, steps: int) -> None:
    optimizer = recipe.optimizer(decoder.named_parameters())
    for _ in range(steps):
        optimizer.zero_grad()
        loss(decoder.logits(decoder(TOKENS))).backward()
        optimizer.step()


def sizes_after_three_steps(width: int, recipe: Any) -> dict[str, float]:
    """Mean absolute value of what every branch adds to the residual stream, and of the logits."""
    decoder, found = model(width, recipe), {}
    train(decoder, recipe, 3)
    for name, part in decoder.named_modules():
        if name.endswith(("self_attn", "mlp")):
            part.register_forward_hook(lambda _, __, out, name=name: found.update({name: out.abs().mean().item()}))
    logits = decoder.logits(decoder(TOKENS))
    return found | {"logits": logits.abs().mean().item()}


def growth(recipe: Any) -> dict[str, float]:
    """Exponent of width in each size, from 64 to 512; the least squares line through the logarithms of all four widths."""
    widths = torch.tensor([64, 128, 256, 512])
    sizes = [sizes_after_three_steps(width, recipe) for width in widths.tolist()]
    x = widths.double().log2() - widths.double().log2().mean()
    return {
        name: float((x * torch.tensor([s[name] for s in sizes]).log2()).sum() / x.square().sum()) for name in sizes[0]
    }


def test_activations_keep_their_size_from_width_64_to_512_and_without_it_they_grow():
    with_it, without = growth(MUP), growth(STANDARD)
    branches = [name for name in with_it if name != "logits"]
    assert len(branches) == 4
    assert all(abs(with_it[name]) < 0.25 for name in branches), with_it
    assert all(without[name] > 1.0 for name in branches), without  # eight times wider: more than eight times as large
    # Logits begin at 1 / sqrt(m), as the paper's do, and what is learnt, which does not shrink, soon covers that.
    assert -0.5 < with_it["logits"] < 0.1
    assert without["logits"] > 0.4


def test_with_muon_too_activations_keep_their_size() -> None:
    with_it, without = growth(MUP_MUON), growth(MUON)
    branches = [name for name in with_it if name != "logits"]
    assert all(abs(with_it[name]) < 0.25 for name in branches), with_it
    assert all(without[name] > 0.4 for name in branches), without
    assert -0.5 < with_it["logits"] < 0.1


def test_at_the_base_width_it_is_muon_bit_for_bit() -> None:
    mine, theirs = model(64, MUP_MUON), model(64, MUON)
    train(mine, MUP_MUON, 3)
    train(theirs, MUON, 3)
    assert all(torch.equal(a, b) for a, b in zip(mine.parameters(), theirs.parameters(), strict=True))


def test_rates_and_decay_of_muon_on_a_model_four_times_wider() -> None:
    decoder = model(256, MUP_MUON)
    groups = MUP_MUON.optimizer(decoder.named_parameters()).param_groups
    found = [(len(group["params"]), group["lr"], group["weight_decay"]) for group in groups]
    # 14 matrices of two blocks at half the rate; embedding and four norms; the last gain, a quarter.
    assert found == [(14, 5e-3 / 2, 0.1 * 2), (5, 2e-3, 0.0), (1, 2e-3 / 4, 0.0)]
    assert sum(len(group["params"]) for group in groups) == sum(1 for _ in decoder.parameters())


def test_at_the_base_width_it_is_adamw_bit_for_bit():
    mine, theirs = model(64, MUP), model(64, STANDARD)
    train(mine, MUP, 3)
    train(theirs, STANDARD, 3)
    assert all(torch.equal(a, b) for a, b in zip(mine.parameters(), theirs.parameters(), strict=True))


@pytest.mark.parametrize("tied", [True, False])
def test_at_four_times_the_base_width_blocks_and_final_gain_have_a_quarter_of_the_rate(tied):
    decoder = model(256, MUP, tied=tied)
    names = {p: name for name, p in decoder.named_parameters()}
    groups = MUP.optimizer(decoder.named_parameters()).param_groups
    rates = {names[p]: (group["peak_lr"], group["weight_decay"]) for group in groups for p in group["params"]}
    assert rates.keys() == set(names.values())
    for name, (rate, decay) in rates.items():
        is_matrix = "proj" in name
        expected = 1.25e-3 if is_matrix or name == "model.norm.weight" else 5e-3
        assert rate == pytest.approx(expected, rel=1e-12), name
        # rate x decay is the same 5e-4 everywhere that there is decay (arXiv:2405.13698)
        assert rate * decay == pytest.approx(5e-4 if is_matrix or name == "lm_head.weight" else 0.0, rel=1e-12), name


def test_at_four_times_the_base_width_the_blocks_begin_at_half_the_deviation():
    decoder = model(256, MUP)
    layer = decoder.model.layers[0]
    assert isinstance(layer, nn.Module)
    deviation = {name: p.std().item() for name, p in layer.named_parameters() if p.dim() == 2}
    expected = {
        "v_proj": 0.01,
        "gate_proj": 0.01,
        "up_proj": 0.01,
        "o_proj": 0.005,
        "down_proj": 0.005,
    }  # of 0.02 / sqrt(4)
    expected |= {"q_proj": 1 / 16, "k_proj": 1 / 16}  # 1 / sqrt(256): narrower already
    for name, value in deviation.items():
        assert value == pytest.approx(expected[name.split(".")[1]], rel=0.02), name
    assert decoder.lm_weight.std().item() == pytest.approx(0.02, rel=0.02)
    assert_close(decoder.model.norm.weight.detach(), torch.full((256,), 0.25))


def test_a_deviation_given_for_queries_and_keys_counts_at_the_base_width():
    layer = model(256, MUP, init_qk_std=0.04).model.layers[0]
    deviation = dict(layer.named_parameters())["self_attn.q_proj.weight"].std().item()
    assert deviation == pytest.approx(0.02, rel=0.02)


def test_the_final_gain_is_the_papers_factor_on_the_logits():
    # Reference: a usual gain at the full rate, and logits divided by m = 4 in the forward pass, as table 8 has it.
    recipe = dataclasses.replace(MUP, eps=1e-30)  # Adam is blind to the gradient's size only up to its eps
    mine = model(256, recipe)
    theirs = copy.deepcopy(mine)
    theirs.model.norm.weight.data.fill_(1.0)
    optimizer = recipe.optimizer(theirs.named_parameters())
    for group in optimizer.param_groups:
        if any(p is theirs.model.norm.weight for p in group["params"]):
            group["params"] = [p for p in group["params"] if p is not theirs.model.norm.weight]
    optimizer.add_param_group({"params": [theirs.model.norm.weight], "lr": recipe.lr, "weight_decay": 0.0})
    train(mine, recipe, 4)
    for _ in range(4):
        optimizer.zero_grad()
        loss(theirs.logits(theirs(TOKENS)) / 4).backward()
        optimizer.step()
    with torch.no_grad():
        assert_close(mine.logits(mine(TOKENS)), theirs.logits(theirs(TOKENS)) / 4, atol=1e-4, rtol=1e-3)


def test_a_base_width_below_one_is_refused():
    with pytest.raises(ConfigError, match=r"optim\.base_width=0 · must be at least 1"):
        dataclasses.replace(MUP, base_width=0)


def test_an_adapter_is_refused():
    adapter = [("model.layers.0.self_attn.q_proj.lora_A.weight", nn.Parameter(torch.zeros(2, 64)))]
    with pytest.raises(
        ConfigError, match=r"optim=mup_adamw and optim=mup_muon · train all weights of a model, not an adapter"
    ):
        MUP.optimizer(adapter)


def test_a_run_with_it_starts_from_its_weights_and_trains(run_config, tmp_path):
    from lumi.run import train as train_run  # late: seconds of import that the other tests do not need
    from lumi.trained import load_trained

    overrides = ("optim=mup_adamw", "optim.base_width=8", "optim.lr=1e-6", "budget.steps=1")
    train_run(run_config(*overrides))
    gain = load_trained(tmp_path / "run").decoder.model.norm.weight.detach()
    assert_close(gain, torch.full((32,), 0.25), atol=1e-5, rtol=0)
