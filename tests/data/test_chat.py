"""Examples longer than a window: cut to whole turns, or left out, and always counted."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lumi.corpus.chat import Conversation, Tasks
from lumi.corpus.preference import Pair
from lumi.data import Beginning, ChatData
from lumi.data.chat import answer_document, render
from lumi.data.preference import render_pairs
from lumi.errors import ConfigError, DataError
from lumi.tokenizer import ExistingTokenizer, Message, Template, TokenizerConfig, train_tokenizer
from lumi.tokenizer.frozen import Tokenizer

CHATML = Template(
    name="chatml",
    system=["<|im_start|>system\n", "<|im_end|>\n"],
    user=["<|im_start|>user\n", "<|im_end|>\n"],
    assistant=["<|im_start|>assistant\n", "<|im_end|>\n"],
)
SYSTEM = Message(role="system", content="Be brief.")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder = tmp_path_factory.mktemp("tokenizer") / "t"
    config = TokenizerConfig(name="t", vocab_size=300, num_threads=1, exact_size=False)
    train_tokenizer(lambda: iter(["one two three four five six. Be brief."] * 20), folder, config, parents={})
    return Tokenizer.load(folder)


def talk(*exchanges: tuple[str, str]) -> list[Message]:
    return [
        Message(role=role, content=text)
        for pair in exchanges
        for role, text in zip(("user", "assistant"), pair, strict=True)
    ]


LONG = Conversation(messages=(SYSTEM, *talk(("one", "two"), ("three", "four"), ("five", "six " * 30))), id="long")
SHORT = Conversation(messages=tuple(talk(("one", "two"))), id="short")
ENDLESS = Conversation(messages=tuple(talk(("one", "six " * 90))), id="endless")


def test_a_long_conversation_keeps_the_whole_exchanges_that_fit(tokenizer: Tokenizer) -> None:
    expected = CHATML.render(tokenizer, LONG.messages[:5])
    found = render([LONG, SHORT, ENDLESS], CHATML, tokenizer, len(expected.tokens), cut=True)
    assert (len(found.examples), found.cut, found.too_long) == (2, 1, 1)
    ((tokens, mask),) = found.examples[0]
    assert tokens.tolist() == expected.tokens
    assert mask.tolist() == expected.loss_mask


def test_one_token_less_keeps_one_exchange_less(tokenizer: Tokenizer) -> None:
    seq_len = len(CHATML.render(tokenizer, LONG.messages[:5]).tokens) - 1
    found = render([LONG], CHATML, tokenizer, seq_len, cut=True)
    assert found.examples[0][0][0].tolist() == CHATML.render(tokenizer, LONG.messages[:3]).tokens


def test_a_long_conversation_can_be_left_out(tokenizer: Tokenizer) -> None:
    found = render([LONG, SHORT, ENDLESS], CHATML, tokenizer, 100)
    assert (len(found.examples), found.cut, found.too_long) == (1, 0, 2)


def test_a_long_pair_loses_the_oldest_exchanges_of_its_prompt(tokenizer: Tokenizer) -> None:
    prompt = (SYSTEM, *talk(("six " * 30, "two"), ("three", "four")), Message(role="user", content="five"))
    pair = Pair(prompt=prompt, chosen="six", rejected="one", id="p")
    shortened = (SYSTEM, *prompt[3:])
    expected = [answer_document(CHATML, tokenizer, shortened, answer)[0].tolist() for answer in ("six", "one")]
    found = render_pairs([pair], CHATML, tokenizer, sum(map(len, expected)), cut=True)
    assert [tokens.tolist() for tokens, _ in found.examples[0]] == expected
    assert (found.cut, found.too_long) == (1, 0)
    assert render_pairs([pair], CHATML, tokenizer, 20, cut=True).too_long == 1
    assert render_pairs([pair], CHATML, tokenizer, sum(map(len, expected))).too_long == 1


@pytest.fixture
def chat_data(tokenizer: Tokenizer, tmp_path: Path) -> Callable[..., ChatData]:
    def make(**settings: object) -> ChatData:
        data = ChatData(
            name="x",
            sources={"tasks": Tasks(n_conversations=40, n_test=1, kinds=["copy", "add"])},
            template=CHATML,
            tokenizer=ExistingTokenizer(path=tmp_path),
            root=tmp_path,
            seq_len=64,
            batch_size=2,
            seed=0,
            **settings,  # pyright: ignore[reportArgumentType]
        )
        data.prepare_data()
        return data

    return make


def test_replayed_text_has_its_share_and_an_epoch_is_one_of_the_conversations(
    chat_data: Callable[..., ChatData], tokenizer: Tokenizer, write_packed: Callable[..., Path]
) -> None:
    texts = {
        name: write_packed([list(range(3, 60))] * 30, name=name, tokenizer=tokenizer.sha256) for name in ("a", "b")
    }
    data, plain = chat_data(replay=0.4), chat_data()
    for one in (data, plain):
        one.beginning = Beginning(tokenizer=tokenizer, packed=texts, weights={"a": 0.75, "b": 0.25})
        one.setup()
    assert data.source_names == ["tasks", "replay-a", "replay-b"]
    assert data.weights == pytest.approx([0.6, 0.3, 0.1])
    source, _ = data.mixture(data.curriculum(2)).locate(np.arange(1000))
    assert Counter(source.tolist()) == {0: 600, 1: 300, 2: 100}
    assert data.n_tokens == pytest.approx(plain.n_tokens / 0.6, abs=1)
    assert data.fingerprints() == {
        **plain.fingerprints(),
        "replay-a": "fingerprint of a",
        "replay-b": "fingerprint of b",
    }


def test_replay_needs_a_text(chat_data: Callable[..., ChatData], tokenizer: Tokenizer) -> None:
    data = chat_data(replay=0.5)
    data.beginning = Beginning(tokenizer=tokenizer, packed={}, weights={})
    with pytest.raises(DataError, match=r"data.replay=0.5 · the model does not say"):
        data.setup()
    with pytest.raises(ConfigError, match=r"data.replay=1.0 · must be in"):
        chat_data(replay=1.0)
