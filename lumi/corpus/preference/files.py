"""Preference pairs from local files, by a mapping of their fields (``preference=files``, and the presets)."""

import dataclasses
from collections.abc import Iterator
from typing import Any

from lumi.corpus.chat.files import file_hashes, message_list
from lumi.corpus.document import Rejected
from lumi.corpus.preference.pair import Pair, pair_fault
from lumi.corpus.rows import field, read_json_rows
from lumi.errors import ConfigError, DataError
from lumi.tokenizer import Message

_HUMAN, _ASSISTANT = "\n\nHuman:", "\n\nAssistant:"


@dataclasses.dataclass(frozen=True, kw_only=True)
class PairFiles:
    r"""One pair a row.

    Args:
        path: a file, folder or glob, or a list of these: .json, .jsonl, .parquet, also .gz .zst .xz.
        name: folder of the pairs, and name of their loss.
        weight: share in a mixture.
        prompt: fields of the prompt, joined by a blank line where several are filled; or one that holds a list of messages.
        chosen: field of the better answer: text, a message, or a list of messages whose last one it is.
        rejected: the same of the worse answer.
        system: field of a system message; null is none.
        transcripts: ``chosen`` and ``rejected`` are whole conversations as text, as in HH-RLHF ("\n\nHuman: …");
            what they share is the prompt.
        role_key, content_key: of messages in lists.
        on_error: ``fail`` stops at the first bad row with its file and line; ``skip`` counts it and goes on.
        licence, notes: for the data card.
    """

    path: str | list[str]
    name: str = "pair_files"
    weight: float = 1.0
    prompt: list[str] = dataclasses.field(default_factory=lambda: ["prompt"])
    chosen: str = "chosen"
    rejected: str = "rejected"
    system: str | None = None
    transcripts: bool = False
    role_key: str = "role"
    content_key: str = "content"
    on_error: str = "fail"
    licence: str = "unknown"
    notes: str = ""

    def __post_init__(self) -> None:
        """Raises ConfigError when a setting is out of range."""
        if self.on_error not in ("fail", "skip"):
            raise ConfigError(f"preference.on_error={self.on_error}", "must be fail or skip")

    def settings(self) -> dict[str, Any]:
        """Everything that decides the pairs, the bytes of the files included."""
        return {"source": "pair_files", "version": 1, **dataclasses.asdict(self), "files": file_hashes(self.path)}

    def pairs(self) -> Iterator[Pair | Rejected]:
        """In the order of the files' names.

        Raises:
            DataError: a bad row and ``on_error=fail``.
        """
        for place, row in read_json_rows(self.path):
            pair = row if isinstance(row, str) else self._pair(row, place)
            fault = pair if isinstance(pair, str) else pair_fault(pair)
            if fault is None and not isinstance(pair, str):
                yield pair
            elif self.on_error == "fail":
                raise DataError(place, f"{fault}", "preference.on_error=skip leaves such rows out")
            else:
                reason, _, detail = f"{fault}".partition(": ")
                yield Rejected(where=place, reason=reason, detail=detail)

    def _pair(self, row: dict[str, Any], place: str) -> Pair | str:
        chosen, rejected = field(row, self.chosen), field(row, self.rejected)
        if chosen is None or rejected is None:
            return f"missing field: needs {self.chosen} and {self.rejected}; it has {', '.join(map(str, row))}"
        if self.transcripts:
            return _from_transcripts(chosen, rejected, place)
        prompt = self._prompt(row)
        answers = [self._answer(chosen), self._answer(rejected)]
        if isinstance(prompt, str) or None in answers:
            return prompt if isinstance(prompt, str) else "wrong type: an answer is not text"
        return Pair(prompt=prompt, chosen=answers[0] or "", rejected=answers[1] or "", id=place)

    def _prompt(self, row: dict[str, Any]) -> tuple[Message, ...] | str:
        parts = [part for part in (field(row, key) for key in self.prompt) if part not in (None, "")]
        system = field(row, self.system) if self.system else None
        before = (Message(role="system", content=system),) if isinstance(system, str) and system else ()
        if len(parts) == 1 and isinstance(parts[0], list):
            found = message_list(parts[0], self.role_key, self.content_key, {})
            return found if isinstance(found, str) else (*before, *found)
        if not parts or not all(isinstance(part, str) for part in parts):
            return f"missing field: needs {', '.join(self.prompt)}; it has {', '.join(map(str, row))}"
        return (*before, Message(role="user", content="\n\n".join(parts)))

    def _answer(self, value: Any) -> str | None:
        if isinstance(value, list) and value:
            value = value[-1]
        if isinstance(value, dict):
            value = value.get(self.content_key)
        return value if isinstance(value, str) else None


def _from_transcripts(chosen: Any, rejected: Any, place: str) -> Pair | str:
    """A pair from two transcripts: the turns that they share are the prompt, the first that differs are the answers."""
    if not isinstance(chosen, str) or not isinstance(rejected, str):
        return "wrong type: a transcript is not text"
    one, other = _turns(chosen), _turns(rejected)
    shared = 0
    while shared < min(len(one), len(other)) and one[shared] == other[shared]:
        shared += 1
    if shared in (len(one), len(other)):
        return "same answers: one transcript is the beginning of the other"
    if shared == 0 or one[shared].role != "assistant" or other[shared].role != "assistant":
        return "no common prompt: the transcripts differ before an answer"
    return Pair(prompt=tuple(one[:shared]), chosen=one[shared].content, rejected=other[shared].content, id=place)


def _turns(transcript: str) -> list[Message]:
    messages = []
    for part in transcript.split(_HUMAN)[1:]:
        asked, *answers = part.split(_ASSISTANT)
        messages.append(Message(role="user", content=asked.strip()))
        messages += [Message(role="assistant", content=answer.strip()) for answer in answers]
    return messages
