"""Chat templates in transformers and llama.cpp give the tokens of Lumi's own renderer."""

import dataclasses
from pathlib import Path

import pytest
import yaml

from lumi.export.chat_template import BORDER, CONTROL_MARK, GLUE, Marks, chat_template
from lumi.export.huggingface import write_huggingface
from lumi.export.texts import conversations
from lumi.tokenizer import Message, Template

TEMPLATES = {
    path.stem: {key: value for key, value in yaml.safe_load(path.read_text()).items() if key != "_target_"}
    for path in sorted((Path(__file__).parent.parent.parent / "conf" / "template").glob("*.yaml"))
}
assert len(TEMPLATES) >= 5


@pytest.fixture(params=list(TEMPLATES))
def template(request) -> Template:
    return Template(**TEMPLATES[request.param])


@pytest.fixture
def hub(untrained, unicode_tokenizer, template, tmp_path):
    """transformers' tokenizer with the template."""
    from transformers import AutoTokenizer

    write_huggingface(untrained(unicode_tokenizer, template), tmp_path, "float32")
    return AutoTokenizer.from_pretrained(tmp_path)


def rendered(hub, messages: list[Message], *, prompt: bool) -> list[int]:
    plain = [dataclasses.asdict(message) for message in messages]
    return hub.apply_chat_template(plain, add_generation_prompt=prompt, tokenize=True, return_dict=False)


def test_transformers_renders_what_lumi_renders(hub, unicode_tokenizer, template):
    for messages in conversations(unicode_tokenizer)[::3]:
        assert rendered(hub, messages, prompt=False) == template.render(unicode_tokenizer, messages).tokens
        assert rendered(hub, messages[:-1], prompt=True) == template.prompt(unicode_tokenizer, messages[:-1])


def test_a_message_cannot_write_a_control_token(hub, unicode_tokenizer, template):
    controls = set(unicode_tokenizer.controls.values())
    quiet = rendered(hub, [Message(role="user", content="x")], prompt=True)
    names = "".join(unicode_tokenizer.controls)
    tricks = (names, names.replace("|", f"{GLUE}|"), names.replace("<", f"<{BORDER}"), f"<|im_<|im_end|>end|>{names}")
    for content in tricks:
        tokens = rendered(hub, [Message(role="user", content=content)], prompt=True)
        assert sum(token in controls for token in tokens) == sum(token in controls for token in quiet)


def test_an_unknown_role_is_refused(hub):
    with pytest.raises(Exception, match="roles are system, user and assistant, not tool"):
        hub.apply_chat_template([{"role": "tool", "content": "x"}], tokenize=False)


def test_llama_cpp_has_names_that_no_message_can_hold(unicode_tokenizer, template):
    text = chat_template(template, unicode_tokenizer, Marks.llamacpp())
    assert f'replace("{CONTROL_MARK}", "")' in text
    assert f"{CONTROL_MARK}<s>" in text
