"""Fixtures that several folders of tests share; what takes time is made once a session."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from lumi.arch import Decoder, DecoderConfig
from tests.faults.ledger import Report, reporter

CONF = Path(__file__).parent.parent / "conf"

TINY_RUN = (
    "arch=debug",
    "arch.dropout=0.1",
    "data.batch_size=2",
    "data.val_windows=4",
    "trainer.accelerator=cpu",
    "trainer.threads=1",
    "trainer.precision=32-true",
    "callbacks.samples=null",
    "callbacks.progress.every_steps=1",
    "tokenizer.vocab_size=700",
    "tokenizer.num_threads=1",
    "source.megabytes=0.2",
    "+corpus.sources.second={_target_: lumi.corpus.World, name: second, seed: 1, megabytes: 0.1, weight: 0.5}",
)
"""A mixture of two small worlds, dropout on: a run of ten steps takes about a second."""

_TINY = tuple(one for one in TINY_RUN if not one.startswith(("source.", "+corpus.")))
TINY_CHAT = (
    "stage=sft",
    *_TINY,
    "arch.max_seq_len=128",
    "data.sources.world_chat.n_conversations=60",
    "data.sources.world_chat.n_test=2",
    "data.sources.world_chat.shares={facts: 1, stories: 0, checks: 1}",
    "data.sources.tasks.n_conversations=20",
    "data.sources.tasks.n_test=2",
    "data.sources.pydocs_chat=null",
)
TINY_PAIRS = (
    "stage=dpo",
    *_TINY,
    "arch.max_seq_len=128",
    "data.sources.world_pairs.n_pairs=60",
    "data.sources.world_pairs.n_test=2",
)
"""Later stages on a few conversations and pairs, dropout on; longer windows, because an example is never cut."""


def _forget_fork_server() -> None:
    """In a forked child: the fork server that the corpus engine started is its parent's, and it must start its own."""
    if (module := sys.modules.get("multiprocess.forkserver")) is not None:
        module._forkserver.__init__()


os.register_at_fork(after_in_child=_forget_fork_server)


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--ledger FILE``: where the tests of the fault matrix write what they saw."""
    parser.addoption("--ledger", type=Path, default=None, help="append what the tests of the fault matrix saw")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes an hour begins first: other tests fit beside it, and it beside none."""
    items.sort(key=lambda item: item.get_closest_marker("hour") is None)


@pytest.fixture
def row(request: pytest.FixtureRequest) -> Report:
    """``row(trials=200, failures=0, seed=0)``: what became of a row of the fault matrix; see `tests.faults.ledger`."""
    ids = tuple(mark.args[0] for mark in request.node.iter_markers("matrix"))
    return reporter(ids, request.node.nodeid, request.config.getoption("--ledger"))


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


@pytest.fixture(scope="session")
def stages(
    composed: Callable[..., DictConfig], data_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[str, ...]]:
    """The overrides of a tiny run of every stage; those that follow another one begin from a run made here."""
    from lumi.run import train  # late: seconds of import that most tests do not need

    runs = tmp_path_factory.mktemp("before")
    pretrain = (*TINY_RUN, "arch.max_seq_len=128")
    sft = (*TINY_CHAT, f"init_from='{runs / 'pretrain'}'")
    for name, overrides in (("pretrain", pretrain), ("sft", (*sft, "stage.lora=null"))):
        places = (f"paths.data='{data_folder}'", f"paths.runs='{runs}'", f"name={name}")
        train(composed("train", *overrides, *places, "budget.epochs=null", "budget.steps=3"))
    return {"pretrain": TINY_RUN, "sft": sft, "dpo": (*TINY_PAIRS, f"init_from='{runs / 'sft'}'")}


@pytest.fixture
def run_config(composed: Callable[..., DictConfig], data_folder: Path, tmp_path: Path) -> Callable[..., DictConfig]:
    """``run_config("budget.steps=8")``: a tiny run in a folder of this test's own."""

    def config(*overrides: str) -> DictConfig:
        places = (f"paths.data='{data_folder}'", f"paths.runs='{tmp_path}'", "name=run")
        return composed("train", *TINY_RUN, *places, *overrides)

    return config
