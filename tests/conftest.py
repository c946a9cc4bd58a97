"""Fixtures that several folders of tests share; what takes time is made once a session."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from lumi.arch import Decoder, DecoderConfig

CONF = Path(__file__).parent.parent / "conf"

TINY_RUN = (
    "arch=debug",
    "arch.dropout=0.1",
    "data.batch_size=2",
    "data.val_windows=4",
    "trainer.accelerator=cpu",
    "trainer.threads=1",
    "callbacks.samples=null",
    "callbacks.progress.every_steps=1",
    "tokenizer.vocab_size=700",
    "tokenizer.num_threads=1",
    "source.megabytes=0.2",
    "+data.sources.second={_target_: lumi.corpus.World, name: second, seed: 1, megabytes: 0.1, weight: 0.5}",
)
"""A mixture of two small worlds, dropout on: a run of ten steps takes about a second."""


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


@pytest.fixture(scope="session")
def composed() -> Callable[..., DictConfig]:
    """``composed("train", "arch=debug")``: a config as the script would have it."""

    def compose_config(name: str, *overrides: str) -> DictConfig:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            return compose(name, list(overrides))

    return compose_config


@pytest.fixture(scope="session")
def data_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where all runs of a session keep their prepared data; the first one makes it."""
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="session")
def tiny_run() -> tuple[str, ...]:
    """The overrides of a run that takes a second."""
    return TINY_RUN


@pytest.fixture
def run_config(composed: Callable[..., DictConfig], data_folder: Path, tmp_path: Path) -> Callable[..., DictConfig]:
    """``run_config("budget.steps=8")``: a tiny run in a folder of this test's own."""

    def config(*overrides: str) -> DictConfig:
        places = (f"paths.data='{data_folder}'", f"paths.runs='{tmp_path}'", "name=run")
        return composed("train", *TINY_RUN, *places, *overrides)

    return config
