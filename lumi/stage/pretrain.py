"""Pretraining: predict every token of packed text from those before it in its document (``stage=pretrain``)."""

from torch import Tensor

from lumi.arch import next_token_loss
from lumi.batch import PackedBatch
from lumi.stage.base import Stage


class Pretrain(Stage):
    """Next-token prediction on packed documents; constructor keys as in `Stage`."""

    def loss(self, batch: PackedBatch) -> tuple[Tensor, Tensor]:
        """Summed negative log-likelihood in nats, and the number of targets."""
        hidden = self.decoder(batch["tokens"], batch["doc_ids"], batch.get("boundaries"))  # (B, T, D)
        weight, mask = self.decoder.lm_weight, batch["loss_mask"]
        return next_token_loss(hidden, weight, batch["tokens"], mask, nearly_all=True)
