"""Counting tokens for budgets."""

from pathlib import Path

import pytest

from lumi.corpus import TokenCounter, World
from lumi.errors import TokenizerMismatch
from lumi.tokenizer import Tokenizer, TokenizerConfig, train_tokenizer

TEXT = "The county seat, founded in 1846, has 12 schools; its mayor (Ann O'Hara) lives at 7 Mill Road.\n" * 20


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokens") / "t"
    texts = [document.text for document in World(megabytes=0.2).documents()]
    config = TokenizerConfig(name="t", vocab_size=600, model_type="bpe")
    train_tokenizer(lambda: iter(texts), path, config, parents={})
    return path


def test_with_a_tokenizer_the_count_is_exact(folder):
    tokenizer = Tokenizer.load(folder)
    counter = TokenCounter(tokenizer=folder, sha256=tokenizer.sha256)
    assert counter.count(TEXT) == len(tokenizer.encode(TEXT))
    assert counter.settings() == {"tokens": "counted", "tokenizer": tokenizer.sha256}


def test_another_tokenizer_is_refused(folder):
    with pytest.raises(TokenizerMismatch):
        TokenCounter(tokenizer=folder, sha256="0" * 64).count(TEXT)


def test_without_one_the_count_is_an_estimate_that_follows_the_text():
    counter = TokenCounter()
    assert counter.settings()["tokens"] == "estimated"
    # 16 words, 7 digits, 8 signs: about 31 tokens a line by a tokenizer of English.
    assert 25 * 20 <= counter.count(TEXT) <= 37 * 20
    assert counter.count(TEXT * 3) == pytest.approx(3 * counter.count(TEXT), abs=2)
    assert counter.count("x") == 1
