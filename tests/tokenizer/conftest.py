"""One small tokenizer of each kind, trained once a session on seeded nonsense."""

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lumi.tokenizer import Tokenizer, TokenizerConfig, train_tokenizer

SYLLABLES = [a + b for a in "bdfgklmnprst" for b in ("a", "e", "i", "o", "u", "an", "er", "is")]

ADVERSARIAL = {
    "nothing": "",
    "every character of one byte": "".join(map(chr, range(256))),
    "NUL": "a\0b\0\0",
    "newlines": "\n\n\na\nb\n",
    "carriage returns": "a\r\nb\rc\n\r",
    "tabs": "\ta\t\tb\t",
    "spaces": "   a  b     c   ",
    "only spaces": " " * 50,
    "rows of signs": f"{'-' * 77}\n{'=' * 50}\n{'. ' * 40}",
    "emoji": "😀👩‍👩‍👧🏽",
    "combining": "e\u0301 \u00e9 \ufb01",
    "the sign for a space": "▁a▁ b ▁▁",
    "the sign for unknown": "▅ ⁇ \ufffd",
    "byte order mark": "\ufeffhi",
    "last of Unicode": "\uffff\U0010ffff",
    "names of bytes": "<0x41> <0x0A><<0x41>> x<0x4 <0xZZ>",
    "names of special tokens": "<s></s> <unk><pad>x<|im_start|>user\n[INST] hi [/INST]<|im_end|>",
    "special tokens in disguise": "<|im\u200b_end|> ＜|im_end|＞ </ s> < /s> <<s>> <|IM_END|>",
    "digits": "1234567890.5 007",
    "a long word": "x" * 3000,
    "a long word and a space": "x" * 1500 + " " + "y" * 1500,
    "other scripts": "日本語テキスト שלום мир",
}


def nonsense(n_chars: int, seed: int = 0) -> str:
    """Lines of invented words with punctuation, digits, indentation and blank lines."""
    rng = random.Random(seed)
    words = ["".join(rng.choices(SYLLABLES, k=rng.randint(1, 4))) for _ in range(400)]
    text: list[str] = []
    while sum(map(len, text)) < n_chars:
        line = " ".join(rng.choices(words, k=rng.randint(3, 12))).capitalize()
        text.append(rng.choice(["", "", "    ", "“"]) + line + rng.choice([".", "!", ", 1984?", ":"]))
        text.append(rng.choice(["\n", "\n", "\n\n"]))
    return "".join(text)


@pytest.fixture(scope="session")
def documents() -> list[str]:
    """40 documents of 3000 characters."""
    text = nonsense(120_000)
    return [text[start : start + 3000] for start in range(0, 120_000, 3000)]


@pytest.fixture
def train(tmp_path: Path, documents: list[str]) -> Callable[..., Path]:
    """``train(vocab_size=…, texts=…)``: the folder of a freshly trained tokenizer."""

    def train_into(
        *, texts: list[str] | None = None, folder: Path | None = None, force: bool = False, **settings: Any
    ) -> Path:
        folder = folder or tmp_path / "tokenizer"
        config = TokenizerConfig(**{"name": "t", "vocab_size": 600, **settings})

        def begin() -> Iterator[str]:
            return iter(documents if texts is None else texts)

        train_tokenizer(begin, folder, config, parents={"corpus": "c" * 64}, force=force)
        return folder

    return train_into


@pytest.fixture(scope="session", params=["unigram", "bpe"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, documents: list[str]) -> Path:
    """A tokenizer of 800 pieces with two user symbols."""
    folder = tmp_path_factory.mktemp("tokenizer") / request.param
    config = TokenizerConfig(name="t", vocab_size=800, model_type=request.param, user_symbols=["foo_bar", "\t\t"])
    train_tokenizer(lambda: iter(documents), folder, config, parents={})
    return folder


@pytest.fixture(scope="session")
def tokenizer(folder: Path) -> Tokenizer:
    return Tokenizer.load(folder)


@pytest.fixture(params=ADVERSARIAL.values(), ids=list(ADVERSARIAL))
def adversarial(request: pytest.FixtureRequest) -> str:
    """Texts on which tokenizers are known to fail, one by one."""
    return request.param
