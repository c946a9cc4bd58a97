"""What every stage does the same way: step, normalise, guard, validate.

Three rules make the numbers right.

- The gradient of an optimizer step is the mean over *its supervised tokens*, not a mean of means over micro-batches, so that
  4 micro-batches of 2 give the gradient of 1 of 8 even when they hold different numbers of targets.
- Every source of randomness is reseeded from (seed, rank, micro-batch) before each micro-batch, so that a resumed run draws
  the same dropout as an undisturbed one.
- A step whose loss or gradient is not finite is refused before it touches the weights.

A GPU is not waited for where that can be helped: it is told what to do with a step that is not finite (nothing, and the same
for all that follow), and the host reads the figures of a step when they are there, a few steps later.
"""

import dataclasses
import logging
import math
import random
from abc import abstractmethod
from collections import deque
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
from lumi.optim import Recipe, Together
from lumi.ranks import gathered
from lumi.stage.fetch import Fetch

log = logging.getLogger(__name__)

_STEPS_AHEAD = 4
"""A GPU is given at most so many steps before the figures of the first one are waited for."""


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


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Step:
    """An optimizer step that the device was given.

    Attributes:
        number: of the run, from 0.
        rate: of its first group.
        figures: sums of loss and targets and the stage's figures over all ranks; norm of the mean gradient; the factor that
            the gradient is multiplied by; the loss of each micro-batch.
        read: source and window of each micro-batch.
    """

    number: int
    rate: float
    figures: Fetch
    read: list[tuple[Tensor, Tensor]]


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
        step_metrics: of the last optimizer step (train/loss, optim/lr, optim/grad_norm), for the callbacks to log; to read
            them waits for a GPU to finish that step.
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
        self._step_metrics: dict[str, float] = {}
        self.val_metrics: dict[str, float] = {}
        self.register_buffer("token_bytes", sources.token_bytes, persistent=False)
        self._window: list[Tensor] = []  # sums of the micro-batches since the last step: loss, targets, figures
        self._divisor = torch.ones(())
        self._ahead: deque[_Step] = deque()
        self._refused: Tensor | None = None  # on a GPU: whether a step had to be refused
        self._val_sums = torch.zeros(0)
        self._read: list[tuple[Tensor, Tensor]] = []  # source and window of each micro-batch since the last step
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
        # `torch.manual_seed` also notes down, for each accelerator that is not there, who has called it: 0.7 ms.
        if self.device.type == "cpu":
            torch.default_generator.manual_seed(seed)
        else:
            torch.manual_seed(seed)
        factor = self.recipe.schedule.factor(self.global_step, self.total_steps)
        for group in self.optimizers(use_pl_optimizer=False).param_groups:  # pyright: ignore[reportAttributeAccessIssue]
            group["lr"] = group["peak_lr"] * factor
        # On their device: to read them here would wait for the step before.
        self._read.append((batch["source"], batch["sample"]))

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

    def _sums(self, nll: Tensor, targets: Tensor) -> Tensor:
        """Loss, targets and the stage's figures of one micro-batch, as one tensor."""
        sums = torch.stack([nll.detach().double(), targets.detach().double()])
        if not self.figures:
            return sums
        assert self.extra is not None, "loss() leaves the sums of its figures"
        return torch.cat([sums, self.extra.double()])

    def configure_gradient_clipping(self, optimizer: torch.optim.Optimizer, *_: Any, **__: Any) -> None:
        """What turns the sum of micro-batch gradients into the gradient of the mean over all supervised tokens, and clips it.

        Raises:
            NumericError: loss or gradient is not finite; the weights are as they were before that step. On a GPU it may come
                some steps later.
        """
        parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        gradients = [p.grad for p in parameters]
        norm: Any = torch.nn.utils.get_total_norm(gradients)
        if hasattr(norm, "full_tensor"):
            norm = norm.full_tensor()  # of all parts
        figures = self._measured(norm)
        step = _Step(
            number=self.global_step,
            rate=optimizer.param_groups[0]["lr"],
            figures=Fetch(figures),
            read=self._read.copy(),
        )
        self._read.clear()
        if self._can_run_ahead(optimizer):
            self._run_ahead(step, optimizer, figures)
        elif (factor := self._settle(step)) is None:
            for parameter in parameters:
                parameter.grad = None  # an optimizer leaves what has no gradient as it is, its moments too
        elif factor != 1.0:  # a pass over all gradients
            torch._foreach_mul_(gradients, factor)  # pyright: ignore[reportPrivateImportUsage]

    def _measured(self, norm: Tensor) -> Tensor:
        """The figures of a `_Step` as one tensor, on the device.

        Args:
            norm: of what is there: the gradient of sum / (divisor * micro-batches), averaged over the ranks.
        """
        parts = torch.stack(self._window)
        self._window.clear()
        sums = self.trainer.strategy.reduce(parts.sum(dim=0), reduce_op="sum")  # of all ranks
        assert isinstance(sums, Tensor)
        scale = self._divisor.double() * len(parts) * self.trainer.world_size / sums[1]
        value = norm.double() * scale
        factor = scale
        if self.recipe.clip_norm is not None:
            factor = scale * (self.recipe.clip_norm / value).clamp(max=1.0)
        return torch.cat((sums, torch.stack((value, factor)), parts[:, 0]))

    def _can_run_ahead(self, optimizer: torch.optim.Optimizer) -> bool:
        """Whether the device can refuse a step by itself: these optimizers take its word, and nobody else has to know."""
        return (
            self.device.type == "cuda"
            and isinstance(optimizer, torch.optim.AdamW | Together)
            and self.trainer.world_size == 1
            and self.max_skipped_steps is None
            and self._scaler is None
        )

    def _run_ahead(self, step: _Step, optimizer: Any, figures: Tensor) -> None:
        """Leave it to the optimizer to scale the gradient, or to change nothing from the first refused step on."""
        nll, targets, norm, factor = *figures[:2], *figures[2 + len(self.figures) :][:2]
        is_finite = (norm + nll / targets).isfinite()
        refused = ~is_finite if self._refused is None else self._refused | ~is_finite
        self._refused = refused
        optimizer.found_inf = refused.float()
        optimizer.grad_scale = factor.reciprocal().float()
        self._ahead.append(step)
        while self._ahead and (len(self._ahead) > _STEPS_AHEAD or self._ahead[0].figures.arrived()):
            self._settle(self._ahead.popleft())

    @property
    def _scaler(self) -> Any:
        """Of fp16: it skips a step that is not finite and tries a lower scale."""
        return getattr(self.trainer.precision_plugin, "scaler", None)

    @property
    def step_metrics(self) -> dict[str, float]:
        """Of the last optimizer step; waits until it is done."""
        while self._ahead:
            self._settle(self._ahead.popleft())
        return self._step_metrics

    def _settle(self, step: _Step) -> float | None:
        """Read what the device has found: the factor of the gradient, or None where the step is left out."""
        nll, targets, *rest = step.figures.numbers()
        n = len(self.figures)
        figures, (norm, factor), losses = rest[:n], rest[n : n + 2], rest[n + 2 :]
        if targets == 0:
            raise NumericError(f"step {step.number}: no supervised token in the batch", "the loss has no meaning")
        loss = nll / targets
        is_fine = self._scaler is not None or (math.isfinite(norm) and math.isfinite(loss))
        if not is_fine:
            self._refuse(step, loss, norm, losses)
        self._step_metrics = {
            "train/loss": loss,
            "optim/lr": step.rate,
            "optim/grad_norm": norm,
            **({} if self.max_skipped_steps is None else {"optim/skipped_steps": self.skipped_steps}),
            **{f"train/{name}": value / targets for name, value in zip(self.figures, figures, strict=True)},
        }
        return factor if is_fine else None

    def _refuse(self, step: _Step, loss: float, norm: float, losses: list[float]) -> None:
        """Count a step that must not be taken; every rank sees the same norm and loss, so all of them do."""
        found = f"step {step.number}: loss={loss}, gradient norm={norm}"
        bad = [part for part, one in zip(step.read, losses, strict=True) if not math.isfinite(one)]
        where = [text for text in gathered(self._say_windows(bad)) if text] or gathered(self._say_windows(step.read))
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
        """What was left out counts for the whole run; what the device was given is looked at first."""
        _ = self.step_metrics
        checkpoint["skipped_steps"] = self.skipped_steps

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on counting."""
        self.skipped_steps = checkpoint.get("skipped_steps", 0)  # the first checkpoints did not say

    def on_train_end(self) -> None:
        """Look at the last steps."""
        _ = self.step_metrics

    def on_validation_epoch_start(self) -> None:
        """Start the sums anew, after a look at the steps before."""
        _ = self.step_metrics
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
