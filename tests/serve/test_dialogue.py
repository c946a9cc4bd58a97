"""What a model reads of a conversation that is too long for it, and what is kept."""

import pytest

from lumi.errors import DataError
from lumi.serve.dialogue import Dialogue, Exchange
from lumi.tokenizer import Message, Template, Tokenizer, TokenizerConfig, train_tokenizer

TEMPLATE = Template(name="t", system=["", "<|end|>"], user=["<|user|>", "<|end|>"], assistant=["", "<|end|>"])
Q, A, S = "qqqqqqq", "aaaaaaaa", "ssss"
"""As tokens, with bos and the template: 5 + 1 for the system message, 9 a question, 9 an answer."""


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory) -> Tokenizer:
    """Writes q, a and s byte by byte."""
    folder = tmp_path_factory.mktemp("tokenizer") / "t"
    config = TokenizerConfig(name="t", vocab_size=400, exact_size=False)
    train_tokenizer(lambda: iter(["one two three four"]), folder, config, parents={})
    return Tokenizer.load(folder)


def dialogue(
    tokenizer: Tokenizer, context_tokens: int, n_exchanges: int, template: Template | None = TEMPLATE
) -> Dialogue:
    made = Dialogue(tokenizer, template, context_tokens, S if template else None)
    made.exchanges = [Exchange(prompt=Q, answer=A) for _ in range(n_exchanges)]
    return made


def prompt_of(tokenizer: Tokenizer, n_exchanges: int) -> list[int]:
    turns = [Message(role="user", content=Q), Message(role="assistant", content=A)] * n_exchanges
    opening = Message(role="system", content=S)
    return TEMPLATE.prompt(tokenizer, [opening, *turns, Message(role="user", content=Q)])


def test_the_sizes_that_these_tests_count_with(tokenizer):
    assert [len(prompt_of(tokenizer, n)) for n in (0, 1, 2)] == [15, 33, 51]


@pytest.mark.parametrize(("context_tokens", "n_read"), [(61, 2), (60, 1), (43, 1), (42, 0), (16, 0)])
def test_whole_exchanges_are_dropped_until_an_answer_fits_and_never_the_system_message(
    tokenizer, context_tokens, n_read
):
    talk = dialogue(tokenizer, context_tokens, 2)
    assert talk.prompt_ids(Q, answer_tokens=10) == prompt_of(tokenizer, n_read)
    assert (talk.n_dropped, len(talk.exchanges)) == (2 - n_read, 2)


def test_an_answer_is_given_at_most_a_quarter_of_the_context(tokenizer):
    assert dialogue(tokenizer, 68, 2).prompt_ids(Q, answer_tokens=1000) == prompt_of(tokenizer, 2)
    assert dialogue(tokenizer, 66, 2).prompt_ids(Q, answer_tokens=1000) == prompt_of(tokenizer, 1)


def test_a_question_that_is_too_long_drops_nothing(tokenizer):
    talk = dialogue(tokenizer, 15, 2)
    with pytest.raises(DataError, match=r"the prompt has 15 tokens .*arch\.max_seq_len=15, one must be left"):
        talk.prompt_ids(Q, answer_tokens=1)
    assert talk.n_dropped == 0


def test_forgetting_the_last_exchange_lets_older_ones_be_read_again(tokenizer):
    talk = dialogue(tokenizer, 43, 2)
    talk.prompt_ids(Q, answer_tokens=10)
    talk.pop()
    assert talk.prompt_ids(Q, answer_tokens=10) == prompt_of(tokenizer, 1)
    assert talk.n_dropped == 0


def test_a_model_of_text_reads_each_prompt_alone(tokenizer):
    talk = dialogue(tokenizer, 64, 2, template=None)
    assert talk.prompt_ids(Q, answer_tokens=10) == [tokenizer.bos_id, *tokenizer.encode(Q)]


def test_empty_turns_are_not_kept_for_a_file(tokenizer):
    talk = dialogue(tokenizer, 64, 1)
    talk.exchanges += [Exchange(prompt=Q, answer=" \n"), Exchange(prompt="", answer=A)]
    assert [[message.content for message in row] for row in talk.rows()] == [[S, Q, A]]
    talk.exchanges = talk.exchanges[1:]
    assert talk.rows() == []
