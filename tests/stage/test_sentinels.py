"""Tests that would have caught known disasters: wrong normalisation, shifted twice, weights poisoned by one bad batch."""

import copy
import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.precision import MixedPrecision
from torch import Tensor
from torch.nn import functional as F
from torch.testing import assert_close
from torch.utils.data import DataLoader

from lumi.arch import Decoder, DecoderConfig
from lumi.batch import PackedBatch
from lumi.errors import NumericError
from lumi.optim import AdamW, Constant, Linear, Schedule
from lumi.stage import Pretrain
from lumi.stage.base import Sources
from lumi.trainer import TrainerConfig

pytestmark = [
    pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec.*is deprecated"),
]

V, T = 64, 16
N_TARGETS = [1, 15, 3, 0, 12, 7, 15, 2]  # of 8 rows: micro-batches of two have 16, 3, 19 and 17


class Recorder(torch.optim.SGD):
    """Keeps the gradient and the rate of every step, and changes no weight."""

    def __init__(self, parameters: Iterable[tuple[str, torch.nn.Parameter]]) -> None:
        super().__init__([{"params": [p for _, p in parameters], "peak_lr": 2.0}], lr=2.0)
        self.gradients: list[Tensor] = []
        self.rates: list[float] = []

    def step(self, closure: Any = None) -> None:
        closure()
        (group,) = self.param_groups
        self.gradients.append(torch.cat([p.grad.flatten() for p in group["params"]]))
        self.rates.append(group["lr"])


@dataclasses.dataclass
class Record:
    """Settings that make a `Recorder`."""

    clip_norm: float | None = None
    schedule: Schedule = dataclasses.field(default_factory=lambda: Constant(warmup_steps=0))

    def optimizer(self, parameters: Iterable[tuple[str, torch.nn.Parameter]]) -> Recorder:
        self.made = Recorder(parameters)
        return self.made


def make_batch(rows: slice, seed: int = 0) -> PackedBatch:
    """Rows of a fixed batch of 8, of which row k has N_TARGETS[k] targets."""
    generator = torch.Generator().manual_seed(seed)
    tokens, order = torch.randint(V, (8, T), generator=generator), torch.rand(8, T - 1, generator=generator).argsort(1)
    mask = torch.zeros(8, T, dtype=torch.bool)
    mask[:, 1:] = order < torch.tensor(N_TARGETS).unsqueeze(1)
    doc_ids = torch.zeros(8, T, dtype=torch.int32)
    return {
        "tokens": tokens[rows],
        "doc_ids": doc_ids[rows],
        "loss_mask": mask[rows],
        "source": torch.zeros(8, dtype=torch.int64)[rows],
        "sample": torch.arange(8)[rows],
    }


ONE_OF_8 = [make_batch(slice(0, 8))]
UNEQUAL = [make_batch(slice(0, 4)), make_batch(slice(4, 6)), make_batch(slice(6, 8))]
FOUR_OF_2 = [make_batch(slice(start, start + 2)) for start in range(0, 8, 2)]


@pytest.fixture
def decoder(tiny_config: DecoderConfig) -> Decoder:
    torch.manual_seed(0)
    return Decoder(tiny_config)


def make_stage(decoder: Decoder, recipe: Any, *, accumulate: int = 1, total_steps: int = 1, **changes: Any) -> Pretrain:
    token_bytes = torch.arange(V, dtype=torch.int32) % 5
    sources = Sources(names=["a", "b"], weights=[0.75, 0.25], token_bytes=token_bytes)
    kind = changes.pop("kind", Pretrain)
    return kind(
        decoder=decoder,
        recipe=recipe,
        sources=sources,
        total_steps=total_steps,
        accumulate=accumulate,
        seed=0,
        **changes,
    )


def fit(stage: Pretrain, batches: Sequence[PackedBatch], *callbacks: pl.Callback, **arguments: Any) -> None:
    """With the arguments of every real run."""
    config = TrainerConfig(accelerator="cpu", precision="32-true", accumulate=stage.accumulate)
    given = {**config.lightning_arguments(), "max_steps": stage.total_steps, "logger": False, **arguments}
    if "plugins" in arguments:
        del given["precision"]
    loader = DataLoader(batches, batch_size=None)  # pyright: ignore[reportArgumentType]  # a list is a dataset
    pl.Trainer(**given, callbacks=list(callbacks)).fit(stage, loader)


def gradient_of(decoder: Decoder, batches: list[PackedBatch], **settings: Any) -> Tensor:
    recipe = Record(**settings)
    fit(make_stage(copy.deepcopy(decoder), recipe, accumulate=len(batches)), batches)
    return recipe.made.gradients[0]


def mean_gradient(decoder: Decoder) -> Tensor:
    """Of the mean over all targets of the 8 rows, by `F.cross_entropy`."""
    decoder, batch = copy.deepcopy(decoder), ONE_OF_8[0]
    mask = batch["loss_mask"][:, 1:]
    logits = decoder.logits(decoder(batch["tokens"]))[:, :-1]
    F.cross_entropy(logits[mask], batch["tokens"][:, 1:][mask]).backward()
    return torch.cat([p.grad.flatten() for p in decoder.parameters() if p.grad is not None])


def test_four_micro_batches_of_two_give_the_gradient_of_one_batch_of_eight(decoder):
    of_8, of_4x2 = gradient_of(decoder, ONE_OF_8), gradient_of(decoder, FOUR_OF_2)
    assert float((of_4x2 - of_8).norm() / of_8.norm()) < 1e-6


@pytest.mark.parametrize("batches", [ONE_OF_8, FOUR_OF_2, UNEQUAL], ids=["1x8", "4x2", "4+2+2"])
def test_the_gradient_is_that_of_the_mean_over_all_targets(decoder, batches):
    expected = mean_gradient(decoder)
    assert float((gradient_of(decoder, batches) - expected).norm() / expected.norm()) < 1e-5


def test_the_loss_of_a_step_is_the_mean_over_its_targets(decoder):
    batch, stage = ONE_OF_8[0], make_stage(decoder, Record(), accumulate=4)
    fit(stage, FOUR_OF_2)
    surprise = -decoder.logits(decoder(batch["tokens"])).log_softmax(dim=-1).detach()
    nll = [surprise[b, t - 1, batch["tokens"][b, t]].item() for b, t in batch["loss_mask"].nonzero().tolist()]
    assert len(nll) == sum(N_TARGETS)
    assert stage.step_metrics["train/loss"] == pytest.approx(sum(nll) / len(nll), rel=1e-6)


def test_the_first_loss_is_that_of_a_uniform_guess(decoder):
    stage = make_stage(decoder, Record())
    fit(stage, ONE_OF_8)
    assert stage.step_metrics["train/loss"] == pytest.approx(math.log(V), rel=0.05)


@pytest.mark.parametrize("batches", [ONE_OF_8, FOUR_OF_2], ids=["1x8", "4x2"])
def test_a_large_gradient_is_scaled_down_to_the_clip_norm(decoder, batches):
    whole, clipped = gradient_of(decoder, batches), gradient_of(decoder, batches, clip_norm=0.01)
    assert float(whole.norm()) > 0.1
    assert_close(clipped, whole * (0.01 / whole.norm()), atol=1e-8, rtol=1e-5)


def test_a_small_gradient_is_not_clipped(decoder):
    assert torch.equal(gradient_of(decoder, ONE_OF_8, clip_norm=1e6), gradient_of(decoder, ONE_OF_8))


def test_the_norm_that_is_logged_is_the_one_before_clipping(decoder):
    stage = make_stage(copy.deepcopy(decoder), Record(clip_norm=0.01))
    fit(stage, ONE_OF_8)
    assert stage.step_metrics["optim/grad_norm"] == pytest.approx(float(mean_gradient(decoder).norm()), rel=1e-5)


def test_with_a_loss_scale_the_norm_and_the_clipping_are_those_of_the_true_gradient(decoder):
    scaler = torch.amp.GradScaler("cpu", init_scale=4096.0)
    recipe = AdamW(lr=1e-3, schedule=Constant(warmup_steps=0))
    stage = make_stage(copy.deepcopy(decoder), recipe)
    fit(stage, ONE_OF_8, plugins=[MixedPrecision("16-mixed", "cpu", scaler)])
    assert stage.step_metrics["optim/grad_norm"] == pytest.approx(float(mean_gradient(decoder).norm()), rel=1e-2)


class Poisoned(Pretrain):
    """The fourth micro-batch brings a loss that is not a number."""

    poison = math.nan

    def loss(self, batch: PackedBatch) -> tuple[Tensor, Tensor]:
        nll, targets = super().loss(batch)
        return (nll * self.poison if int(batch["sample"][0]) == 6 else nll), targets


@pytest.mark.parametrize("poison", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_gradient_that_is_not_finite_changes_no_weight(decoder, monkeypatch, poison, accumulate):
    monkeypatch.setattr(Poisoned, "poison", poison)
    recipe = AdamW(lr=1e-2, schedule=Constant(warmup_steps=0))
    good, bad = copy.deepcopy(decoder), copy.deepcopy(decoder)
    n_good = {1: 3, 2: 1}[accumulate]  # optimizer steps before the poison
    fit(make_stage(good, recipe, accumulate=accumulate, total_steps=n_good), FOUR_OF_2)
    with pytest.raises(NumericError, match=rf"step {n_good}: loss=.*the weights were not changed") as caught:
        fit(make_stage(bad, recipe, accumulate=accumulate, total_steps=4 // accumulate, kind=Poisoned), FOUR_OF_2)
    assert caught.value.exit_code == 6
    assert all(torch.equal(a, b) for a, b in zip(good.parameters(), bad.parameters(), strict=True))


def test_a_step_without_any_target_is_refused(decoder):
    batch = make_batch(slice(3, 4))  # the row without targets
    before = copy.deepcopy(decoder)
    with pytest.raises(NumericError, match="no supervised token"):
        fit(make_stage(decoder, AdamW(lr=1e-2, schedule=Constant())), [batch])
    assert all(torch.equal(a, b) for a, b in zip(before.parameters(), decoder.parameters(), strict=True))


def test_the_rate_follows_the_schedule_from_the_first_step_to_the_last(decoder):
    recipe = Record(schedule=Linear(warmup_steps=2))
    stage = make_stage(decoder, recipe, accumulate=2, total_steps=6)
    fit(stage, FOUR_OF_2 * 3)
    assert recipe.made.rates == pytest.approx([1.0, 2.0, 2.0, 1.5, 1.0, 0.5])
    assert stage.step_metrics["optim/lr"] == pytest.approx(0.5)


class Disturber(pl.Callback):
    """Draws random numbers after every micro-batch, as drawing samples would."""

    def on_train_batch_end(self, *_: Any, **__: Any) -> None:
        torch.rand(7)


def test_random_numbers_drawn_between_steps_change_no_dropout(tiny_config):
    torch.manual_seed(0)
    decoder = Decoder(dataclasses.replace(tiny_config, dropout=0.3))
    models = [copy.deepcopy(decoder) for _ in range(2)]
    for model, callbacks in zip(models, ([], [Disturber()]), strict=True):
        recipe = AdamW(lr=1e-2, schedule=Constant(warmup_steps=0))
        fit(make_stage(model, recipe, accumulate=2, total_steps=2), FOUR_OF_2, *callbacks)
    assert all(torch.equal(a, b) for a, b in zip(models[0].parameters(), models[1].parameters(), strict=True))


def test_another_micro_batch_has_another_dropout(tiny_config):
    torch.manual_seed(0)
    recipe = Record()
    decoder = Decoder(dataclasses.replace(tiny_config, dropout=0.3))
    fit(make_stage(decoder, recipe, total_steps=2), ONE_OF_8 * 2)  # the recorder changes no weight
    assert not torch.equal(*recipe.made.gradients)


def validate(stage: Pretrain, batches: Sequence[PackedBatch]) -> dict[str, float]:
    config = TrainerConfig(accelerator="cpu", precision="32-true")
    trainer = pl.Trainer(**config.lightning_arguments(), logger=False)
    trainer.validate(stage, DataLoader(batches, batch_size=None), verbose=False)  # pyright: ignore[reportArgumentType]
    return stage.val_metrics


def test_validation_gives_loss_perplexity_and_bits_by_source_and_by_weight(decoder):
    batches = [make_batch(slice(0, 3)), make_batch(slice(3, 6)), make_batch(slice(6, 8))]
    batches[2]["source"] = torch.ones(2, dtype=torch.int64)
    losses, bits = zip(by_hand(decoder, slice(0, 6)), by_hand(decoder, slice(6, 8)), strict=True)
    loss = 0.75 * losses[0] + 0.25 * losses[1]
    expected = {
        "val/loss": loss,
        "val/perplexity": math.exp(loss),
        "val/bits_per_byte": 0.75 * bits[0] + 0.25 * bits[1],
    }
    expected |= {"val/loss/a": losses[0], "val/loss/b": losses[1]}
    expected |= {"val/bits_per_byte/a": bits[0], "val/bits_per_byte/b": bits[1]}
    assert validate(make_stage(decoder, Record()), batches) == pytest.approx(expected, rel=1e-5)


def test_a_source_without_validation_text_does_not_count_as_predicted_perfectly(decoder):
    metrics = validate(make_stage(decoder, Record()), ONE_OF_8)  # of source b there is nothing
    loss, bits = by_hand(decoder, slice(0, 8))
    assert metrics["val/loss"] == pytest.approx(loss, rel=1e-5)
    assert metrics["val/bits_per_byte"] == pytest.approx(bits, rel=1e-5)
    assert "val/loss/b" not in metrics


def by_hand(decoder: Decoder, rows: slice) -> tuple[float, float]:
    """Mean loss in nats, and bits per byte, of the targets in these rows; token k stands for k mod 5 bytes."""
    batch = make_batch(rows)
    mask, targets = batch["loss_mask"][:, 1:], batch["tokens"][:, 1:]
    nll = F.cross_entropy(decoder.logits(decoder(batch["tokens"]))[:, :-1][mask], targets[mask], reduction="sum").item()
    return nll / int(mask.sum()), nll / math.log(2) / int((targets[mask] % 5).sum())


def test_a_model_trained_on_counting_predicts_the_next_number_and_not_the_one_after():
    torch.manual_seed(0)
    decoder = Decoder(
        DecoderConfig(vocab_size=V, n_layers=1, d_model=64, n_heads=2, n_kv_heads=1, d_ff=128, max_seq_len=V)
    )
    tokens = (torch.arange(V) + torch.arange(0, V, 16).unsqueeze(1)) % V  # 0 1 2 3 …, begun at four places
    mask = torch.ones_like(tokens, dtype=torch.bool)
    batch: PackedBatch = {
        "tokens": tokens,
        "doc_ids": torch.zeros_like(tokens, dtype=torch.int32),
        "loss_mask": mask,
        "source": torch.zeros(4, dtype=torch.int64),
        "sample": torch.arange(4),
    }
    stage = make_stage(decoder, AdamW(lr=1e-2, schedule=Constant(warmup_steps=5)), total_steps=60)
    fit(stage, [batch] * 60)
    assert decoder.logits(decoder(tokens))[0].argmax(dim=-1).tolist() == [*range(1, V), 0]
    assert stage.step_metrics["train/loss"] < 0.5
