"""A tokenizer of the demo's kind and every template of the project."""

from pathlib import Path

import pytest
import yaml

from lumi.tokenizer import Template, Tokenizer, TokenizerConfig, train_tokenizer
from tests.tokenizer.conftest import nonsense

TEMPLATES = sorted(Path(__file__).parents[3].joinpath("conf/template").glob("*.yaml"))


@pytest.fixture(scope="session", params=["unigram", "bpe"])
def tokenizer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """800 pieces; its text knows the words that chat markers are made of, so that pieces of them exist."""
    folder = tmp_path_factory.mktemp("tokenizer") / request.param
    text = nonsense(60_000) + "im_start im_end system user assistant end INST </ <| |> \n" * 40
    config = TokenizerConfig(name="t", vocab_size=800, model_type=request.param, num_threads=1)
    train_tokenizer(lambda: iter([text]), folder, config, parents={})
    return Tokenizer.load(folder)


@pytest.fixture(scope="session")
def templates() -> list[Template]:
    """All of conf/template."""
    found = [yaml.safe_load(path.read_text()) for path in TEMPLATES]
    assert len(found) >= 4
    return [Template(**{key: value for key, value in fields.items() if key != "_target_"}) for fields in found]
