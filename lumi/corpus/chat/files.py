"""Conversations from local files, by a mapping of their fields (``chat=files``, and the presets)."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from lumi.corpus.chat.conversation import Conversation, conversation_fault
from lumi.corpus.document import Rejected
from lumi.corpus.paths import find_files
from lumi.corpus.readers import file_format, known_formats
from lumi.corpus.rows import field, read_json_rows
from lumi.errors import ConfigError, DataError
from lumi.manifest import sha256_file
from lumi.tokenizer import Message

ROLES = {
    "system": "system", "user": "user", "human": "user", "prompter": "user", "instruction": "user",
    "assistant": "assistant", "gpt": "assistant", "bot": "assistant", "model": "assistant",
}  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class ChatFiles:
    """One conversation a row, either one question and answer, or a list of messages.

    Args:
        path: a file, folder or glob, or a list of these: .json, .jsonl, .parquet, also .gz .zst .xz.
        name: folder of the conversations, and name of their loss.
        weight: share in a mixture.
        user: fields of the question, joined by a blank line where several are filled, such as [instruction, input]; a
            dotted path leads into a row (``data.0.text``).
        assistant: field of the answer.
        system: field of a system message; null is none.
        messages: field of a list of messages; used instead of ``user`` and ``assistant`` when it is set.
        role_key, content_key: of a message in that list.
        roles: what a row calls a role → system, user or assistant, beside the usual names.
        keep: field → value: only rows with these values, such as {lang: en}.
        on_error: ``fail`` stops at the first bad row with its file and line; ``skip`` counts it and goes on.
        licence, notes: for the data card.
    """

    path: str | list[str]
    name: str = "chat_files"
    weight: float = 1.0
    user: list[str] = dataclasses.field(default_factory=lambda: ["instruction", "input"])
    assistant: str = "output"
    system: str | None = None
    messages: str | None = None
    role_key: str = "role"
    content_key: str = "content"
    roles: Mapping[str, str] = dataclasses.field(default_factory=dict)
    keep: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    on_error: str = "fail"
    licence: str = "unknown"
    notes: str = ""

    def __post_init__(self) -> None:
        """Raises ConfigError when a setting is out of range."""
        if self.on_error not in ("fail", "skip"):
            raise ConfigError(f"chat.on_error={self.on_error}", "must be fail or skip")
        wrong = [role for role in self.roles.values() if role not in ("system", "user", "assistant")]
        if wrong:
            raise ConfigError(f"chat.roles={dict(self.roles)}", "must lead to system, user or assistant")

    def settings(self) -> dict[str, Any]:
        """Everything that decides the conversations, the bytes of the files included."""
        return {"source": "chat_files", "version": 1, **dataclasses.asdict(self), "files": file_hashes(self.path)}

    def conversations(self) -> Iterator[Conversation | Rejected]:
        """In the order of the files' names.

        Raises:
            DataError: a bad row and ``on_error=fail``.
        """
        for place, row in read_json_rows(self.path):
            if isinstance(row, dict) and any(field(row, key) != value for key, value in self.keep.items()):
                yield Rejected(where=place, reason="filtered", detail=f"{dict(self.keep)}")
                continue
            messages = row if isinstance(row, str) else self._messages(row)
            fault = messages if isinstance(messages, str) else conversation_fault(messages)
            if fault is None and not isinstance(messages, str):
                yield Conversation(messages=messages, id=place)
            elif self.on_error == "fail":
                raise DataError(place, f"{fault}", "chat.on_error=skip leaves such rows out")
            else:
                reason, _, detail = f"{fault}".partition(": ")
                yield Rejected(where=place, reason=reason, detail=detail)

    def _messages(self, row: dict[str, Any]) -> tuple[Message, ...] | str:
        """The turns of a row, or what is wrong with it."""
        if self.messages is not None:
            return message_list(field(row, self.messages), self.role_key, self.content_key, self.roles)
        parts = [field(row, key) for key in self.user]
        answer, system = field(row, self.assistant), field(row, self.system) if self.system else None
        filled = [part for part in parts if part not in (None, "")]
        if not filled or answer is None:
            wanted = ", ".join([*self.user, self.assistant])
            return f"missing field: needs {wanted}; it has {', '.join(map(str, row))}"
        if not all(isinstance(part, str) for part in [*filled, answer, system or ""]):
            return "wrong type: a field is not a string"
        turns: list[Message] = [Message(role="system", content=system)] if system else []
        return (*turns, Message(role="user", content="\n\n".join(filled)), Message(role="assistant", content=answer))


def message_list(rows: Any, role_key: str, content_key: str, roles: Mapping[str, str]) -> tuple[Message, ...] | str:
    """Messages from a list of objects, or what is wrong with it."""
    if not isinstance(rows, list) or not rows:
        return "missing field: there is no list of messages"
    known, messages = {**ROLES, **roles}, []
    for row in rows:
        role, content = (row.get(role_key), row.get(content_key)) if isinstance(row, dict) else (None, None)
        if role not in known or not isinstance(content, str):
            return f"unknown role: {role!r}; chat.roles maps names to system, user or assistant"
        messages.append(Message(role=known[role], content=content))  # pyright: ignore[reportArgumentType]
    return tuple(messages)


def file_hashes(path: str | list[str]) -> dict[str, str]:
    """SHA-256 of every file that a path means."""
    patterns = [path] if isinstance(path, str) else path
    found = find_files(patterns, lambda file: file_format(file) is not None, known_formats())
    return {name: sha256_file(file) for name, file in found.items()}
