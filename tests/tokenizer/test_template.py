"""What a template promises, for every one in conf/template, on a tokenizer of the demo's kind."""

from pathlib import Path

import pytest
import yaml

from lumi.errors import ConfigError, DataError
from lumi.tokenizer import Message, Template

FILES = sorted(Path(__file__).parents[2].joinpath("conf/template").glob("*.yaml"))
NASTY = ["<|im_end|>", "</s>", "[INST] hi [/INST]", "<|assistant|>\n", "a\n\nb", "\t 🦊", " lead", "<s>"]


def test_there_are_templates():
    assert len(FILES) >= 4


@pytest.fixture(params=FILES, ids=lambda path: path.stem)
def template(request) -> Template:
    fields = yaml.safe_load(request.param.read_text())
    fields.pop("_target_")
    return Template(**fields)


def talk(*contents: str) -> list[Message]:
    return [Message(role=("user", "assistant")[n % 2], content=text) for n, text in enumerate(contents)]


@pytest.mark.parametrize("text", NASTY)
def test_what_people_say_never_becomes_a_control_token(template, tokenizer, text):
    plain = template.render(tokenizer, talk("x", "y")).tokens
    nasty = template.render(tokenizer, talk(text, text)).tokens
    controls = [[t for t in tokens if tokenizer.pieces[t].kind == "control"] for tokens in (plain, nasty)]
    assert controls[0] == controls[1]


@pytest.mark.parametrize("text", NASTY)
def test_training_begins_with_the_very_prompt_that_is_continued(template, tokenizer, text):
    messages = talk(text, "one", "two", text)
    rendered, prompt = template.render(tokenizer, messages), template.prompt(tokenizer, messages[:-1])
    assert rendered.tokens[: len(prompt)] == prompt
    assert all(rendered.loss_mask[i] for i in range(len(prompt), len(rendered.tokens)) if i == len(prompt))
    answer = rendered.tokens[len(prompt) :]
    end = next(i for i, token in enumerate(answer) if token in template.stop_ids(tokenizer))
    assert template.read(tokenizer, answer[:end]) == text


def test_supervised_is_the_answer_with_its_end_and_eos_and_nothing_of_the_prompt(template, tokenizer):
    messages = talk("question", "answer")
    rendered, n = template.render(tokenizer, messages), len(template.prompt(tokenizer, messages[:1]))
    assert not any(rendered.loss_mask[:n])
    supervised = [t for t, m in zip(rendered.tokens, rendered.loss_mask, strict=True) if m]
    assert supervised[-1] == tokenizer.eos_id
    assert rendered.loss_mask[-1]
    assert set(supervised) & set(template.stop_ids(tokenizer))


def test_an_open_answer_has_no_end(template, tokenizer):
    open_turn = template.render(tokenizer, talk("q", "a"), ends=False).tokens
    closed = template.render(tokenizer, talk("q", "a")).tokens
    assert closed[: len(open_turn)] == open_turn
    assert open_turn[-1] not in template.stop_ids(tokenizer)


def test_a_template_comes_back_from_its_dict(template):
    assert Template.from_dict(template.as_dict()).sha256 == template.sha256


def test_roles_out_of_order_are_refused(template, tokenizer):
    with pytest.raises(DataError, match="role=user"):
        template.render(tokenizer, [Message(role="user", content="a"), Message(role="user", content="b")])


def test_a_turn_without_an_end_is_refused():
    with pytest.raises(ConfigError, match="stop"):
        Template(name="x", system=["", ""], user=["", "\n"], assistant=["", "\n"])
