"""Supervised fine-tuning: the assistant's answers, given what was asked (``stage=sft``)."""

from torch import Tensor

from lumi.arch import next_token_loss
from lumi.batch import PackedBatch
from lumi.stage.base import Stage


class SFT(Stage):
    """Next-token prediction where the template supervises; constructor keys as in `Stage`.

    With ``lora`` only a low-rank adapter over frozen weights is trained; null trains all weights.
    """

    follows = "pretrain"  # stage whose newest finished run init_from=auto takes

    def loss(self, batch: PackedBatch) -> tuple[Tensor, Tensor]:
        """Summed negative log-likelihood in nats, and the number of supervised tokens."""
        hidden = self.decoder(batch["tokens"], batch["doc_ids"], batch.get("boundaries"))  # (B, T, D)
        return next_token_loss(hidden, self.decoder.lm_weight, batch["tokens"], batch["loss_mask"])
