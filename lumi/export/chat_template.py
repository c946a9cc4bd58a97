r"""A `Template` as the Jinja text that transformers and llama.cpp render conversations with.

Those programs make one string of a conversation and tokenise it afterwards, so what Lumi keeps apart (control symbols, text of
the template, what people say) runs together there. Two things would go wrong:

- somebody who types ``<|im_end|>`` would end the turn, because control tokens are looked for in the whole string;
- a piece of the vocabulary could span the border between a template's text and a message: ``Question: `` and ``Where``.

For transformers both are prevented by `Marks.huggingface`: pairs of Unicode's noncharacters, which are set aside for use inside
programs. `GLUE` stands within every name of a control token that a message spells, and the tokenizer's normaliser takes it
out again when control tokens have been found; at `BORDER` the tokenizer cuts. For llama.cpp `Marks.llamacpp` writes the names
of control tokens as no message can, and takes the mark out of messages; it has nothing that cuts.
"""

import dataclasses
import json
import re
from collections.abc import Sequence
from typing import Self

from lumi.tokenizer import Template, Tokenizer

GLUE = "\ufdd0\ufdd1"
BORDER = "\ufdd2\ufdd3"
CONTROL_MARK = "\ufdd0"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Marks:
    """What a rendered conversation holds besides its text.

    Attributes:
        control: before the name of each control token.
        border: before and after each text.
        replaced: what is replaced in messages, by what.
    """

    control: str
    border: str
    replaced: Sequence[tuple[str, str]]

    @classmethod
    def huggingface(cls, tokenizer: Tokenizer) -> Self:
        """Names of control tokens stay as they are and are broken within messages."""
        names = [*tokenizer.controls, tokenizer.piece(tokenizer.unk_id)]
        return cls(control="", border=BORDER, replaced=[(name, f"{name[0]}{GLUE}{name[1:]}") for name in names])

    @classmethod
    def llamacpp(cls) -> Self:
        """Names of control tokens begin with a mark that messages cannot hold."""
        return cls(control=CONTROL_MARK, border="", replaced=[(CONTROL_MARK, "")])


def chat_template(template: Template, tokenizer: Tokenizer, marks: Marks) -> str:
    """Jinja that renders ``messages`` to the text whose tokens `Template.prompt` and `Template.render` give."""
    frames = {
        role: tuple(_frame(text, tokenizer, marks) for text in getattr(template, role))
        for role in ("system", "user", "assistant")
    }
    bos, eos = (marks.control + tokenizer.piece(token) for token in (tokenizer.bos_id, tokenizer.eos_id))
    said = "".join(f" | replace({_literal(old)}, {_literal(new)})" for old, new in marks.replaced)
    border = f"{_literal(marks.border)} ~ " if marks.border else ""
    close = f" ~ {_literal(marks.border)}" if marks.border else ""
    lines = [f"{{{{- {_literal(bos)} }}}}"]
    if template.default_system is not None:
        before, after = frames["system"]
        text = _literal(marks.border + template.default_system + marks.border)
        lines += [
            "{%- if messages[0]['role'] != 'system' %}",
            f"{{{{- {_literal(before)} ~ {text} ~ {_literal(after)} }}}}",
            "{%- endif %}",
        ]
    lines.append("{%- for message in messages %}")
    for number, (role, (before, after)) in enumerate(frames.items()):
        lead = f"{_literal(template.lead)} ~ " if role == "assistant" and template.lead else ""
        lines += [
            f"{{%- {'elif' if number else 'if'} message['role'] == '{role}' %}}",
            f"{{{{- {_literal(before)} ~ {border}(({lead}message['content']){said}){close} ~ {_literal(after)} }}}}",
        ]
    lines += [
        "{%- else %}{{- raise_exception('roles are system, user and assistant, not ' ~ message['role']) }}",
        "{%- endif %}",
        "{%- endfor %}",
        f"{{%- if add_generation_prompt %}}{{{{- {_literal(frames['assistant'][0])} }}}}",
    ]
    if not frames["assistant"][1].endswith(eos):  # `Template.render` ends the last answer with eos
        lines.append(f"{{%- elif messages[-1]['role'] == 'assistant' %}}{{{{- {_literal(eos)} }}}}")
    return "\n".join([*lines, "{%- endif %}"])


def _frame(text: str, tokenizer: Tokenizer, marks: Marks) -> str:
    """A template's text with control symbols as the tokenizer has them and borders around the rest."""
    symbols = re.compile("(" + "|".join(map(re.escape, tokenizer.controls)) + ")")
    parts = [part for part in symbols.split(text) if part]
    return "".join(
        marks.control + part if part in tokenizer.controls else f"{marks.border}{part}{marks.border}" for part in parts
    )


def _literal(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
