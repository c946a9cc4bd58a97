"""Conversations: what chat data are made of, and how they lie on disk."""

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from lumi.corpus.document import Rejected
from lumi.corpus.records import Described, build_records, read_records
from lumi.errors import DataError
from lumi.manifest import Manifest
from lumi.tokenizer import Message
from lumi.tokenizer.template import check_roles


@dataclasses.dataclass(frozen=True, kw_only=True)
class Conversation:
    """Turns of user and assistant, the last one an assistant's.

    Attributes:
        id: unique within its source.
        meta: ``task`` names a checkable task, whose one right answer is the last message; ``split`` is train, val or test.
    """

    messages: tuple[Message, ...]
    id: str
    meta: Mapping[str, str] = dataclasses.field(default_factory=dict)


class ConversationSource(Described, Protocol):
    """Where conversations come from: one class a kind, one YAML file in ``conf/chat/`` a preset."""

    def conversations(self) -> Iterator[Conversation | Rejected]:
        """In a fixed order."""
        ...


def build_chat(source: ConversationSource, folder: Path, *, force: bool = False) -> Manifest:
    """Write the conversations of a source, checked; see `lumi.corpus.records.build_records`."""
    return build_records("chat", source, lambda: map(_row, source.conversations()), folder, force=force)


def read_chat(folder: Path, split: str) -> Iterator[Conversation]:
    """The conversations of one split."""
    for row in read_records(folder, split, "chat"):
        yield Conversation(messages=messages_of(row["messages"]), id=row["id"], meta=row["meta"])


def messages_of(rows: list[dict[str, Any]]) -> tuple[Message, ...]:
    """From plain JSON."""
    return tuple(Message(role=row["role"], content=row["content"]) for row in rows)


def conversation_fault(messages: tuple[Message, ...]) -> str | None:
    """Why these turns are no conversation to learn from, or None."""
    try:
        check_roles(messages)
    except DataError as error:
        return f"role order: {error}"
    if messages[-1].role != "assistant":
        return "no answer: it does not end with an assistant's turn"
    empty = [number for number, message in enumerate(messages, start=1) if not message.content.strip()]
    if empty:
        return f"empty turn: message {empty[0]}"
    if any("\0" in message.content or _is_broken(message.content) for message in messages):
        return "not text: a NUL character or half a surrogate pair"
    return None


def _is_broken(text: str) -> bool:
    return any("\ud800" <= char <= "\udfff" for char in text)


def _row(item: Conversation | Rejected) -> dict[str, Any] | Rejected:
    if isinstance(item, Rejected):
        return item
    if fault := conversation_fault(item.messages):
        reason, _, detail = fault.partition(": ")
        return Rejected(where=item.id, reason=reason, detail=detail)
    messages = [{"role": message.role, "content": message.content} for message in item.messages]
    return {"messages": messages, "id": item.id, "meta": dict(item.meta)}
