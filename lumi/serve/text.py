"""Text from tokens, as they come: what has been given out is never taken back.

Three things can make the end of a text uncertain: a character whose bytes are not all there, the beginning of what may become
a stop string, and the beginning of what may become the template's lead. So much is held back, and no more. A token costs the
same after ten thousand others as at the beginning: its bytes are decoded once, its characters looked at once for each stop.
"""

import codecs
from collections.abc import Sequence

from lumi.errors import ConfigError
from lumi.tokenizer import Tokenizer


class TextStream:
    """The text of one answer.

    What it gives out adds up to ``tokenizer.decode`` of all ids, without ``lead``, up to the first stop string that is complete
    (of those complete at the same character, the longest).

    Args:
        tokenizer: of the model.
        lead: taken off the very beginning, as `lumi.tokenizer.Template.read` does.
        stop: strings that end the text and do not belong to it.

    Attributes:
        stopped: the stop string that ended the text, or None.

    Raises:
        ConfigError: a stop string is empty.
    """

    def __init__(self, tokenizer: Tokenizer, *, lead: str = "", stop: Sequence[str] = ()) -> None:
        if "" in stop:
            raise ConfigError(f"stop={list(stop)}", "must not hold an empty string", "leave it out")
        self.stopped: str | None = None
        self._tokenizer = tokenizer
        # The same function as bytes.decode, so it finds the same U+FFFD, however the bytes are cut.
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._lead = lead
        self._stops = [_Stop(text) for text in stop]
        self._held = ""
        self._given: list[str] = []

    @property
    def text(self) -> str:
        """All that was given out so far."""
        return "".join(self._given)

    def push(self, token: int) -> str:
        """Take the next token; returns the text that is certain now, often none; none at all after a stop string.

        Raises:
            DataError: the token is outside the vocabulary.
        """
        return self._give(self._decoder.decode(self._tokenizer.decode_bytes([token])))

    def finish(self) -> str:
        """No token follows: returns what was held back."""
        return self._give(self._decoder.decode(b"", final=True), final=True)

    def token_text(self, token: int) -> str:
        """What one token stands for by itself, control tokens by name; part of a character is U+FFFD.

        Raises:
            DataError: the token is outside the vocabulary.
        """
        return self._tokenizer.decode([token], skip_control=False)

    def _give(self, new: str, *, final: bool = False) -> str:
        if self.stopped is not None:
            return ""
        if self._lead:
            self._held += new
            if not final and len(self._held) < len(self._lead) and self._lead.startswith(self._held):
                return ""
            new, self._held, self._lead = self._held.removeprefix(self._lead), "", ""
        n_certain = self._search(new)
        text = self._held + new
        if final and self.stopped is None:
            n_certain = len(text)
        given, self._held = text[:n_certain], text[n_certain:]
        if given:
            self._given.append(given)
        return given

    def _search(self, new: str) -> int:
        """Look for stop strings; returns how many characters of what is held and ``new`` are certain."""
        if not self._stops:
            return len(self._held) + len(new)
        for n_read, char in enumerate(new, start=1):
            for stop in self._stops:
                stop.read(char)
            complete = [stop.text for stop in self._stops if stop.n_matched == len(stop.text)]
            if complete:
                self.stopped = max(complete, key=len)
                return len(self._held) + n_read - len(self.stopped)
        return len(self._held) + len(new) - max(stop.n_matched for stop in self._stops)


class _Stop:
    """How much of a string the text so far ends with: Knuth, Morris and Pratt, because a text is never read again."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.n_matched = 0
        self._borders = [0]  # for each beginning of the string: how much of it is its own end
        for char in text[1:]:
            self._borders.append(self._longer(self._borders[-1], char))

    def read(self, char: str) -> None:
        self.n_matched = self._longer(self.n_matched, char)

    def _longer(self, n_matched: int, char: str) -> int:
        while n_matched and self.text[n_matched] != char:
            n_matched = self._borders[n_matched - 1]
        return n_matched + (self.text[n_matched] == char)
