"""What training is said to need at its highest."""

import dataclasses

import pytest
import torch
from torch import nn

from lumi.arch import Decoder, next_token_loss
from lumi.memory import estimate_memory, kept_bytes


class Squares(nn.Module):
    """Keeps 4 bytes for each of 10 numbers of a window, and 40 bytes for its weight's own product."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(10))

    def loss(self, batch):
        scaled = batch["tokens"].float() * self.weight  # keeps the tokens as numbers; the weight is not counted
        return scaled.sum() + (self.weight * self.weight.clone()).sum(), torch.tensor(1)


@pytest.mark.parametrize("n_rows", [1, 2, 7])
def test_what_grows_with_the_batch_is_counted_by_row_and_the_rest_once(n_rows):
    squares = Squares()
    batch = {"tokens": torch.ones(n_rows, 10, dtype=torch.int64)}
    assert kept_bytes(squares, squares.loss, batch) == 40 * n_rows + 40


def estimate(config, **settings) -> int:
    """Of a decoder in training on 4 windows of 32 tokens."""
    decoder = Decoder(config)
    tokens = torch.zeros(4, 32, dtype=torch.int64)

    def loss(batch):
        hidden = decoder(batch["tokens"])
        return next_token_loss(hidden, decoder.lm_weight, batch["tokens"], batch["tokens"] >= 0)

    given = {"optimizer_bytes": 0, "compiled": False, "accumulates": False, **settings}
    return estimate_memory(decoder, loss, {"tokens": tokens}, **given)


def test_the_optimizer_counts_byte_by_byte(tiny_config):
    more = estimate(tiny_config, optimizer_bytes=10**9) - estimate(tiny_config)
    assert more == pytest.approx(10**9, rel=0.01)  # the process itself may grow by a page


def test_compiled_blocks_need_less(tiny_config):
    wide = dataclasses.replace(tiny_config, d_ff=65_536)  # far more than what else the process may take in the meantime
    compiled = estimate(wide, compiled=True)
    assert compiled < estimate(wide)


def test_checkpointed_blocks_keep_their_inputs_only(tiny_config):
    kept = []
    for checkpointed in (False, True):
        decoder = Decoder(dataclasses.replace(tiny_config, checkpoint_activations=checkpointed))
        batch = {"tokens": torch.zeros(2, 32, dtype=torch.int64)}
        kept.append(
            kept_bytes(decoder, lambda batch, decoder=decoder: (decoder(batch["tokens"]), torch.tensor(1)), batch)
        )
    assert kept[1] < kept[0] / 4
