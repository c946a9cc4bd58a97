"""Words and sentences as datatrove's filters ask for them, without spaCy.

A word is what stands between white space, as in the papers whose thresholds the quality steps use: with punctuation as words
of its own, as a tokenizer for linguists has it, one novel in six fails Gopher's rule on words without letters, for its
dialogues. A sentence ends at ``. ! ? …`` before white space and anything but a small letter, initials and a few titles
aside. So both want a script with spaces between its words.
"""

import re

from datatrove.utils.word_tokenizers import WordTokenizer

_SENTENCE_END = re.compile(
    r"""[.!?…](?<!\b[A-Z]\.)(?<!\b(?:Mr|Dr|St)\.)(?<!\bMrs\.)["'”’)\]]*+(?=\s)\s*+(?!["'“‘(\[]*[a-z])(?=\S)"""
)


def sentence_ends(text: str) -> list[int]:
    """Where the sentences end, each with the white space after it; the last one at the end of ``text``."""
    return [*(match.end() for match in _SENTENCE_END.finditer(text)), len(text)]


class SpacedWords(WordTokenizer):
    """A tokenizer for datatrove's filters, given as their ``language``."""

    def word_tokenize(self, text: str) -> list[str]:
        """What stands between white space."""
        return text.split()

    def sent_tokenize(self, text: str) -> list[str]:
        """Its sentences, without the white space around them."""
        return [text[start:end].strip() for start, end in self.span_tokenize(text)]

    def span_tokenize(self, text: str) -> list[tuple[int, int]]:
        """Start and end of every sentence."""
        ends = sentence_ends(text)
        return list(zip([0, *ends[:-1]], ends, strict=True))
