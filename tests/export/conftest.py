"""One chat model with an adapter and its exports, made once a session."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig

from lumi.arch import Decoder, DecoderConfig
from lumi.export import export_model
from lumi.export.source import Source
from lumi.tokenizer import Template, Tokenizer, TokenizerConfig, train_tokenizer
from lumi.trained import Trained, load_trained

TEXT = "“It’s — said the café owner — £5… naïve façade”\n    two  spaces\n\n" * 40
WORDS = " ".join(f"{a}{b}{c}" for a in "bdfgklm" for b in ("a", "er", "is") for c in ("", "no", "té", "ri")) + ".\n"


@pytest.fixture(scope="session")
def chat_run(
    composed: Callable[..., DictConfig],
    stages: dict[str, tuple[str, ...]],
    data_folder: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A run of three steps that trained an adapter and the rows of control tokens, over a pretrained model."""
    from lumi.run import train

    runs = tmp_path_factory.mktemp("exported")
    places = (f"paths.data='{data_folder}'", f"paths.runs='{runs}'", "name=chat")
    train(composed("train", *stages["sft"], *places, "budget.epochs=null", "budget.steps=3"))
    return runs / "chat"


@pytest.fixture(scope="session")
def trained(chat_run: Path) -> Trained:
    return load_trained(chat_run)


@pytest.fixture(scope="session")
def export(trained: Trained) -> Callable[..., dict[str, Any]]:
    """``export(folder, "hf", "bfloat16")``: what the command of that name does."""

    def write(folder: Path, kind: Any, dtype: str | None = None, of: Trained = trained) -> dict[str, Any]:
        return export_model(
            decoder=of.decoder,
            tokenizer=of.tokenizer,
            template=of.template,
            facts=of.facts,
            checkpoint=of.checkpoint,
            run=of.run,
            folder=folder,
            format=kind,
            dtype=dtype,
        )

    return write


@pytest.fixture(scope="session")
def hf(export: Callable[..., dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The Hugging Face export: its folder and figures."""
    return export(tmp_path_factory.mktemp("export") / "hf", "hf")


@pytest.fixture(scope="session")
def adapter(export: Callable[..., dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The peft export: its folder and figures."""
    return export(tmp_path_factory.mktemp("export") / "adapter", "adapter")


@pytest.fixture(scope="session", params=["unigram", "bpe"])
def unicode_tokenizer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """A small vocabulary with pieces of two and three bytes a character."""
    folder = tmp_path_factory.mktemp("tokenizer") / request.param
    config = TokenizerConfig(
        name="t", vocab_size=420, exact_size=False, model_type=request.param, user_symbols=["foo_bar"], num_threads=1
    )
    train_tokenizer(lambda: iter([TEXT, WORDS * 40]), folder, config, parents={})
    return Tokenizer.load(folder)


@pytest.fixture
def untrained(tmp_path: Path) -> Callable[..., Source]:
    """``untrained(tokenizer, tied=True)``: a random decoder far from uniform predictions, as something to export."""

    def make(tokenizer: Tokenizer, template: Template | None = None, **settings: Any) -> Source:
        shape = {"n_layers": 2, "d_model": 64, "n_heads": 4, "n_kv_heads": 2, "d_ff": 96, "max_seq_len": 64}
        torch.manual_seed(0)
        decoder = Decoder(DecoderConfig(vocab_size=tokenizer.vocab_size, **{**shape, **settings})).eval()
        with torch.no_grad():
            for parameter in decoder.parameters():
                parameter.mul_(torch.empty_like(parameter).uniform_(1.0, 4.0))
        return Source(decoder=decoder, tokenizer=tokenizer, template=template, facts={"name": "t"}, checkpoint=tmp_path)

    return make
