"""T1: a loss, a gradient or a weight that is no number is met before the update; no weight changes, or the step is left out."""

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from omegaconf import DictConfig
from torch import Tensor

from lumi.arch import Decoder
from lumi.batch import PackedBatch
from lumi.callbacks import list_checkpoints
from lumi.errors import NumericError
from lumi.optim import AdamW, Constant, Muon
from lumi.stage import Pretrain
from lumi.stage.fetch import Fetch
from tests.faults.ledger import Report
from tests.scale.conftest import InRanks
from tests.stage.test_sentinels import FOUR_OF_2, fit, make_stage

pytestmark = [
    pytest.mark.matrix("T1"),
    pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no"),
]

VALUES = (math.nan, math.inf, -math.inf)
RECIPES = {
    "adamw": AdamW(lr=1e-2, schedule=Constant(warmup_steps=0)),
    "muon": Muon(lr=1e-2, adamw_lr=1e-2, schedule=Constant(warmup_steps=0)),
}


class Poisoned(Pretrain):
    """Brings a value that is no number at one place when the micro-batch of row 2 is read: the second of four."""

    place, value = "loss", math.nan

    def is_here(self, batch: PackedBatch) -> bool:
        return int(batch["sample"][0]) == 2

    def on_train_batch_start(self, batch: PackedBatch, batch_idx: int) -> None:
        super().on_train_batch_start(batch, batch_idx)
        self.poison_gradient = self.place == "gradient" and self.is_here(batch)
        if self.place == "weights" and self.is_here(batch):
            with torch.no_grad():
                next(self.decoder.parameters()).fill_(self.value)

    def loss(self, batch: PackedBatch) -> tuple[Tensor, Tensor]:
        nll, targets = super().loss(batch)
        if self.is_here(batch) and self.place in ("loss", "loss only"):
            nll = nll * self.value if self.place == "loss" else nll + self.value  # a constant has no gradient
        return nll, targets

    def on_after_backward(self) -> None:
        if self.poison_gradient:
            gradient = next(p.grad for p in self.parameters() if p.grad is not None)
            gradient.view(-1)[0] = self.value


@pytest.fixture
def decoder(tiny_config: Any) -> Decoder:
    torch.manual_seed(0)
    return Decoder(tiny_config)


@pytest.fixture
def poisoned(monkeypatch: pytest.MonkeyPatch, decoder: Decoder) -> Callable[..., Any]:
    """``poisoned("loss", nan, …)``: a stage with that poison."""

    def make(place: str, value: float, recipe: str, **changes: Any) -> Any:
        monkeypatch.setattr(Poisoned, "place", place)
        monkeypatch.setattr(Poisoned, "value", value)
        return make_stage(copy.deepcopy(decoder), RECIPES[recipe], kind=Poisoned, **changes)

    return make


def same(one: Any, other: Any) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize(("place", "accumulate"), [("loss", 1), ("loss only", 1), ("gradient", 1), ("loss", 2)])
def test_a_step_that_is_no_number_is_refused_and_no_weight_changes(
    poisoned: Callable[..., Any], decoder: Decoder, row: Report, place: str, accumulate: int, recipe: str
) -> None:
    before = copy.deepcopy(decoder)
    if accumulate == 1:  # with two micro-batches a step the poison is in the first step
        fit(make_stage(before, RECIPES[recipe]), FOUR_OF_2[:1])
    failures = 0
    for value in VALUES:
        stage = poisoned(place, value, recipe, accumulate=accumulate, total_steps=4 // accumulate)
        with pytest.raises(NumericError, match=r"step \d: loss=.*, gradient norm=.*windows of a: \[.*2, 3\]") as caught:
            fit(stage, FOUR_OF_2)
        failures += not (caught.value.exit_code == 6 and same(stage.decoder, before))
    row(trials=len(VALUES), failures=failures)


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize(("place", "accumulate"), [("loss", 1), ("loss only", 1), ("gradient", 1), ("loss", 2)])
def test_a_device_that_is_not_waited_for_refuses_by_itself_and_changes_nothing_more(
    monkeypatch: pytest.MonkeyPatch,
    poisoned: Callable[..., Any],
    decoder: Decoder,
    row: Report,
    place: str,
    accumulate: int,
    recipe: str,
) -> None:
    # As on a GPU whose figures arrive when all is over.
    monkeypatch.setattr(Pretrain, "_can_run_ahead", lambda *_: True)
    monkeypatch.setattr(Fetch, "arrived", lambda _: False)
    before = copy.deepcopy(decoder)
    if accumulate == 1:
        fit(make_stage(before, RECIPES[recipe]), FOUR_OF_2[:1])
    failures = 0
    for value in VALUES:
        stage = poisoned(place, value, recipe, accumulate=accumulate, total_steps=4 // accumulate)
        number = 1 if accumulate == 1 else 0
        with pytest.raises(NumericError, match=rf"step {number}: loss=.*, gradient norm=.*windows of a: \[.*2, 3\]"):
            fit(stage, FOUR_OF_2)
        assert stage.global_step == 4 // accumulate, "the steps after it were given to the device too"
        failures += not same(stage.decoder, before)
    row(trials=len(VALUES), failures=failures)


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("place", ["loss", "loss only", "gradient"])
def test_a_step_that_is_left_out_leaves_no_trace(
    poisoned: Callable[..., Any], decoder: Decoder, row: Report, place: str, recipe: str, caplog: Any
) -> None:
    without = make_stage(copy.deepcopy(decoder), RECIPES[recipe], total_steps=3)
    fit(without, [FOUR_OF_2[0], *FOUR_OF_2[2:]])
    failures = 0
    for value in VALUES:
        stage = poisoned(place, value, recipe, total_steps=4, max_skipped_steps=1)
        fit(stage, FOUR_OF_2)
        failures += not (same(stage.decoder, without.decoder) and stage.step_metrics["optim/skipped_steps"] == 1)
    assert caplog.text.count("left out (1 of at most 1) · windows of a: [2, 3]") == len(VALUES)
    row(trials=len(VALUES), failures=failures)


def test_more_steps_than_allowed_end_the_run(poisoned: Callable[..., Any], row: Report) -> None:
    failures = 0
    for value in VALUES:
        stage = poisoned("loss", value, "adamw", total_steps=6, max_skipped_steps=1)
        with pytest.raises(NumericError, match="step 4"):
            fit(stage, [*FOUR_OF_2[:3], FOUR_OF_2[3], FOUR_OF_2[1], FOUR_OF_2[0]])
        failures += stage.skipped_steps != 2
    row(trials=len(VALUES), failures=failures)


@pytest.mark.parametrize("max_skipped_steps", [None, 1])
def test_a_broken_weight_ends_the_run_and_nothing_spreads_from_it(
    poisoned: Callable[..., Any], decoder: Decoder, row: Report, max_skipped_steps: int | None
) -> None:
    before = copy.deepcopy(decoder)
    fit(make_stage(before, RECIPES["adamw"]), FOUR_OF_2[:1])
    failures = 0
    for value in VALUES:
        stage = poisoned("weights", value, "adamw", total_steps=4, max_skipped_steps=max_skipped_steps)
        with pytest.raises(NumericError, match=r"the weights were not changed"):
            fit(stage, FOUR_OF_2)
        pairs = list(zip(stage.decoder.parameters(), before.parameters(), strict=True))[1:]
        failures += not all(torch.equal(one, other) for one, other in pairs)
    row(trials=len(VALUES), failures=failures)


@pytest.mark.parametrize("skips", [False, True], ids=["stop", "skip"])
def test_one_rank_stops_both_or_both_leave_the_step_out(
    run_config: Callable[..., DictConfig], in_ranks: InRanks, row: Report, tmp_path: Any, skips: bool
) -> None:
    def poison(rank: int) -> None:
        plain = Pretrain.loss

        def loss(self: Pretrain, batch: PackedBatch) -> tuple[Tensor, Tensor]:
            nll, targets = plain(self, batch)
            return (nll * math.nan if rank == 1 and self.training and self.global_step == 2 else nll), targets

        Pretrain.loss = loss

    layout = ("trainer=ddp", "trainer.accelerator=cpu", "trainer.threads=1", "budget.steps=4")
    often = ("trainer.val_every_steps=4", "callbacks.checkpoint.every_steps=1")
    cap = ("trainer.max_skipped_steps=1",) if skips else ()
    codes = in_ranks(run_config(*layout, *often, *cap), meddle=poison)
    newest = list_checkpoints(tmp_path / "run" / "checkpoints")[0][0]
    row(trials=1, failures=int((codes, newest) != (([0, 0], 4) if skips else ([6, 6], 2))))
