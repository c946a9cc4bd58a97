"""Documents that repeat themselves are left out: Gopher's rules, decided on hashes of the words."""

import dataclasses
import math
import re
from collections.abc import Sequence

import numpy as np
from datatrove.data import Document

from lumi.corpus.document import broken_rules, is_count
from lumi.corpus.steps.step import Step
from lumi.corpus.steps.words import ngram_hashes, word_lengths
from lumi.errors import join_violations

_PARAGRAPH_BREAK = re.compile(r"\n{2,}")


@dataclasses.dataclass(kw_only=True, repr=False, eq=False)
class GopherRepetition(Step):
    """Leaves out documents with too many repeated lines, paragraphs or word n-grams (Gopher, arXiv:2112.11446, table A1).

    Options, order and decisions are those of datatrove's ``GopherRepetitionFilter`` for the words of
    `lumi.corpus.steps.words.split_words`: letters and digits in lower case. So ``The end.`` repeats ``the end``, and
    punctuation counts in no n-gram but in the length of the document; a tokenizer that makes words of punctuation finds
    somewhat more. Repeated n-grams are counted as there: from left to right, and the words of one that was met before are
    passed over, so that no word counts twice. There is one difference: datatrove compares n-grams without the spaces between
    their words and takes ``1 23`` for ``12 3``.

    Most documents are let go early, by a bound that costs one sort: no n-gram is more frequent than its first words, and all
    words of a repeated 10-gram stand in repeated 5-grams. Only where a bound exceeds a threshold is the number itself found.

    Args:
        dup_line_frac: highest share of lines that were there before.
        dup_para_frac: highest share of paragraphs, which stand between blank lines, that were there before.
        dup_line_char_frac: highest share of characters in such lines.
        dup_para_char_frac: highest share of characters in such paragraphs.
        top_n_grams: pairs of a length in words and the highest share of characters that all occurrences of the most frequent
            n-gram of that length may have.
        dup_n_grams: pairs of a length in words and the highest share of characters in n-grams that were there before.

    Null takes out a rule. Shares are of the characters of the whole document; the defaults are those of the paper.

    Raises:
        ConfigError: an option is out of range.
    """

    name = "gopher_repetition"
    hashes_words = True

    dup_line_frac: float | None = 0.3
    dup_para_frac: float | None = 0.3
    dup_line_char_frac: float | None = 0.2
    dup_para_char_frac: float | None = 0.2
    top_n_grams: Sequence[Sequence[float]] | None = ((2, 0.2), (3, 0.18), (4, 0.16))
    dup_n_grams: Sequence[Sequence[float]] | None = ((5, 0.15), (6, 0.14), (7, 0.13), (8, 0.12), (9, 0.11), (10, 0.10))

    def __post_init__(self) -> None:
        """Check the options."""
        super().__post_init__()
        keys = ("dup_line_frac", "dup_para_frac", "dup_line_char_frac", "dup_para_char_frac")
        rules = {key: (_is_share(getattr(self, key)), "must be a number from 0 to 1, or null") for key in keys}
        pairs_rule = "must be pairs of a number of words and a share, such as [[5, 0.15], [6, 0.14]], or null"
        rules |= {key: (_are_pairs(getattr(self, key)), pairs_rule) for key in ("top_n_grams", "dup_n_grams")}
        if violations := broken_rules(f"corpus.steps.{self.name}", self, rules):
            raise join_violations(violations)
        # As JSON has them, and in the order in which they are tried.
        self.top_n_grams = self.top_n_grams and sorted(map(list, self.top_n_grams))
        self.dup_n_grams = self.dup_n_grams and sorted(map(list, self.dup_n_grams))
        self._top_rules = [(int(n), limit) for n, limit in self.top_n_grams or ()]
        self._dup_rules = [(int(n), limit) for n, limit in self.dup_n_grams or ()]

    def apply(self, document: Document) -> str | None:
        """Tell the first rule that the document breaks."""
        text = document.text
        return self._repeated_paragraphs(text) or self._repeated_lines(text) or self._repeated_ngrams(text)

    def _repeated_paragraphs(self, text: str) -> str | None:
        body = text.strip()
        if "\n\n" not in body:
            return None
        paragraphs = _PARAGRAPH_BREAK.split(body) if "\n\n\n" in body else body.split("\n\n")
        n_again, chars = _repeated(paragraphs)
        if _exceeds(n_again / len(paragraphs), self.dup_para_frac):
            return "repeated paragraphs"
        return "repeated paragraph characters" if _exceeds(chars / len(text), self.dup_para_char_frac) else None

    def _repeated_lines(self, text: str) -> str | None:
        lines = [line for line in text.split("\n") if line]
        # A newline at either end makes an empty line, newlines in a row make none: what splitting at \n+ would give.
        lines += [""] * (text.startswith("\n") + text.endswith("\n"))
        n_again, chars = _repeated(lines)
        if not n_again:
            return None
        if _exceeds(n_again / len(lines), self.dup_line_frac):
            return "repeated lines"
        return "repeated line characters" if _exceeds(chars / len(text), self.dup_line_char_frac) else None

    def _repeated_ngrams(self, text: str) -> str | None:
        starts = _word_starts(text)
        return _frequent_ngram(text, starts, self._top_rules) or _repeated_ngrams(text, starts, self._dup_rules)


def _is_share(value: object) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1)


def _are_pairs(value: object) -> bool:
    if value is None:
        return True
    if not isinstance(value, Sequence) or isinstance(value, str):
        return False
    pairs = [pair if isinstance(pair, Sequence) and len(pair) == 2 else (0, 0) for pair in value]
    return all(is_count(n) and share is not None and _is_share(share) for n, share in pairs)


def _exceeds(share: float, limit: float | None) -> bool:
    return limit is not None and share > limit


def _repeated(parts: list[str]) -> tuple[int, int]:
    """How many of ``parts`` were there before, and their characters."""
    different = set(parts)
    n_again = len(parts) - len(different)
    return n_again, sum(map(len, parts)) - sum(map(len, different)) if n_again else 0


def _word_starts(text: str) -> np.ndarray:
    """Where the words would begin if they stood with one space between them; (n_words + 1,) int64, in characters."""
    lengths = word_lengths(text)
    starts = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths + 1, out=starts[1:])
    return starts


def _frequent_ngram(text: str, starts: np.ndarray, rules: Sequence[tuple[int, float]]) -> str | None:
    most, longest, known = math.inf, len(text), 1
    for n, limit in rules:
        # An n-gram is at most as frequent as the shorter ones, and as long as those that cover it.
        if most * longest * -(-n // known) / len(text) <= limit:
            continue
        lengths = starts[n:] - starts[:-n] - 1
        if not len(lengths):
            break
        hashes = ngram_hashes(text, n)
        most, longest, known = _highest_count(hashes), int(lengths.max()) + 1, n
        if most * longest / len(text) > limit and _top_chars(hashes, lengths) / len(text) > limit:
            return f"frequent {n}-gram"
    return None


def _highest_count(hashes: np.ndarray) -> int:
    ordered = np.sort(hashes)
    bounds = np.empty(len(hashes) + 1, dtype=bool)
    bounds[0] = bounds[-1] = True
    np.not_equal(ordered[1:], ordered[:-1], out=bounds[1:-1])
    positions = np.flatnonzero(bounds)
    return int((positions[1:] - positions[:-1]).max())


def _top_chars(hashes: np.ndarray, lengths: np.ndarray) -> int:
    """Characters of the most frequent n-gram, all occurrences; of equally frequent ones the first counts."""
    _, first, counts = np.unique(hashes, return_index=True, return_counts=True)
    most = counts.max()
    return int(lengths[first[counts == most].min()] * most)


def _repeated_ngrams(text: str, starts: np.ndarray, rules: Sequence[tuple[int, float]]) -> str | None:
    if not rules:
        return None
    shortest, lowest = rules[0][0], min(limit for _, limit in rules)
    hashes = ngram_hashes(text, shortest)
    ordered = np.sort(hashes)  # much faster than the stable sort that the second bound needs
    n_again = int(np.count_nonzero(ordered[1:] == ordered[:-1]))
    if not n_again or n_again * int((starts[shortest:] - starts[:-shortest]).max()) / len(text) <= lowest:
        return None
    most_chars = _chars_met_before(hashes, shortest, starts)
    if most_chars / len(text) <= lowest:
        return None
    for n, limit in rules:
        if most_chars / len(text) > limit and _repeated_chars(ngram_hashes(text, n), n, starts) / len(text) > limit:
            return f"repeated {n}-grams"
    return None


def _chars_met_before(hashes: np.ndarray, n: int, starts: np.ndarray) -> int:
    """Characters of all words in n-grams that were there before: what those of any greater n cannot exceed."""
    order = np.argsort(hashes, kind="stable")
    ordered = hashes[order]
    again = order[1:][ordered[1:] == ordered[:-1]]
    steps = np.zeros(len(starts), dtype=np.int64)
    steps[again] += 1
    steps[again + n] -= 1
    covered = np.cumsum(steps)[:-1] > 0
    return int((np.diff(starts) - 1)[covered].sum())


def _repeated_chars(hashes: np.ndarray, n: int, starts: np.ndarray) -> int:
    """Characters of the n-grams that were there before, from left to right, passing over the words of each."""
    _, group, counts = np.unique(hashes, return_inverse=True, return_counts=True)
    candidates = np.flatnonzero(counts[group] > 1)
    lengths = starts[candidates + n] - starts[candidates] - n
    met: set[int] = set()
    chars = free = 0
    for position, ngram, length in zip(candidates.tolist(), group[candidates].tolist(), lengths.tolist(), strict=True):
        if position < free:
            continue
        if ngram in met:
            chars += length
            free = position + n
        else:
            met.add(ngram)
    return chars
