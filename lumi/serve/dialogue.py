"""What was said in a conversation, what of it a model reads next, and what of it is kept in a file."""

import dataclasses

from lumi.errors import DataError
from lumi.tokenizer import Message, Template, Tokenizer


@dataclasses.dataclass(frozen=True, kw_only=True)
class Exchange:
    """A question and its answer; ``attempt`` counts the answers that it has had before."""

    prompt: str
    answer: str
    attempt: int = 0


class Dialogue:
    """What was said, and what of it the model reads next.

    Args:
        tokenizer, template: as in `chat`.
        context_tokens: of the model.
        system: a system message, or None.

    Attributes:
        exchanges: all of them, the oldest first.
        n_dropped: so many of the oldest are not read any more, because the context is full.
    """

    def __init__(
        self, tokenizer: Tokenizer, template: Template | None, context_tokens: int, system: str | None
    ) -> None:
        self.tokenizer, self.template, self.context_tokens = tokenizer, template, context_tokens
        self.system = system
        self.exchanges: list[Exchange] = []
        self.n_dropped = 0

    def prompt_ids(self, prompt: str, answer_tokens: int) -> list[int]:
        """What the model continues; old exchanges are dropped until an answer has room, up to a quarter of the context.

        Raises:
            DataError: the prompt alone is too long, or not text.
        """
        room = self.context_tokens - min(answer_tokens, self.context_tokens // 4)
        n_dropped = self.n_dropped
        while len(ids := self._render(prompt, n_dropped)) > room and n_dropped < len(self.exchanges):
            n_dropped += 1
        if len(ids) >= self.context_tokens:
            frame = " with the template and the system message" if self.template else " with its beginning"
            raise DataError(
                f"the prompt has {len(ids):,} tokens{frame}",
                f"the context is arch.max_seq_len={self.context_tokens:,}, one must be left",
                "shorten it",
            )
        self.n_dropped = n_dropped
        return ids

    def pop(self) -> Exchange:
        """Forget the last exchange; there must be one."""
        self.n_dropped = 0  # there may be room again
        return self.exchanges.pop()

    def rows(self) -> list[list[Message]]:
        """Conversations for a file: one, or one an exchange where each stands alone; without empty turns."""
        filled = [one for one in self.exchanges if one.prompt.strip() and one.answer.strip()]
        if self.template is None:
            return [_turns([one]) for one in filled]
        return [[*self._opening(), *_turns(filled)]] if filled else []

    def _render(self, prompt: str, n_dropped: int) -> list[int]:
        if self.template is None:
            return [self.tokenizer.bos_id, *self.tokenizer.encode(prompt)]
        heard = [*self._opening(), *_turns(self.exchanges[n_dropped:])]
        return self.template.prompt(self.tokenizer, [*heard, Message(role="user", content=prompt)])

    def _opening(self) -> list[Message]:
        return [] if self.system is None else [Message(role="system", content=self.system)]


def _turns(exchanges: list[Exchange]) -> list[Message]:
    turns: list[Message] = []
    for one in exchanges:
        turns += [Message(role="user", content=one.prompt), Message(role="assistant", content=one.answer)]
    return turns
