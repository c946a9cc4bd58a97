"""Fixtures that several folders of tests share; what takes time is made once a session."""

import pytest
import torch

from lumi.arch import Decoder, DecoderConfig


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Tests compare bits, and two threads add floats in another order than one."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_config() -> DecoderConfig:
    """Two layers, grouped queries, a vocabulary of 64."""
    return DecoderConfig(vocab_size=64, n_layers=2, d_model=32, n_heads=4, n_kv_heads=2, d_ff=64, max_seq_len=64)


@pytest.fixture
def tiny_decoder(tiny_config: DecoderConfig) -> Decoder:
    """Freshly initialised from seed 0, in evaluation mode."""
    torch.manual_seed(0)
    return Decoder(tiny_config).eval()
