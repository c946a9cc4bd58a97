"""R6: conversations of every odd shape are rendered whole, cut between turns, or refused with a reason."""

import dataclasses
from typing import Any

import pytest

from lumi.corpus import Rejected
from lumi.corpus.chat import ChatFiles, Conversation
from lumi.corpus.chat.conversation import conversation_fault
from lumi.data.chat import render
from lumi.errors import DataError
from lumi.tokenizer import Message, Template, Tokenizer

U, A, S = "user", "assistant", "system"
Turns = list[tuple[Any, Any]]

GOOD: dict[str, Turns] = {
    "one exchange": [(U, "a"), (A, "b")],
    "with a system": [(S, "s"), (U, "a"), (A, "b")],
    "an empty system": [(S, ""), (U, "a"), (A, "b")],
    "an empty question": [(U, ""), (A, "b")],
    "an empty answer": [(U, "a"), (A, "")],
    "only white space": [(U, " \n\t"), (A, "\n\n")],
    "the same turn three times": [(U, "a"), (A, "b")] * 3,
    "10,000 turns": [(U, "a"), (A, "b")] * 5000,
    "a question of 100,000 characters": [(U, "word " * 20_000), (A, "b")],
    "an answer without a space": [(U, "a"), (A, "b" * 30_000)],
    "a marker in each": [(S, "<|im_end|>"), (U, "</s>"), (A, "[/INST]")],
    "a NUL": [(U, "a\0b"), (A, "c")],
    "a byte order mark": [(U, "\ufeffa"), (A, "b")],
    "right to left": [(U, "שלום\u202e"), (A, "b")],
    "carriage returns": [(U, "a\r\nb\r"), (A, "c")],
    "the sign for a space": [(U, "▁▁"), (A, "▁")],
    "combining marks": [(U, "e\u0301" * 50), (A, "é")],
    "emoji of seven code points": [(U, "👩‍👩‍👧🏽"), (A, "b")],
    "control characters": [(U, "\x01\x1b[2J"), (A, "\x7f")],
}
BAD: dict[str, Turns] = {
    "no turn": [],
    "a system alone": [(S, "s")],
    "an answer first": [(A, "b"), (U, "a")],
    "two questions": [(U, "a"), (U, "a"), (A, "b")],
    "two answers": [(U, "a"), (A, "b"), (A, "b")],
    "two systems": [(S, "s"), (S, "s"), (U, "a"), (A, "b")],
    "a system in the middle": [(U, "a"), (S, "s"), (A, "b")],
    "a system at the end": [(U, "a"), (A, "b"), (S, "s")],
    "a question last": [(U, "a"), (A, "b"), (U, "c")],
    "half a surrogate pair": [(U, "a\ud800"), (A, "b")],
}
ODD_ROLES: list[Any] = [
    "tool", "function", "root", "user\n", "assistant\nsystem", "user\0", "<|im_start|>system", "", " user", None, 7, True,
    ["user"], {"role": "user"}, "\ud800", "ｕser",
]  # fmt: skip
ODD_CONTENT: list[Any] = [None, 7, ["a"], {"text": "a"}, True]


def messages(turns: Turns) -> list[Message]:
    return [Message(role=role, content=content) for role, content in turns]


def controls(tokenizer: Tokenizer, tokens: list[int]) -> list[int]:
    return [token for token in tokens if tokenizer.pieces[token].kind == "control"]


def whole(template: Template, tokenizer: Tokenizer, turns: Turns) -> None:
    """Everything that was said is in it, between the template's own tokens."""
    rendered = template.render(tokenizer, messages(turns))
    assert len(rendered.tokens) == len(rendered.loss_mask)
    spelled = tokenizer.decode(rendered.tokens, skip_control=False)
    assert all(content in spelled for _, content in turns)
    plain = template.render(tokenizer, messages([(role, "x") for role, _ in turns]))
    assert controls(tokenizer, rendered.tokens) == controls(tokenizer, plain.tokens)


@pytest.mark.matrix("R6")
@pytest.mark.parametrize("name", GOOD)
def test_a_conversation_in_order_is_rendered_whole(row, tokenizer, templates, name):
    for template in templates:
        whole(template, tokenizer, GOOD[name])
    row(trials=1, note=name)


@pytest.mark.matrix("R6")
@pytest.mark.parametrize("name", BAD)
def test_a_conversation_out_of_order_is_refused(row, tokenizer, templates, name):
    for template in templates:
        with pytest.raises(DataError):
            template.render(tokenizer, messages(BAD[name]))
    if BAD[name]:
        assert conversation_fault(tuple(messages(BAD[name])))
    row(trials=1, note=name)


@pytest.mark.matrix("R6")
@pytest.mark.parametrize(
    "turn", [*((role, "a") for role in ODD_ROLES), *((U, content) for content in ODD_CONTENT)], ids=repr
)
def test_a_row_with_an_unknown_role_or_no_text_is_rejected_by_its_place(row, tmp_path, turn):
    import json

    talk = [{"role": turn[0], "content": turn[1]}, {"role": A, "content": "b"}]
    (tmp_path / "a.jsonl").write_text(
        json.dumps({"m": [{"role": U, "content": "x"}, {"role": A, "content": "y"}]}) + "\n" + json.dumps({"m": talk})
    )
    found = list(ChatFiles(path=f"{tmp_path / 'a.jsonl'}", messages="m", on_error="skip").conversations())
    assert isinstance(found[0], Conversation)
    assert isinstance(found[1], Rejected)
    assert (found[1].where, found[1].reason) == ("a.jsonl:2", "unknown role")
    row(trials=1, note=repr(turn))


@pytest.mark.matrix("R6")
@pytest.mark.parametrize("seq_len", [8, 30, 100, 1000])
def test_what_is_longer_than_a_window_is_cut_between_exchanges_or_left_out(row, tokenizer, templates, seq_len):
    talk = Conversation(messages=tuple(messages([(U, "How much?"), (A, "So much.")] * 50)), id="a")
    for template in templates:
        rendering = render([talk], template, tokenizer, seq_len, cut=True)
        assert rendering.cut + rendering.too_long + len(rendering.examples) >= 1
        for ((tokens, _),) in rendering.examples:
            assert len(tokens) <= seq_len
            n = next(
                n for n in range(1, 51) if len(template.render(tokenizer, talk.messages[: 2 * n]).tokens) == len(tokens)
            )
            assert tokens.tolist() == template.render(tokenizer, talk.messages[: 2 * n]).tokens
        dropped = render([talk], template, tokenizer, seq_len)
        assert dropped.too_long + len(dropped.examples) == 1
    row(trials=1, note=f"window of {seq_len}")


@pytest.mark.matrix("R6")
def test_a_message_cannot_be_changed_into_another_role_after_it_was_checked(row):
    with pytest.raises(dataclasses.FrozenInstanceError):
        messages(GOOD["one exchange"])[0].role = "system"  # pyright: ignore[reportAttributeAccessIssue]
    row(trials=1)
