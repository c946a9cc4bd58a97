"""What every stage does the same way: step, normalise, guard, validate.

Three rules make the numbers right.

- The gradient of an optimizer step is the mean over *its supervised tokens*, not a mean of means over micro-batches, so that
  4 micro-batches of 2 give the gradient of 1 of 8 even when they hold different numbers of targets.
- Every source of randomness is reseeded from (seed, rank, micro-batch) before each micro-batch, so that a resumed run draws
  the same dropout as an undisturbed one.
- A step whose gradient is not finite is refused before it touches the weights.
"""

import dataclasses
import math
import random
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor

from lumi.arch import Decoder
from lumi.batch import PackedBatch
from lumi.errors import NumericError
from lumi.optim import Recipe


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sources:
    """The mixture as a stage sees it.

    Attributes:
        names: in the order of a batch's ``source`` numbers.
        weights: shares of the mixture, summing to one; validation figures are averaged with them.
        token_bytes: (V,) int32 bytes of text that a token stands for, for bits per byte.
    """

    names: Sequence[str]
    weights: Sequence[float]
    token_bytes: Tensor


class Stage(pl.LightningModule):
    """Base of the stages; a subclass gives the loss.

    Args:
        decoder: the model.
        recipe: optimizer, schedule and clipping (``optim=…``).
        sources: names, weights and token lengths of the data.
        total_steps: optimizer steps of the whole run, for the schedule.
        accumulate: micro-batches of an optimizer step.
        seed: of everything random in the run.

    Attributes:
        step_metrics: of the last optimizer step (train/loss, optim/lr, optim/grad_norm), for the callbacks to log.
        val_metrics: of the last validation (val/loss, val/perplexity, val/bits_per_byte, and by source).
    """

    token_bytes: Tensor

    def __init__(
        self,
        *,
        decoder: Decoder,
        recipe: Recipe,
        sources: Sources,
        total_steps: int,
        accumulate: int,
        seed: int,
    ) -> None:
        super().__init__()
        self.decoder, self.recipe, self.sources = decoder, recipe, sources
        self.total_steps, self.accumulate, self.seed = total_steps, accumulate, seed
        self.step_metrics: dict[str, float] = {}
        self.val_metrics: dict[str, float] = {}
        self.register_buffer("token_bytes", sources.token_bytes, persistent=False)
        self._window: list[tuple[Tensor, Tensor]] = []  # (nll, targets) of the micro-batches since the last step
        self._divisor = 1
        self._val_sums = torch.zeros(0)
        self._last_samples: list[int] = []

    @abstractmethod
    def loss(self, batch: Any) -> tuple[Tensor, Tensor]:
        """Summed loss (differentiable scalar) and the number of supervised tokens (scalar) of a batch."""

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """One optimizer; its rate is set step by step, there is no scheduler with a state."""
        return self.recipe.optimizer(self.decoder.named_parameters())

    def on_train_batch_start(self, batch: PackedBatch, batch_idx: int) -> None:
        """Put the randomness and the learning rate where this micro-batch of this run has them."""
        seed = int(np.random.SeedSequence((self.seed, self.global_rank, batch_idx)).generate_state(1, np.uint64)[0])
        random.seed(seed)
        np.random.seed(seed & 0xFFFFFFFF)  # noqa: NPY002  # third-party code may use the global generator
        torch.manual_seed(seed)
        factor = self.recipe.schedule.factor(self.global_step, self.total_steps)
        for group in self.optimizers(use_pl_optimizer=False).param_groups:  # pyright: ignore[reportAttributeAccessIssue]
            group["lr"] = group["peak_lr"] * factor
        self._last_samples = batch["sample"][:8].tolist()

    def training_step(self, batch: PackedBatch, batch_idx: int) -> Tensor:
        """Loss of one micro-batch, divided by a constant; `on_before_optimizer_step` makes it a mean."""
        nll, targets = self.loss(batch)
        if not self._window:
            self._divisor = batch["tokens"].numel()  # of the right size for fp16; undone below
        self._window.append((nll.detach(), targets.detach()))
        return nll / self._divisor

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Turn the sum of micro-batch gradients into the gradient of the mean over all supervised tokens."""
        n_micro = len(self._window)
        sums = torch.stack([torch.stack([nll.double(), targets.double()]) for nll, targets in self._window]).sum(dim=0)
        self._window.clear()
        sums = self.trainer.strategy.reduce(sums, reduce_op="sum")  # (2,): nll and targets of all ranks
        assert isinstance(sums, Tensor)
        nll, targets = sums.tolist()
        if targets == 0:
            raise NumericError(f"step {self.global_step}: no supervised token in the batch", "the loss has no meaning")
        # What is there: the gradient of sum / (divisor * micro-batches), averaged over the ranks.
        scale = self._divisor * n_micro * self.trainer.world_size / targets
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        torch._foreach_mul_(gradients, scale)  # pyright: ignore[reportPrivateImportUsage]  # one kernel for all
        self._step_loss = nll / targets

    def configure_gradient_clipping(self, optimizer: torch.optim.Optimizer, *_: Any, **__: Any) -> None:
        """Measure the gradient's norm, refuse it if it is not finite, clip it.

        Raises:
            NumericError: before the weights are touched.
        """
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        value = norm.item()
        scaler = getattr(self.trainer.precision_plugin, "scaler", None)
        if (
            not math.isfinite(value) and scaler is None
        ):  # with fp16 the scaler skips such a step and tries a lower scale
            raise NumericError(
                f"step {self.global_step}: loss={self._step_loss}, gradient norm={value}",
                f"not a finite number (windows {self._last_samples}…); the weights were not changed",
                "resume=auto continues from the last checkpoint; lower optim.lr or use trainer.precision=32-true",
            )
        if self.recipe.clip_norm is not None and value > self.recipe.clip_norm:
            torch._foreach_mul_(gradients, self.recipe.clip_norm / value)  # pyright: ignore[reportPrivateImportUsage]
        self.step_metrics = {
            "train/loss": self._step_loss,
            "optim/lr": optimizer.param_groups[0]["lr"],
            "optim/grad_norm": value,
        }

    def on_validation_epoch_start(self) -> None:
        """Start the sums anew."""
        self._val_sums = torch.zeros(len(self.sources.names), 3, dtype=torch.float64, device=self.device)

    def validation_step(self, batch: PackedBatch, batch_idx: int) -> None:
        """Add the batch's negative log-likelihood, targets and bytes to its source's sums."""
        nll, targets = self.loss(batch)
        n_bytes = self.token_bytes[batch["tokens"][batch["loss_mask"]]].sum()
        sums = torch.stack([nll.double(), targets.double(), n_bytes.double()])
        self._val_sums[int(batch["source"][0])] += sums

    def on_validation_epoch_end(self) -> None:
        """Loss, perplexity and bits per byte of each source, and of the mixture by its weights."""
        sums = self.trainer.strategy.reduce(self._val_sums, reduce_op="sum")
        assert isinstance(sums, Tensor)
        metrics, loss, bits, measured = {}, 0.0, 0.0, 0.0
        for name, weight, (nll, targets, n_bytes) in zip(
            self.sources.names, self.sources.weights, sums.tolist(), strict=True
        ):
            if not targets:
                continue  # nothing was held out of this source: it must not count as predicted perfectly
            of_source = {"loss": nll / targets, "bits_per_byte": nll / math.log(2) / max(1.0, n_bytes)}
            if len(self.sources.names) > 1:
                metrics |= {f"val/{key}/{name}": value for key, value in of_source.items()}
            measured += weight
            loss += weight * of_source["loss"]
            bits += weight * of_source["bits_per_byte"]
        loss, bits = (value / measured if measured else math.nan for value in (loss, bits))
        metrics["val/loss"] = loss
        metrics["val/perplexity"] = math.exp(min(loss, 700.0))  # beyond that a float overflows
        metrics["val/bits_per_byte"] = bits
        self.val_metrics = metrics
        self.log_dict(metrics, logger=False)  # for Lightning's own callbacks, such as early stopping
