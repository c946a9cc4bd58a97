"""Lumi's model, data and optimizer in a bare loop, without Lightning, callbacks or logging.

``python -m benchmarks.training.bare_loop --kind packed -- arch=tiny …`` is a worker. A real run builds everything, and the loop
takes over where it would begin to train. Other loops are baselines for the later stages:

- ``packed``: the same batches and the same step as the real loop.
- ``padded``: of the same conversations, one to a row, padded to the longest of its batch. Attention is plainly causal, as
  padding stands to the right, and the loss leaves padding out: the cheapest way to do without packing.
- ``live``: preference pairs with a forward pass of the reference model in every step, instead of its stored log-probabilities.
"""

import argparse
import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.training.lumi_loop import CallbackOnStart, Stopped, begin, train_with
from benchmarks.training.worker import serve
from lumi.arch import next_token_loss
from lumi.stage.dpo import compare

Batch = dict[str, Tensor]


class BareLoop:
    """Batch, loss, backward, clip, step, as the real run would do them.

    Args:
        stage: of a run that is about to train.
        read: the batch with a number, on the stage's device.
        loss: summed loss and number of targets of a batch.
        supervised: count supervised tokens as the amount of work; else every position of a window.
        half: bf16 autocast.
    """

    def __init__(
        self,
        stage: Any,
        read: Callable[[int], Batch],
        loss: Callable[[Batch], tuple[Tensor, Tensor]],
        *,
        supervised: bool,
        half: bool,
    ) -> None:
        self.half = half
        self.stage, self.read, self.loss, self.supervised = stage, read, loss, supervised
        trained = stage.trained_parameters()
        self.parameters = [parameter for _, parameter in trained]
        self.optimizer = stage.recipe.optimizer(trained)
        self.step = 0

    def take(self, n: int) -> dict[str, Any]:
        """``n`` optimizer steps; the loss is read back after each, as Lumi does to refuse one that is not finite."""
        value, amount = 0.0, 0
        device = self.stage.device.type
        for _ in range(n):
            batch = self.read(self.step)
            with torch.autocast(device, torch.bfloat16, enabled=self.half):
                nll, targets = self.loss(batch)
            loss = nll / targets
            loss.backward()
            gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
            norm = torch.nn.utils.get_total_norm(gradients)
            torch.nn.utils.clip_grads_with_norm_(self.parameters, self.stage.recipe.clip_norm, norm)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            self.step += 1
            value = loss.item()
            amount += int(batch["loss_mask"].sum()) if self.supervised else batch["tokens"].numel()
        return {"loss": value, "amount": amount}


def packed_batches(data: Any, device: torch.device) -> Callable[[int], Batch]:
    """Those of the run."""
    dataset = data.train_dataloader().dataset
    return lambda number: {key: value.to(device) for key, value in dataset[number].items()}


def padded_batches(data: Any, device: torch.device) -> Callable[[int], Batch]:
    """As many conversations a batch as the run has windows, drawn from its sources by their weights, by seed and number."""
    streams, weights = data.train_streams, np.array(data.weights)

    def read(number: int) -> Batch:
        rng = np.random.default_rng([data.seed, number])
        sources = rng.choice(len(streams), size=data.batch_size, p=weights / weights.sum())
        drawn = [streams[source].examples[rng.integers(len(streams[source].examples))][0] for source in sources]
        shape = (len(drawn), max(len(tokens) for tokens, _ in drawn))
        tokens, loss_mask = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=bool)
        for row, (ids, mask) in enumerate(drawn):
            tokens[row, : len(ids)], loss_mask[row, : len(ids)] = ids, mask
        return {"tokens": torch.from_numpy(tokens).to(device), "loss_mask": torch.from_numpy(loss_mask).to(device)}

    return read


def causal_loss(stage: Any) -> Callable[[Batch], tuple[Tensor, Tensor]]:
    """Every row is one document."""

    def loss(batch: Batch) -> tuple[Tensor, Tensor]:
        hidden = stage.decoder(batch["tokens"])  # (B, T, D)
        return next_token_loss(hidden, stage.decoder.lm_weight, batch["tokens"], batch["loss_mask"])

    return loss


def live_reference_loss(stage: Any) -> Callable[[Batch], tuple[Tensor, Tensor]]:
    """The stage's own loss, the reference's log-probabilities made in the step."""
    reference = copy.deepcopy(stage.decoder).eval()

    def loss(batch: Batch) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            answers: Any = compare(reference, batch)  # pyright: ignore[reportArgumentType]
        live = torch.zeros_like(batch["reference"])
        live[batch["pairs"] >= 0] = answers.policy.to(live.dtype)
        return stage.loss({**batch, "reference": live})

    return loss


def main() -> None:
    """A worker."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kind", choices=("packed", "padded", "live"), required=True)
    options, channel, facts = begin(parser)

    def instead(trainer: Any, stage: Any) -> None:
        data, device = trainer.datamodule, stage.device
        batches = padded_batches if options.kind == "padded" else packed_batches
        losses = {"packed": lambda stage: stage.loss, "padded": causal_loss, "live": live_reference_loss}
        half, loss = trainer.precision != "32-true", losses[options.kind](stage)
        loop = BareLoop(stage, batches(data, device), loss, supervised=options.supervised, half=half)
        serve(channel, loop.take, device=device, warmup=options.warmup, facts=facts)
        raise Stopped

    train_with(CallbackOnStart(instead), options.overrides)


if __name__ == "__main__":
    main()
