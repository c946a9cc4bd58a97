"""What is examined: the objects of a run as they are before its first step, and a way to try them without a trace."""

import contextlib
import copy
import dataclasses
import functools
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lumi.arch import Decoder
from lumi.data import MixedWindows
from lumi.profile import Work, gather
from lumi.stage import Stage
from lumi.stage.dpo import DPO, compare
from lumi.tokenizer import Template, Tokenizer
from lumi.trained import Trained
from lumi.trainer import TrainerConfig

_MICRO_BATCHES = 4
"""So many of the run's first ones are read at most."""

_ROWS = 2
"""Windows of a batch that go through the model where the number does not matter."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Subject:
    """A run before its first step.

    Attributes:
        stage: with its decoder, recipe and adapter. data: after `setup`, with its length.
        setup: of the trainer.
        initial: the model that the run starts from, or None.
        compiled: whether the run compiles its blocks.
    """

    stage: Stage
    data: MixedWindows
    setup: TrainerConfig
    initial: Trained | None = None
    compiled: bool = False

    def __post_init__(self) -> None:
        """The model goes to the device where it will be trained."""
        self.stage.to(self.setup.device())

    @property
    def decoder(self) -> Decoder:
        """The model."""
        return self.stage.decoder

    @property
    def tokenizer(self) -> Tokenizer:
        """Of the data."""
        return self.data.tokenizer

    @property
    def template(self) -> Template | None:
        """How conversations are written; None for text."""
        return getattr(self.data, "template", None)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.decoder.lm_weight.device

    @property
    def tolerance(self) -> float:
        """Of hidden states, whose root mean square is one: bits that may differ for no fault."""
        return 1e-4 if self.setup.resolved_precision() == "32-true" else 3e-2

    @functools.cached_property
    def batches(self) -> list[Any]:
        """The first micro-batches of the run, as its loader gives them, on the CPU."""
        dataset: Any = self.data.train_dataloader().dataset
        return [dataset[number] for number in range(min(len(dataset), _MICRO_BATCHES))]

    @functools.cached_property
    def batch(self) -> Any:
        """The first micro-batch on the device; of pairs with the reference's log-probabilities."""
        return self._on_device(self.batches[0])

    @functools.cached_property
    def few(self) -> Any:
        """Two supervised windows of it; the first two when none is."""
        supervised = self.batch["loss_mask"][:, 1:].any(dim=1).nonzero().flatten()[:_ROWS]
        rows = supervised if len(supervised) else torch.arange(_ROWS, device=self.device)
        return {key: value[rows] for key, value in self.batch.items()}

    @property
    def work(self) -> Work:
        """A step of the run, to be measured."""
        return gather(self.stage, self.data.example(), self.setup, compiled=self.compiled)

    def windows(self, count: int) -> Any:
        """So many windows of the first micro-batches, on the device; fewer when there are not so many."""
        joined = {key: torch.cat([batch[key] for batch in self.batches]) for key in self.batches[0]}
        chosen = joined["loss_mask"][:, 1:].any(dim=1).nonzero().flatten()[:count]
        return self._on_device({key: value[chosen] for key, value in joined.items()})

    def precision(self) -> torch.autocast:
        """The products' type in training."""
        half = self.setup.resolved_precision() != "32-true"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=half)

    def hidden(self, tokens: Tensor, doc_ids: Tensor) -> Tensor:
        """(B, T) -> (B, T, D) float32 last hidden states."""
        with torch.no_grad(), self.precision():
            return self.decoder(tokens, doc_ids).float()

    def mean_loss(self, batch: Any, stage: Stage | None = None) -> float:
        """The stage's loss a target, or a pair, without gradient."""
        stage = stage or self.stage
        with torch.no_grad(), self.precision():
            total, targets = stage.loss(batch)
        return float(total) / max(1, int(targets))

    def copy_stage(self) -> Stage:
        """A stage with weights of its own, to be trained; nothing random is on in it.

        What is trained in some rows only stays as it is there: a copied tensor loses the hook that spares the other rows.
        """
        stage = copy.deepcopy(self.stage).eval()
        originals = dict(self.stage.named_parameters())
        for name, parameter in stage.named_parameters():
            if getattr(originals[name], "partly_trained", False):
                parameter.requires_grad_(False)
        return stage

    def _on_device(self, batch: Any) -> Any:
        placed: Any = {key: value.to(self.device) for key, value in batch.items()}
        needs = isinstance(self.stage, DPO) and self.stage.needs_reference and self.initial is not None
        if needs and not bool(placed["reference"].any()):  # not attached: the run itself has it from the same model
            assert self.initial is not None, "asked above"
            reference = self.initial.decoder.to(self.device)
            with torch.no_grad(), self.precision():
                summed = compare(reference, placed).policy
            placed["reference"] = placed["reference"].float().clone()  # on a CPU it is still the batch's own
            placed["reference"][placed["pairs"] >= 0] = summed.float()
        return placed


@contextlib.contextmanager
def undisturbed(subject: Subject) -> Iterator[None]:
    """Let nothing of an examination reach the run: random numbers, modes and gradients are as they were afterwards."""
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002  # third-party code may use it
    modes = {module: module.training for module in subject.stage.modules()}
    devices = [torch.cuda.current_device()] if subject.device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices):
            subject.stage.eval()
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
        for module, training in modes.items():
            module.training = training
        subject.stage.zero_grad(set_to_none=True)
        subject.stage.extra = None
