"""Compiled blocks compute what the blocks compute."""

import copy
import shutil

import pytest
import torch
from torch.testing import assert_close

from lumi.arch import Decoder, next_token_loss
from lumi.arch.native.build import COMPILERS

pytestmark = pytest.mark.skipif(not any(map(shutil.which, COMPILERS)), reason="needs a C++ compiler")


@pytest.fixture(scope="module")
def pair(tiny_config):
    """A decoder with compiled blocks, and the same without."""
    torch.manual_seed(0)
    plain = Decoder(tiny_config)
    compiled = copy.deepcopy(plain)
    compiled.compile_blocks()
    return compiled, plain


@pytest.mark.slow
@pytest.mark.parametrize("n_documents", [1, 2])
def test_compiled_blocks_give_the_loss_and_the_gradients_of_plain_ones(pair, n_documents):
    tokens = torch.randint(64, (2, 32), generator=torch.Generator().manual_seed(1))
    doc_ids = torch.arange(32).div(32 // n_documents, rounding_mode="floor").int().expand(2, -1)
    losses = []
    for decoder in pair:
        decoder.zero_grad()
        nll, _ = next_token_loss(decoder(tokens, doc_ids), decoder.lm_weight, tokens, tokens >= 0)
        nll.backward()
        losses.append(nll)
    assert_close(losses[0], losses[1], atol=0, rtol=1e-6)
    for (name, mine), theirs in zip(pair[0].named_parameters(), pair[1].parameters(), strict=True):
        # Sums in another order: float32's last digits, relative to the largest of the array.
        assert (mine.grad - theirs.grad).abs().max() < 1e-5 * theirs.grad.abs().max(), name


def test_without_gradients_nothing_is_compiled(pair, monkeypatch):
    compiled, plain = pair
    monkeypatch.setattr(compiled, "_train_block", None)  # calling it would fail
    tokens = torch.arange(16).unsqueeze(0)
    with torch.no_grad():
        assert torch.equal(compiled(tokens), plain(tokens))
