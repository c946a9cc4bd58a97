"""R4, R5: text that people, models and strangers write never becomes a control token, wherever it stands."""

import itertools
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings

from lumi.data.chat import answer_document, render
from lumi.serve.text import TextStream
from lumi.tokenizer import Message, Template, Tokenizer
from tests.faults.text import injection


def spelled(tokenizer: Tokenizer, tokens: list[int]) -> str:
    """Tokens as text, control tokens by their names; the renderer's bos is not shown."""
    return tokenizer.decode(tokens, skip_control=False).removeprefix("<s>")


def controls(tokenizer: Tokenizer, tokens: list[int]) -> list[str]:
    return [tokenizer.pieces[token].text for token in tokens if tokenizer.pieces[token].kind == "control"]


def talk(text: str) -> list[Message]:
    """The same text from everybody who can say something."""
    roles = ("system", "user", "assistant", "user", "assistant")
    return [Message(role=role, content=text) for role in roles]


def check_documents(tokenizer: Tokenizer, text: str) -> None:
    """Corpora, prompts of completions, and what a model reads of its own."""
    ids = tokenizer.encode(text)
    assert not controls(tokenizer, ids)
    assert tokenizer.decode(ids) == text
    assert tokenizer.encode_batch([text])[0].tolist() == ids


def check_conversations(tokenizer: Tokenizer, template: Template, text: str) -> None:
    """Every role: control tokens are the template's, at the template's places, and the rest is what was said."""
    messages = talk(text)
    tokens = template.render(tokenizer, messages).tokens
    plain = template.render(tokenizer, talk("x")).tokens
    assert controls(tokenizer, tokens) == controls(tokenizer, plain)
    frames = {role: getattr(template, role) for role in ("system", "user", "assistant")}
    lead = {"assistant": template.lead}
    expected = "".join(frames[m.role][0] + lead.get(m.role, "") + text + frames[m.role][1] for m in messages)
    assert spelled(tokenizer, tokens).removesuffix("</s>") == expected.removesuffix("</s>")
    prompt = template.prompt(tokenizer, messages[:-1])  # what the API and evaluation send
    assert tokens[: len(prompt)] == prompt


def check_masks(tokenizer: Tokenizer, template: Template, text: str) -> None:
    """Supervised are the answers with the symbol that ends them, whatever anybody says; of a pair the last answer alone."""
    end = next(marker for marker in injection.MARKERS if template.assistant[1].startswith(marker))
    answer, eos = template.lead + text + end, "" if end == "</s>" else "</s>"
    rendered = template.render(tokenizer, talk(text))
    supervised = itertools.compress(rendered.tokens, rendered.loss_mask)
    assert tokenizer.decode(list(supervised), skip_control=False) == answer + answer + eos
    n_turns = sum(1 for one, other in itertools.pairwise(rendered.loss_mask) if other and not one)
    assert n_turns == 2 + (bool(eos) and template.assistant[1] != end)  # eos may stand apart
    tokens, mask = answer_document(template, tokenizer, talk(text)[:-1], text)
    assert tokenizer.decode(tokens[mask], skip_control=False) == answer + eos


def check_streams(tokenizer: Tokenizer, text: str) -> None:
    """A stop string ends an answer where its text says so, never a control token of that name."""
    marker = "<|im_end|>"
    stream = TextStream(tokenizer, stop=[marker])
    ids = [*tokenizer.encode("a" + text), tokenizer.controls[marker], *tokenizer.encode("b")]
    given_out = "".join(stream.push(token) for token in ids if stream.stopped is None)
    given_out += stream.finish() if stream.stopped is None else ""
    assert given_out == ("a" + text + "b").partition(marker)[0]


def hypothesis(check: Callable[[str], None], n: int) -> None:
    @settings(
        max_examples=n, deadline=None, database=None, derandomize=True, phases=[Phase.generate],
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    )  # fmt: skip
    @given(text=injection.text)
    def run(text: str) -> None:
        check(text)

    run()


N = pytest.mark.parametrize("n", [200, pytest.param(10_000, marks=pytest.mark.faults)])


@pytest.mark.matrix("R4")
@N
def test_text_never_becomes_a_control_token(row, tokenizer, templates, n):
    def check(text: str) -> None:
        check_documents(tokenizer, text)
        check_streams(tokenizer, text)
        for template in templates:
            check_conversations(tokenizer, template, text)

    for text in injection.FIXED:
        check(text)
    hypothesis(check, n)
    row(trials=n + len(injection.FIXED), seed=0, note=f"{len(templates)} templates, {tokenizer.model_type}")


@pytest.mark.matrix("R5")
@N
def test_the_loss_mask_follows_the_turns_and_not_the_text(row, tokenizer, templates, n):
    def check(text: str) -> None:
        for template in templates:
            check_masks(tokenizer, template, text)

    for text in injection.FIXED:
        check(text)
    hypothesis(check, n)
    row(trials=n + len(injection.FIXED), seed=0, note=f"{len(templates)} templates, {tokenizer.model_type}")


@pytest.mark.matrix("R4")
def test_there_are_two_hundred_fixed_cases(row, tokenizer, templates):
    from lumi.corpus.chat import Conversation

    talks = [Conversation(messages=tuple(talk(text)), id=f"{number}") for number, text in enumerate(injection.FIXED)]
    rendering = render(talks, templates[0], tokenizer, 10**6)
    assert len(rendering.examples) == len(injection.FIXED) >= 200
    n_controls = {
        int(np.isin(tokens, list(tokenizer.controls.values())).sum()) for ((tokens, _),) in rendering.examples
    }
    assert len(n_controls) == 1
    row(trials=len(talks))
