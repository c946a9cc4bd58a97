"""What every stage does the same way: step, normalise, guard, validate.

Three rules make the numbers right.

- The gradient of an optimizer step is the mean over *its supervised tokens*, not a mean of means over micro-batches, so that
  4 micro-batches of 2 give the gradient of 1 of 8 even when they hold different numbers of targets.
- Every source of randomness is reseeded from (seed, rank, micro-batch) before each micro-batch, so that a resumed run draws
  the same dropout as an undisturbed one.
- A step whose loss or gradient is not finite is refused before it touches the weights.
"""

import dataclasses
import logging
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
from lumi.arch.lora import Lora, add_adapter
from lumi.batch import REPEATED, PackedBatch
from lumi.errors import NumericError
from lumi.optim import Recipe
from lumi.ranks import gathered

log = logging.getLogger(__name__)


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
        lora: put an adapter on the model and train only that.
        max_skipped_steps: so many steps whose gradient is not finite are left out of a run; null ends it at the first one.

    Attributes:
        follows: the stage whose model this one starts from (``init_from=auto``), or None.
        figures: names of what a stage measures beside the loss; ``loss`` leaves their sums in ``extra``.
        step_metrics: of the last optimizer step (train/loss, optim/lr, optim/grad_norm), for the callbacks to log.
        val_metrics: of the last validation (val/loss, val/perplexity, val/bits_per_byte, and by source).
    """

    token_bytes: Tensor
    follows: str | None = None
    figures: tuple[str, ...] = ()
    extra: Tensor | None = None
    needs_reference = False
    predicts_text = True  # whether the loss is a negative log-likelihood, so that perplexity and bits per byte follow

    def __init__(
        self,
        *,
        decoder: Decoder,
        recipe: Recipe,
        sources: Sources,
        total_steps: int,
        accumulate: int,
        seed: int,
        lora: Lora | None = None,
        max_skipped_steps: int | None = None,
    ) -> None:
        super().__init__()
        if lora is not None:
            add_adapter(decoder, lora, control=(sources.token_bytes == 0).nonzero().flatten())
        self.lora = lora
        self.decoder, self.recipe, self.sources = decoder, recipe, sources
        self.total_steps, self.accumulate, self.seed = total_steps, accumulate, seed
        self.step_metrics: dict[str, float] = {}
        self.val_metrics: dict[str, float] = {}
        self.register_buffer("token_bytes", sources.token_bytes, persistent=False)
        self._window: list[Tensor] = []  # sums of the micro-batches since the last step: loss, targets, figures
        self._step_loss, self._step_figures = math.nan, dict[str, float]()
        self._divisor = torch.ones(())
        self._scale = 1.0
        self._val_sums = torch.zeros(0)
        self._read: list[tuple[Tensor, Tensor]] = []  # source and window of each micro-batch since the last step
        self._losses: list[float] = []  # of each of them
        self.max_skipped_steps, self.skipped_steps = max_skipped_steps, 0

    @abstractmethod
    def loss(self, batch: Any) -> tuple[Tensor, Tensor]:
        """Summed loss (differentiable scalar) and the number of supervised tokens (scalar) of a batch."""

    def configure_model(self) -> None:
        """Hand the decoder to a strategy that takes it apart."""
        if (shard := getattr(self.trainer.strategy, "shard", None)) is not None:
            shard(self.decoder)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """One optimizer; its rate is set step by step, there is no scheduler with a state."""
        return self.recipe.optimizer(self.trained_parameters())

    def trained_parameters(self) -> list[tuple[str, torch.nn.Parameter]]:
        """Names and parameters that have gradients."""
        return [(name, value) for name, value in self.decoder.named_parameters() if value.requires_grad]

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None) -> None:
        """Free the gradients with the step: Lightning would keep them through the next forward pass, which needs the room."""
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        optimizer.zero_grad()

    def on_train_batch_start(self, batch: PackedBatch, batch_idx: int) -> None:
        """Put the randomness and the learning rate where this micro-batch of this run has them."""
        seed = int(np.random.SeedSequence((self.seed, self.global_rank, batch_idx)).generate_state(1, np.uint64)[0])
        random.seed(seed)
        np.random.seed(seed & 0xFFFFFFFF)  # noqa: NPY002  # third-party code may use the global generator
        torch.manual_seed(seed)
        factor = self.recipe.schedule.factor(self.global_step, self.total_steps)
        for group in self.optimizers(use_pl_optimizer=False).param_groups:  # pyright: ignore[reportAttributeAccessIssue]
            group["lr"] = group["peak_lr"] * factor
        self._read.append(
            (batch["source"], batch["sample"])
        )  # on their device: to read it here would wait for the step before

    def training_step(self, batch: PackedBatch, batch_idx: int) -> Tensor:
        """Loss of one micro-batch, divided by what is the same for the whole step; the rest is left to the clipping."""
        nll, targets = self.loss(batch)
        if not self._window:
            # All ranks must divide by the same. One alone takes its targets: its only micro-batch has the mean's gradient then.
            alone = self.trainer.world_size == 1
            self._divisor = (
                targets.detach().clamp(min=1) if alone else torch.full_like(targets, batch["tokens"].numel())
            )
        self._window.append(self._sums(nll, targets))
        return nll / self._divisor

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """What turns the sum of micro-batch gradients into the gradient of the mean over all supervised tokens."""
        n_micro = len(self._window)
        parts = torch.stack(self._window)
        sums = parts.sum(dim=0)
        self._window.clear()
        sums = self.trainer.strategy.reduce(sums, reduce_op="sum")  # of all ranks
        assert isinstance(sums, Tensor)
        nll, targets, *figures, divisor = torch.cat((sums, self._divisor.double().unsqueeze(0))).tolist()
        if targets == 0:
            raise NumericError(f"step {self.global_step}: no supervised token in the batch", "the loss has no meaning")
        # What is there: the gradient of sum / (divisor * micro-batches), averaged over the ranks.
        self._scale = divisor * n_micro * self.trainer.world_size / targets
        self._step_loss = nll / targets
        self._losses = parts[:, 0].tolist()
        self._step_figures = {
            f"train/{name}": value / targets for name, value in zip(self.figures, figures, strict=True)
        }

    def _sums(self, nll: Tensor, targets: Tensor) -> Tensor:
        """Loss, targets and the stage's figures of one micro-batch, as one tensor."""
        sums = torch.stack([nll.detach().double(), targets.detach().double()])
        if not self.figures:
            return sums
        assert self.extra is not None, "loss() leaves the sums of its figures"
        return torch.cat([sums, self.extra.double()])

    def configure_gradient_clipping(self, optimizer: torch.optim.Optimizer, *_: Any, **__: Any) -> None:
        """Measure the gradient's norm, refuse the step if it or the loss is not finite, scale and clip it in one pass.

        Raises:
            NumericError: before the weights are touched.
        """
        parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        gradients = [p.grad for p in parameters]
        norm: Any = torch.nn.utils.get_total_norm(gradients)
        if hasattr(norm, "full_tensor"):
            norm = norm.full_tensor()  # of all parts
        value = norm.item() * self._scale
        scaler = getattr(self.trainer.precision_plugin, "scaler", None)
        # With fp16 the scaler skips such a step and tries a lower scale.
        if scaler is None and not (math.isfinite(value) and math.isfinite(self._step_loss)):
            self._refuse(value)
            for parameter in parameters:
                parameter.grad = None  # an optimizer leaves what has no gradient as it is, its moments too
            gradients = []
        self._read.clear()
        factor = self._scale
        if self.recipe.clip_norm is not None and value > self.recipe.clip_norm:
            factor *= self.recipe.clip_norm / value
        if gradients and factor != 1.0:  # a pass over all gradients
            torch._foreach_mul_(gradients, factor)  # pyright: ignore[reportPrivateImportUsage]
        self.step_metrics = {
            "train/loss": self._step_loss,
            "optim/lr": optimizer.param_groups[0]["lr"],
            "optim/grad_norm": value,
            **({} if self.max_skipped_steps is None else {"optim/skipped_steps": self.skipped_steps}),
            **self._step_figures,
        }

    def _refuse(self, norm: float) -> None:
        """Count a step that must not be taken; every rank sees the same norm and loss, so all of them do."""
        found = f"step {self.global_step}: loss={self._step_loss}, gradient norm={norm}"
        bad = [part for part, loss in zip(self._read, self._losses, strict=True) if not math.isfinite(loss)]
        where = [text for text in gathered(self._say_windows(bad)) if text] or gathered(self._say_windows(self._read))
        self.skipped_steps += 1
        if self.skipped_steps <= (self.max_skipped_steps or 0):
            left = f"left out ({self.skipped_steps} of at most {self.max_skipped_steps})"
            log.warning("%s · %s · windows of %s", found, left, "; ".join(where))
            return
        raise NumericError(
            found,
            f"not a finite number (windows of {'; '.join(where)}); the weights were not changed",
            "resume=auto continues from the last checkpoint; lower optim.lr or use trainer.precision=32-true",
        )

    def _say_windows(self, read: list[tuple[Tensor, Tensor]]) -> str:
        """Source and windows of micro-batches, at most eight of each source."""
        windows: dict[str, list[int]] = {}
        for source, window in read:
            for number, index in zip(source.tolist(), window.tolist(), strict=True):
                windows.setdefault(self.sources.names[int(number)], []).append(index)
        return ", ".join(f"{name}: {seen[:8]}{'…' if len(seen) > 8 else ''}" for name, seen in windows.items())

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """What was left out counts for the whole run."""
        checkpoint["skipped_steps"] = self.skipped_steps

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on counting."""
        self.skipped_steps = checkpoint.get("skipped_steps", 0)  # the first checkpoints did not say

    def on_validation_epoch_start(self) -> None:
        """Start the sums anew."""
        self._val_sums = torch.zeros(
            len(self.sources.names), 3 + len(self.figures), dtype=torch.float64, device=self.device
        )

    def validation_step(self, batch: PackedBatch, batch_idx: int) -> None:
        """Add the batch's negative log-likelihood, targets and bytes to its source's sums."""
        nll, targets = self.loss(batch)
        source = int(batch["source"][0])
        if source == REPEATED:
            return
        n_bytes = self.token_bytes[batch["tokens"][batch["loss_mask"]]].sum()
        sums = torch.cat([n_bytes.double().unsqueeze(0), self._sums(nll, targets)])
        self._val_sums[source] += sums

    def on_validation_epoch_end(self) -> None:
        """Loss, perplexity and bits per byte of each source, and of the mixture by its weights."""
        sums = self.trainer.strategy.reduce(self._val_sums, reduce_op="sum")
        assert isinstance(sums, Tensor)
        metrics: dict[str, float] = {}
        means: dict[str, float] = {}
        measured = 0.0
        for name, weight, (n_bytes, nll, targets, *figures) in zip(
            self.sources.names, self.sources.weights, sums.tolist(), strict=True
        ):
            if not targets:
                continue  # nothing was held out of this source: it must not count as predicted perfectly
            of_source = {"loss": nll / targets} | {
                figure: value / targets for figure, value in zip(self.figures, figures, strict=True)
            }
            if self.predicts_text:
                of_source["bits_per_byte"] = nll / math.log(2) / max(1.0, n_bytes)
            if len(self.sources.names) > 1:
                metrics |= {f"val/{key}/{name}": value for key, value in of_source.items()}
            measured += weight
            for key, value in of_source.items():
                means[key] = means.get(key, 0.0) + weight * value
        means = {key: value / measured for key, value in means.items()} if measured else {"loss": math.nan}
        if self.predicts_text:
            means["perplexity"] = math.exp(min(means["loss"], 700.0))  # beyond that a float overflows
            means.setdefault("bits_per_byte", math.nan)
        metrics |= {f"val/{key}": value for key, value in means.items()}
        self.val_metrics = metrics
        self.log_dict(metrics, logger=False)  # for Lightning's own callbacks, such as early stopping
