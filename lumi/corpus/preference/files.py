"""Preference pairs from files or the hub, by a mapping of their fields (``preference=files``, and the presets)."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from lumi.corpus.chat.files import ExampleRows, message_list
from lumi.corpus.document import Rejected
from lumi.corpus.preference.pair import Pair, pair_fault
from lumi.corpus.rows import field
from lumi.errors import ConfigError
from lumi.tokenizer import Message

_HUMAN, _ASSISTANT = "\n\nHuman:", "\n\nAssistant:"


@dataclasses.dataclass(frozen=True, kw_only=True)
class PairFiles(ExampleRows):
    r"""One pair a row; further keys as in `ExampleRows`.

    Args:
        prompt: fields of the prompt, joined by a blank line where several are filled; or one that holds a list of messages.
        chosen: field of the better answer: text, a message, or a list of messages whose last one it is.
        rejected: the same of the worse answer.
        system: field of a system message; null is none.
        transcripts: ``chosen`` and ``rejected`` are whole conversations as text, as in HH-RLHF ("\n\nHuman: …");
            what they share is the prompt.
        role_key, content_key: of messages in lists. roles: their further names, as in `ChatFiles`.
        min_chars, max_chars: of both answers; null is no limit.
        max_length_ratio: of the longer answer to the shorter one; null is no limit.
        margin: fields of two scores, of the better and the worse answer; null judges by none.
        min_margin: smallest difference of these scores.
    """

    name: str = "pair_files"
    prompt: list[str] = dataclasses.field(default_factory=lambda: ["prompt"])
    chosen: str = "chosen"
    rejected: str = "rejected"
    system: str | None = None
    transcripts: bool = False
    role_key: str = "role"
    content_key: str = "content"
    roles: Mapping[str, str] = dataclasses.field(default_factory=dict)
    min_chars: int = 1
    max_chars: int | None = None
    max_length_ratio: float | None = None
    margin: list[str] | None = None
    min_margin: float = 0.0

    def __post_init__(self) -> None:
        """Raises ConfigError when a setting is out of range."""
        self.check()
        if self.max_length_ratio is not None and self.max_length_ratio < 1:
            raise ConfigError(f"{self.where}.max_length_ratio={self.max_length_ratio}", "must be at least 1")
        if self.margin is not None and len(self.margin) != 2:
            raise ConfigError(
                f"{self.where}.margin={self.margin}", "must be two fields: of the better and the worse score"
            )

    def settings(self) -> dict[str, Any]:
        """Everything that decides the pairs, the bytes of the files included."""
        return {"source": "pair_files", "version": 3, **self.row_settings()}

    def pairs(self) -> Iterator[Pair | Rejected]:
        """In the order of the files' names.

        Raises:
            DataError: a bad row and ``on_error=fail``.
        """
        for place, row in self.rows():
            pair = row if isinstance(row, str) else self._pair(row, place)
            fault = pair if isinstance(pair, str) else pair_fault(pair)
            if fault is not None or isinstance(pair, str) or isinstance(row, str):
                yield self.reject(place, f"{fault}")
            elif why := self._filtered(pair, row):
                yield Rejected(where=place, reason="filtered", detail=why)
            else:
                yield pair

    def _filtered(self, pair: Pair, row: dict[str, Any]) -> str | None:
        """Why a pair is not wanted, though nothing is wrong with it."""
        shorter, longer = sorted((len(pair.chosen), len(pair.rejected)))
        if shorter < self.min_chars or (self.max_chars is not None and longer > self.max_chars):
            return f"answers of {shorter} and {longer} characters"
        if self.max_length_ratio is not None and longer > self.max_length_ratio * shorter:
            return f"one answer is {longer / shorter:.1f} times as long as the other"
        if self.margin is None:
            return None
        better, worse = (field(row, key) for key in self.margin)
        good = all(isinstance(score, int | float) for score in (better, worse)) and better - worse >= self.min_margin
        return None if good else f"scores {better} and {worse}"

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
            found = message_list(parts[0], self.role_key, self.content_key, self.roles)
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
