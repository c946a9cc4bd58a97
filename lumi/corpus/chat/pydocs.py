"""Questions about Python's standard library, answered by the first sentence of a docstring (``chat=pydocs_chat``).

For the style of an answer in real prose, without a download; not for facts that a small model could keep.
"""

import dataclasses
import random
import re
from collections.abc import Iterator
from typing import Any

from lumi.corpus.chat.conversation import Conversation
from lumi.corpus.pydocs import docstrings, docstrings_sha256
from lumi.errors import ConfigError
from lumi.tokenizer import Message

VERSION = 2
PACKAGES = (
    "argparse", "asyncio", "bisect", "calendar", "collections", "concurrent", "configparser", "contextlib", "copy", "csv",
    "datetime", "decimal", "difflib", "email", "fractions", "functools", "heapq", "html", "http", "importlib", "inspect",
    "json", "logging", "mailbox", "multiprocessing", "pathlib", "pickle", "queue", "random", "sched", "shelve", "shutil",
    "smtplib", "socket", "socketserver", "ssl", "statistics", "string", "subprocess", "tarfile", "tempfile", "textwrap",
    "threading", "traceback", "types", "typing", "unittest", "urllib", "uuid", "weakref", "xml", "zipfile",
)  # fmt: skip
"""What people ask about; reading all of the library would take half a minute for the few hundred answers that are kept."""

_QUESTIONS = ("What does {} do?", "What is {} for?", "Explain {} in one sentence.", "How would you describe {}?")
_SENTENCE = re.compile(r"[A-Z][^\n]*(?:\n[^\n]+)*?\.(?=\s|$)")


@dataclasses.dataclass(frozen=True, kw_only=True)
class PydocsChat:
    """One question a function, class or module.

    Args:
        n_conversations: at most so many, drawn with the seed.
        max_chars: longer answers are left out.
    """

    name: str = "pydocs_chat"
    weight: float = 0.1
    seed: int = 0
    n_conversations: int = 400
    max_chars: int = 160
    licence: str = "PSF-2.0"
    notes: str = "Docstrings of this Python; differs between its versions."

    def __post_init__(self) -> None:
        """Raises ConfigError when a count is below 1."""
        if self.n_conversations < 1 or self.max_chars < 1:
            found = f"chat.n_conversations={self.n_conversations}, chat.max_chars={self.max_chars}"
            raise ConfigError(found, "must be at least 1")

    def settings(self) -> dict[str, Any]:
        """Everything that decides the conversations: also the bytes of the modules that are read."""
        own = {"seed": self.seed, "n_conversations": self.n_conversations, "max_chars": self.max_chars}
        return {"source": "pydocs_chat", "version": VERSION, **own, "docs_sha256": docstrings_sha256(PACKAGES)}

    def conversations(self) -> Iterator[Conversation]:
        """In the order of their names."""
        found = sorted(self._answers().items())
        rng = random.Random(self.seed)
        chosen = sorted(rng.sample(found, min(self.n_conversations, len(found))))
        for name, answer in chosen:
            question = rng.choice(_QUESTIONS).format(name)
            messages = (Message(role="user", content=question), Message(role="assistant", content=answer))
            yield Conversation(messages=messages, id=f"{self.name}-{name}")

    def _answers(self) -> dict[str, str]:
        """Qualified name → first sentence of its docstring."""
        answers = {}
        for name, text in docstrings(PACKAGES):
            sentence = _SENTENCE.match(text)
            public = not any(part.startswith("_") for part in name.split("."))
            if sentence and public and len(sentence[0]) <= self.max_chars:
                answers[name] = " ".join(sentence[0].split())
        return answers
