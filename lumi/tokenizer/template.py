"""Conversations as tokens: the one object that preparation, training, evaluation and serving use.

What a role's turn begins and ends with is data (``template=chatml``, …). Control symbols stand only there: what people and
models say is encoded as plain text, and text never becomes a control token. The loss mask comes from the renderer's own
spans, never from searching the tokens.
"""

import dataclasses
import functools
import re
from collections.abc import Sequence
from typing import Any, Literal

from lumi.errors import ConfigError, DataError
from lumi.manifest import fingerprint
from lumi.tokenizer.config import CHAT_MARKERS, EOS, RESERVED
from lumi.tokenizer.frozen import Tokenizer

Role = Literal["system", "user", "assistant"]

_SYMBOLS = (*CHAT_MARKERS, *RESERVED, EOS)
_SYMBOL = re.compile("(" + "|".join(map(re.escape, _SYMBOLS)) + ")")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One turn of a conversation."""

    role: Role
    content: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Rendered:
    """A conversation as tokens.

    Attributes:
        tokens: bos first.
        loss_mask: as long; True where the token itself is supervised.
    """

    tokens: list[int]
    loss_mask: list[bool]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Template:
    """How a conversation is written.

    Attributes:
        name: as in ``template=…``.
        system: what stands before and after a system message. Control symbols of the tokenizer may be written here.
        user: the same for a user's turn.
        assistant: the same for an assistant's turn; the symbol that closes it is supervised, as its end.
        default_system: a system message for conversations that bring none; null adds none.
        lead: put before what an assistant says, such as a space, and taken off what a model writes.
    """

    name: str
    system: Sequence[str]
    user: Sequence[str]
    assistant: Sequence[str]
    default_system: str | None = None
    lead: str = ""

    def __post_init__(self) -> None:
        """Raises ConfigError when a turn has no end that a model could learn."""
        for role in ("system", "user", "assistant"):
            if len(getattr(self, role)) != 2:
                raise ConfigError(f"template.{role}", "must be two strings: what stands before and after the message")
        if not self._closing:
            raise ConfigError(
                f"template.assistant={list(self.assistant)}",
                "must end a turn with a control symbol, else a model cannot learn to stop",
                f"begin its second string with one of {', '.join(_SYMBOLS[:9])}, {EOS}",
            )

    @property
    def sha256(self) -> str:
        """Identity: equal templates write equal tokens."""
        return fingerprint(self.as_dict())

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON, for a checkpoint."""
        return {
            field.name: list(value) if isinstance(value := getattr(self, field.name), list | tuple) else value
            for field in dataclasses.fields(self)
        }

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> "Template":
        """What `as_dict` wrote.

        Raises:
            DataError: somebody else wrote something else.
        """
        try:
            template = cls(**fields)
            strings = [*template.system, *template.user, *template.assistant, template.name, template.lead]
            if all(isinstance(part, str) for part in [*strings, template.default_system or ""]):
                return template
            raise TypeError("its parts are no strings")
        except (TypeError, ConfigError) as error:
            raise DataError(
                "the model's template", f"is none of Lumi's ({error})", "export or train it again"
            ) from None

    def render(self, tokenizer: Tokenizer, messages: Sequence[Message], *, ends: bool = True) -> Rendered:
        """The whole conversation; supervised is what assistants say with the symbol that closes it, and the last eos.

        Args:
            ends: False leaves the last turn open: an answer that does not stop.

        Raises:
            DataError: the roles are out of order, or the last turn is not an assistant's.
            ConfigError: the tokenizer lacks a symbol of the template.
        """
        check_roles(messages)
        if messages[-1].role != "assistant":
            raise DataError(
                f"a conversation that ends with role={messages[-1].role}", "must end with an assistant's turn"
            )
        tokens, mask = [tokenizer.bos_id], [False]
        turns = self._with_system(messages)
        for number, message in enumerate(turns):
            opening, closing = self._frame(tokenizer, message.role)
            tokens += opening
            mask += [False] * len(opening)
            spoken = message.role == "assistant"
            content = tokenizer.encode(self.lead + message.content if spoken else message.content)
            tokens += content
            mask += [spoken] * len(content)
            if number == len(turns) - 1 and not ends:
                break
            tokens += closing
            mask += [spoken and index == 0 for index in range(len(closing))]
        if ends and tokens[-1] != tokenizer.eos_id:
            tokens.append(tokenizer.eos_id)
            mask.append(True)
        return Rendered(tokens=tokens, loss_mask=mask)

    def prompt(self, tokenizer: Tokenizer, messages: Sequence[Message]) -> list[int]:
        """What a model continues: the conversation so far and the opening of an assistant's turn.

        Raises:
            DataError: the roles are out of order, or it is not an assistant's turn.
        """
        check_roles(messages)
        if messages[-1].role != "user":
            raise DataError(f"a prompt that ends with role={messages[-1].role}", "must end with a user's turn")
        tokens = [tokenizer.bos_id]
        for message in self._with_system(messages):
            opening, closing = self._frame(tokenizer, message.role)
            content = self.lead + message.content if message.role == "assistant" else message.content
            tokens += [*opening, *tokenizer.encode(content), *closing]
        return tokens + self._frame(tokenizer, "assistant")[0]

    def opening(self, tokenizer: Tokenizer) -> list[int]:
        """What stands before an answer; may be empty."""
        return self._frame(tokenizer, "assistant")[0]

    def read(self, tokenizer: Tokenizer, ids: Sequence[int]) -> str:
        """What a model said, from the tokens that it wrote."""
        return tokenizer.decode(list(ids)).removeprefix(self.lead)

    def stop_ids(self, tokenizer: Tokenizer) -> list[int]:
        """Tokens that end an answer."""
        return sorted({tokenizer.eos_id, self._symbol(tokenizer, self._closing)})

    @property
    def _closing(self) -> str:
        found = _SYMBOL.match(self.assistant[1])
        return found[0] if found else ""

    def _with_system(self, messages: Sequence[Message]) -> list[Message]:
        if self.default_system is None or messages[0].role == "system":
            return list(messages)
        return [Message(role="system", content=self.default_system), *messages]

    def _frame(self, tokenizer: Tokenizer, role: Role) -> tuple[list[int], list[int]]:
        before, after = getattr(self, role)
        return self._encode_frame(tokenizer, before), self._encode_frame(tokenizer, after)

    def _encode_frame(self, tokenizer: Tokenizer, text: str) -> list[int]:
        tokens: list[int] = []
        for part in filter(None, _SYMBOL.split(text)):
            tokens += [self._symbol(tokenizer, part)] if part in _SYMBOLS else tokenizer.encode(part)
        return tokens

    def _symbol(self, tokenizer: Tokenizer, symbol: str) -> int:
        if symbol == EOS:
            return tokenizer.eos_id
        found = _control_ids(tokenizer).get(symbol)
        if found is None:
            raise ConfigError(
                f"template={self.name}",
                f"needs the control symbol {symbol}, which the tokenizer lacks",
                "choose another template, or train a tokenizer with it",
            )
        return found


@functools.lru_cache(maxsize=8)
def _control_ids(tokenizer: Tokenizer) -> dict[str, int]:
    return {piece.text: token for token, piece in enumerate(tokenizer.pieces) if piece.kind == "control"}


def check_roles(messages: Sequence[Message]) -> None:
    """An optional system message, then user and assistant in turn.

    Raises:
        DataError: naming the first message that breaks the rule.
    """
    turns = list(messages[1:]) if messages and messages[0].role == "system" else list(messages)
    if not turns:
        raise DataError("a conversation without a turn", "must have at least a user's")
    for number, message in enumerate(turns):
        expected = "assistant" if number % 2 else "user"
        if message.role != expected:
            where = f"message {number + 1 + len(messages) - len(turns)} has role={message.role}"
            raise DataError(
                where, f"must be {expected}: after an optional system message, user and assistant take turns"
            )
