"""Conversations out of trees of messages, as in OASST1, whose every message may have several answers (``chat=oasst1``)."""

import dataclasses
import itertools
from collections.abc import Iterator, Mapping
from typing import Any

from lumi.corpus.chat.conversation import Conversation, conversation_fault
from lumi.corpus.chat.files import ROLES, ExampleRows
from lumi.corpus.document import Rejected
from lumi.errors import ConfigError
from lumi.tokenizer import Message

_UNRANKED = 1_000_000


@dataclasses.dataclass(frozen=True, kw_only=True)
class ChatTree(ExampleRows):
    """From each root the path of best ranked messages, down to its last answer.

    Args:
        limit: a seeded sample of so many conversations or characters of them; null takes all.
        path, dataset, subset, split, revision, seed, on_error, max_rejected_ratio: as in `ExampleRows`.
        langs: languages to keep, such as [en]; null keeps all.
        all_paths: every path from a root to a leaf instead of the best one; answers near the root are then seen several times.
        roles: what a row calls a role → user or assistant, beside the usual names.
    """

    name: str = "oasst1"
    langs: list[str] | None = None
    all_paths: bool = False
    roles: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raises ConfigError when a setting is out of range."""
        self.check()
        if self.langs is not None and not self.langs:
            raise ConfigError(f"{self.where}.langs=[]", "keeps nothing", "null keeps all languages")

    def settings(self) -> dict[str, Any]:
        """Everything that decides the conversations."""
        return {"source": "chat_tree", "version": 2, **self.row_settings()}

    def conversations(self) -> Iterator[Conversation | Rejected]:
        """By the ids of their last messages, so that the order of the rows does not matter; then what is left out.

        Raises:
            DataError: a bad row and ``on_error=fail``.
        """
        messages: dict[str, tuple[dict[str, Any], str]] = {}
        for place, row in self.all_rows():
            fault = _row_fault(row, {**ROLES, **self.roles})
            if fault:
                yield self.reject(place, fault)
            elif isinstance(row, dict):
                messages[row["message_id"]] = (row, place)
        children: dict[str | None, list[str]] = {}
        for key, (row, _) in messages.items():
            children.setdefault(row.get("parent_id"), []).append(key)
        reached = set[str]()
        paths = sorted(self._paths(messages, children, reached), key=lambda path: path[-1])
        found = [self._conversation([messages[key] for key in path]) for path in paths]
        good = [item for item in found if isinstance(item, Conversation)]
        if self.limit is not None:
            sizes = [sum(len(message.content) for message in item.messages) for item in good]
            chosen = self.sample(sizes, self.limit)
            good = [item for number, item in enumerate(good) if number in chosen]
        yield from good
        yield from (item for item in found if isinstance(item, Rejected))
        for key in sorted(messages.keys() - reached):
            yield Rejected(
                where=messages[key][1], reason="orphan", detail=f"parent {messages[key][0].get('parent_id')}"
            )

    def _paths(
        self,
        messages: Mapping[str, tuple[dict[str, Any], str]],
        children: Mapping[str | None, list[str]],
        reached: set[str],
    ) -> Iterator[list[str]]:
        """Message ids from a root to the last answer below it."""
        open_paths = [[root] for root in children.get(None, [])]
        while open_paths:
            path = open_paths.pop()
            reached.add(path[-1])
            below = children.get(path[-1], [])
            reached.update(below)
            usable = [key for key in below if not messages[key][0].get("deleted")]
            ranked = sorted(usable, key=lambda key: (_rank(messages[key][0]), key))
            if ranked:
                chosen = ranked if self.all_paths else ranked[:1]
                for key in below:
                    if key not in chosen:
                        reached.update(_below(key, children))  # not an orphan, only not chosen
                open_paths += [[*path, key] for key in chosen]
            else:
                yield path

    def _conversation(self, path: list[tuple[dict[str, Any], str]]) -> Conversation | Rejected:
        roles = {**ROLES, **self.roles}
        while path and roles[path[-1][0]["role"]] != "assistant":
            path = path[:-1]  # a prompt that nobody answered
        if not path:
            return Rejected(where="a root", reason="no answer")
        place = path[-1][1]
        if path[0][0].get("deleted"):
            return Rejected(where=place, reason="filtered", detail="its first message was deleted")
        if self.langs is not None and path[0][0].get("lang") not in self.langs:
            return Rejected(where=place, reason="filtered", detail=f"lang={path[0][0].get('lang')}")
        messages = tuple(Message(role=roles[row["role"]], content=row["text"]) for row, _ in path)  # pyright: ignore[reportArgumentType]
        fault = conversation_fault(messages)
        if fault is None and any(
            one.content.strip() == two.content.strip() for one, two in itertools.pairwise(messages)
        ):
            fault = "echo: an answer repeats its prompt"
        if fault:
            return self.reject(place, fault)
        return Conversation(messages=messages, id=place)


def _row_fault(row: Any, roles: Mapping[str, str]) -> str | None:
    if isinstance(row, str):
        return row
    missing = [name for name in ("message_id", "text", "role") if not isinstance(row.get(name), str)]
    if missing:
        return f"missing field: needs {', '.join(missing)}; it has {', '.join(map(str, row))}"
    if roles.get(row["role"]) not in ("user", "assistant"):
        return f"unknown role: {row['role']!r}; roles maps names to user or assistant"
    return None


def _rank(row: dict[str, Any]) -> int:
    rank = row.get("rank")
    return _UNRANKED if rank is None else int(rank)  # 0 is the best


def _below(key: str, children: Mapping[str | None, list[str]]) -> Iterator[str]:
    """A message and everything under it."""
    left = [key]
    while left:
        found = left.pop()
        yield found
        left += children.get(found, [])
