"""Conversations from files or the hub, by a mapping of their fields (``chat=files``, and the presets)."""

import dataclasses
import json
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lumi.corpus.chat.conversation import Conversation, conversation_fault
from lumi.corpus.document import Rejected
from lumi.corpus.hub import hub_settings, open_rows
from lumi.corpus.paths import find_files
from lumi.corpus.readers import file_format, known_formats
from lumi.corpus.row_rules import hash_files
from lumi.corpus.rows import field
from lumi.errors import ConfigError, DataError
from lumi.tokenizer import Message

_UNDECISIVE = ("name", "weight", "path", "dataset", "subset", "split", "revision", "on_error", "max_rejected_ratio")

ROLES = {
    "system": "system", "user": "user", "human": "user", "prompter": "user", "instruction": "user",
    "assistant": "assistant", "gpt": "assistant", "bot": "assistant", "model": "assistant",
}  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExampleRows:
    """Where the rows of examples come from; the base of the sources that read files or the hub.

    Args:
        path: a file, folder or glob, or a list of these: .json, .jsonl, .parquet, also .gz .zst .xz. Wins over ``dataset``.
        dataset, subset, split, revision: on the hub; needs ``pip install 'lumi[hub]'``.
        name: folder of the examples, and name of their loss.
        weight: share in a mixture.
        limit: a seeded sample of so many rows or characters, in their order; null takes all.
        limit_by: rows, or characters (of the rows as JSON). Tokens are limited by the budget of training.
        seed: of the sample.
        on_error: ``fail`` stops at the first bad row with its file and line; ``skip`` counts it and goes on.
        max_rejected_ratio: with ``skip``: stop when a larger share of the rows is bad.
        licence, notes: for the data card.
    """

    path: str | list[str] | None = None
    dataset: str | None = None
    subset: str | None = None
    split: str = "train"
    revision: str | None = None
    name: str
    weight: float = 1.0
    limit: int | None = None
    limit_by: str = "rows"
    seed: int = 0
    on_error: str = "fail"
    max_rejected_ratio: float = 0.05
    licence: str = "unknown"
    notes: str = ""

    @property
    def where(self) -> str:
        """Its place among the settings, for messages."""
        return f"data.sources.{self.name}"

    def check(self) -> None:
        """Raises ConfigError when a setting is out of range."""
        if self.on_error not in ("fail", "skip"):
            raise ConfigError(f"{self.where}.on_error={self.on_error}", "must be fail or skip")
        if not 0.0 <= self.max_rejected_ratio <= 1.0:
            raise ConfigError(f"{self.where}.max_rejected_ratio={self.max_rejected_ratio}", "must be in [0, 1]")
        if self.limit_by not in ("rows", "characters"):
            raise ConfigError(f"{self.where}.limit_by={self.limit_by}", "must be rows or characters")
        if self.limit is not None and self.limit < 1:
            raise ConfigError(f"{self.where}.limit={self.limit}", "must be at least 1", "null takes all")
        if self.path is None and self.dataset is None:
            raise ConfigError(
                f"{self.where}.path=null", "needs a file, or a dataset of the hub", f"{self.where}.path=FILE"
            )

    def row_settings(self) -> dict[str, Any]:
        """Everything that decides the rows: not the weight, and of files their bytes, not where they lie."""
        own = {key: value for key, value in dataclasses.asdict(self).items() if key not in _UNDECISIVE}
        if self.path is not None:
            return {**own, "files": file_hashes(self.path)}
        assert self.dataset is not None, "checked when made"
        return {**own, **hub_settings(self.dataset, self.subset, self.split, self.revision)}

    def rows(self) -> Iterator[tuple[str, dict[str, Any] | str]]:
        """(place, row) of every row, or of the sample; a row that cannot be read is a string that says why."""
        if self.limit is None:
            yield from self.all_rows()
            return
        # Two passes, so that a sample of a large file needs no memory for its rows.
        chosen = self.sample([len(json.dumps(row)) for _, row in self.all_rows()], self.limit)
        yield from (found for index, found in enumerate(self.all_rows()) if index in chosen)

    def sample(self, n_characters: Sequence[int], limit: int) -> set[int]:
        """Which of so many examples are in the sample, given how long each is."""
        sizes = n_characters if self.limit_by == "characters" else [1] * len(n_characters)
        chosen, left = set[int](), limit
        for index in random.Random(self.seed).sample(range(len(sizes)), len(sizes)):
            if sizes[index] > left:
                break
            chosen.add(index)
            left -= sizes[index]
        return chosen

    def reject(self, place: str, fault: str) -> Rejected:
        """What becomes of a bad row.

        Raises:
            DataError: ``on_error=fail``.
        """
        if self.on_error == "fail":
            raise DataError(place, fault, f"{self.where}.on_error=skip leaves such rows out")
        reason, _, detail = fault.partition(": ")
        return Rejected(where=place, reason=reason, detail=detail)

    def all_rows(self) -> Iterator[tuple[str, dict[str, Any] | str]]:
        """(place, row) of every row, without a limit."""
        return open_rows(self.path, self.dataset, self.subset, self.split, self.revision, key=self.where)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ChatFiles(ExampleRows):
    """One conversation a row, either one question and answer, or a list of messages; further keys as in `ExampleRows`.

    Args:
        user: fields of the question, joined by a blank line where several are filled, such as [instruction, input]; a
            dotted path leads into a row (``data.0.text``).
        assistant: field of the answer.
        system: field of a system message; null is none.
        messages: field of a list of messages; used instead of ``user`` and ``assistant`` when it is set.
        role_key, content_key: of a message in that list.
        roles: what a row calls a role → system, user or assistant, beside the usual names.
        keep: field → value: only rows with these values, such as {lang: en}.
        min_score: only rows whose ``score`` field is at least this; null takes all.
        score: field of a number.
    """

    name: str = "chat_files"
    user: list[str] = dataclasses.field(default_factory=lambda: ["instruction", "input"])
    assistant: str = "output"
    system: str | None = None
    messages: str | None = None
    role_key: str = "role"
    content_key: str = "content"
    roles: Mapping[str, str] = dataclasses.field(default_factory=dict)
    keep: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    score: str | None = None
    min_score: float | None = None

    def __post_init__(self) -> None:
        """Raises ConfigError when a setting is out of range."""
        self.check()
        wrong = [role for role in self.roles.values() if role not in ("system", "user", "assistant")]
        if wrong:
            raise ConfigError(f"{self.where}.roles={dict(self.roles)}", "must lead to system, user or assistant")
        if (self.score is None) != (self.min_score is None):
            found = f"{self.where}.score={self.score}, {self.where}.min_score={self.min_score}"
            raise ConfigError(found, "go together")

    def settings(self) -> dict[str, Any]:
        """Everything that decides the conversations, the bytes of the files included."""
        return {"source": "chat_files", "version": 3, **self.row_settings()}

    def conversations(self) -> Iterator[Conversation | Rejected]:
        """In the order of the files' names.

        Raises:
            DataError: a bad row and ``on_error=fail``.
        """
        for place, row in self.rows():
            if isinstance(row, dict) and (why := self._filtered(row)):
                yield Rejected(where=place, reason="filtered", detail=why)
                continue
            messages = row if isinstance(row, str) else self._messages(row)
            fault = messages if isinstance(messages, str) else conversation_fault(messages)
            if fault is None and not isinstance(messages, str):
                yield Conversation(messages=messages, id=place)
            else:
                yield self.reject(place, f"{fault}")

    def _filtered(self, row: dict[str, Any]) -> str | None:
        """Why a row is not wanted, though nothing is wrong with it."""
        if any(field(row, key) != value for key, value in self.keep.items()):
            return f"not {dict(self.keep)}"
        if self.score is None or self.min_score is None:
            return None
        value = field(row, self.score)
        good = isinstance(value, int | float) and value >= self.min_score
        return None if good else f"{self.score}={value}"

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
        if not isinstance(role, str) or role not in known or not isinstance(content, str):
            return f"unknown role: {role!r}; roles maps names to system, user or assistant"
        messages.append(Message(role=known[role], content=content))  # pyright: ignore[reportArgumentType]
    return tuple(messages)


def file_hashes(path: str | list[str]) -> dict[str, str]:
    """SHA-256 of every file that a path means."""
    patterns = [path] if isinstance(path, str) else path
    found = find_files(patterns, lambda file: file_format(file) is not None, known_formats())
    return hash_files(found)
