"""Preference optimisation: make the better answer likelier than the worse one (``stage=dpo``)."""

import logging

import torch
from torch import Tensor

from lumi.arch import Decoder, target_nll
from lumi.arch.lora import Lora
from lumi.batch import PreferenceBatch
from lumi.optim import Recipe
from lumi.stage.base import Sources, Stage
from lumi.stage.objective import Answers, Objective

log = logging.getLogger(__name__)


class DPO(Stage):
    """A preference loss on pairs; constructor keys as in `Stage`.

    Args:
        objective: which loss, and how strong.
        lora: train a low-rank adapter over frozen weights; null trains all weights.
        alarm_nats: warn when chosen answers have become less likely by so many nats a token than under the reference: the
            model then unlearns what it should prefer.
    """

    follows = "sft"
    predicts_text = False
    figures = ("margin", "accuracy", "logprob_chosen", "logprob_rejected", "drift_chosen")

    def __init__(
        self,
        *,
        decoder: Decoder,
        recipe: Recipe,
        sources: Sources,
        total_steps: int,
        accumulate: int,
        seed: int,
        objective: Objective,
        lora: Lora | None = None,
        alarm_nats: float = 0.5,
        max_skipped_steps: int | None = None,
    ) -> None:
        super().__init__(
            decoder=decoder,
            recipe=recipe,
            sources=sources,
            total_steps=total_steps,
            accumulate=accumulate,
            seed=seed,
            lora=lora,
            max_skipped_steps=max_skipped_steps,
        )
        self.objective, self.alarm_nats = objective, alarm_nats

    @property
    def needs_reference(self) -> bool:
        """Whether the run has to compute the reference model's log-probabilities first."""
        return self.objective.needs_reference

    def loss(self, batch: PreferenceBatch) -> tuple[Tensor, Tensor]:
        """Summed loss over the pairs, and how many they are."""
        answers = compare(self.decoder, batch)
        losses = self.objective.per_pair(answers)
        with torch.no_grad():
            rewards = self.objective.rewards(answers)
            margin = rewards[:, 0] - rewards[:, 1]
            drift = (
                answers.log_ratios[:, 0] / answers.lengths[:, 0] if self.needs_reference else torch.zeros_like(margin)
            )
            per_token = answers.mean_policy
            self.extra = torch.stack(
                [margin, (margin > 0).to(margin.dtype), per_token[:, 0], per_token[:, 1], drift]
            ).sum(dim=1)
        return losses.sum(), torch.tensor(len(losses), device=losses.device)

    def on_validation_epoch_end(self) -> None:
        """Also look whether the chosen answers fall."""
        super().on_validation_epoch_end()
        drift = self.val_metrics.get("val/drift_chosen", 0.0)
        if drift < -self.alarm_nats:
            log.warning(
                "chosen answers are %.2f nats a token less likely than under the reference (stage.alarm_nats=%s): the model "
                "unlearns them; lower optim.lr or the budget, or raise stage.objective.nll_weight",
                -drift,
                self.alarm_nats,
            )


def compare(decoder: Decoder, batch: PreferenceBatch) -> Answers:
    """Log-probabilities of both answers of every pair in a batch, in the order of ``batch["pairs"]``."""
    hidden = decoder(batch["tokens"], batch["doc_ids"], batch.get("boundaries"))  # (B, T, D)
    nll = target_nll(hidden, decoder.lm_weight, batch["tokens"], batch["loss_mask"])  # (N,)
    pairs = batch["pairs"]
    n_documents = 2 * pairs.shape[1]
    rows = torch.arange(len(pairs), device=pairs.device).unsqueeze(1)
    owner = (rows * n_documents + batch["doc_ids"])[:, 1:][batch["loss_mask"][:, 1:]].long()  # (N,) document of a token
    summed = torch.zeros(pairs.numel() * 2, device=nll.device, dtype=nll.dtype).index_add(0, owner, -nll)
    counts = torch.zeros_like(summed).index_add(0, owner, torch.ones_like(nll.detach()))
    present = (pairs >= 0).flatten()
    return Answers(
        policy=summed.view(-1, 2)[present],
        reference=batch["reference"].flatten(0, 1)[present].to(summed.dtype),
        lengths=counts.view(-1, 2)[present],
    )
