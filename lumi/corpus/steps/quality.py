"""Rules of thumb that tell prose from lists, menus and debris: those of Gopher, C4 and FineWeb.

The first two are written anew because datatrove's filters take longer than everything else together; the tests compare every
decision with theirs. They were made for web pages, where a line is a paragraph or a heading: in a text with hard line breaks,
most lines end without punctuation, and C4 and FineWeb leave out what is fine.
"""

import dataclasses
import functools
import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from datatrove.data import Document
from datatrove.utils.text import PUNCTUATION_SET

from lumi.corpus.document import broken_rules, is_count
from lumi.corpus.steps.step import Step
from lumi.corpus.steps.word_tokenizer import SpacedWords, sentence_ends
from lumi.errors import join_violations

if TYPE_CHECKING:
    from datatrove.pipeline.filters.fineweb_quality_filter import FineWebQualityFilter

_SIGNS = "".join(sorted(sign for sign in PUNCTUATION_SET if not sign.isspace()))
# The lookbehind stands after the first character, so that the search for it is a fast scan.
_WITHOUT_LATIN_LETTERS = re.compile(r"[^a-zA-Z\s](?<!\S.)[^a-zA-Z\s]*+(?!\S)")
_CITATION = re.compile(r"\[\d*\]|\[edit\]|\[citation needed\]")
_SENTENCE_SIGNS = (".", "?", "!", '"', "'")
_POLICIES = ("terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies")
_FINEWEB_REASONS = {
    "empty": "no lines",
    "line_punct_ratio": "too few lines with end punctuation",
    "short_line_ratio": "too many short lines",
    "char_dup_ratio": "repeated lines",
    "list_ratio": "too many newlines",
}


@dataclasses.dataclass(kw_only=True, repr=False, eq=False)
class _Rules(Step):
    """A step whose options are thresholds: each is checked by what its name says it counts."""

    _counts: ClassVar[tuple[str, ...]] = ()
    _shares: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        rule = "must be a whole number of at least 1, or null"
        rules = {key: (_is_count(getattr(self, key)), rule) for key in self._counts}
        rule = "must be a number of at least 0, or null"
        rules |= {key: (_is_share(getattr(self, key)), rule) for key in self._shares}
        if violations := broken_rules(f"corpus.steps.{self.name}", self, rules):
            raise join_violations(violations)


@dataclasses.dataclass(kw_only=True, repr=False, eq=False)
class GopherQuality(_Rules):
    """Leaves out what does not look like prose by its words and signs (Gopher, arXiv:2112.11446, appendix A).

    Decides as datatrove's ``GopherQualityFilter`` with the words of `lumi.corpus.steps.word_tokenizer`.

    Args:
        min_doc_words: fewest words that are not only signs.
        max_doc_words: most of them; a book may have more.
        min_avg_word_length: of these words, in characters.
        max_avg_word_length: of these words, in characters.
        max_symbol_word_ratio: highest number of ``#`` a word, and of ellipses a word.
        max_bullet_lines_ratio: highest share of lines that begin with ``•`` or ``-``.
        max_ellipsis_lines_ratio: highest share of lines that end with an ellipsis.
        min_alpha_words_ratio: lowest share of words with a letter; called ``max_non_alpha_words_ratio`` in datatrove.
        min_stop_words: fewest different words of ``stop_words``; null for other languages than English, or set these too.
        stop_words: as they are written; those of the paper.

    Null takes out a rule; the defaults are those of the paper.

    Raises:
        ConfigError: an option is out of range.
    """

    name = "gopher_quality"
    _counts: ClassVar[tuple[str, ...]] = ("min_doc_words", "max_doc_words", "min_stop_words")
    _shares: ClassVar[tuple[str, ...]] = (
        "min_avg_word_length", "max_avg_word_length", "max_symbol_word_ratio",
        "max_bullet_lines_ratio", "max_ellipsis_lines_ratio", "min_alpha_words_ratio",
    )  # fmt: skip

    min_doc_words: int | None = 50
    max_doc_words: int | None = 100_000
    min_avg_word_length: float | None = 3
    max_avg_word_length: float | None = 10
    max_symbol_word_ratio: float | None = 0.1
    max_bullet_lines_ratio: float | None = 0.9
    max_ellipsis_lines_ratio: float | None = 0.3
    min_alpha_words_ratio: float | None = 0.8
    min_stop_words: int | None = 2
    stop_words: Sequence[str] = ("the", "be", "to", "of", "and", "that", "have", "with")

    def __post_init__(self) -> None:
        """Check the options."""
        super().__post_init__()
        self.stop_words = list(self.stop_words)

    def apply(self, document: Document) -> str | None:
        """Tell the first rule that the document breaks."""
        text = document.text
        words = text.split()
        # Whatever is only signs or has no letter at all has no Latin letter: few words to look at closely.
        odd = _WITHOUT_LATIN_LETTERS.findall(text)
        return (
            self._by_length(words, [word for word in odd if not word.strip(_SIGNS)])
            or self._by_symbols(text, len(words))
            or self._by_lines(text)
            or self._by_letters(words, sum(1 for word in odd if not any(map(str.isalpha, word))))
        )

    def _by_length(self, words: list[str], symbols: list[str]) -> str | None:
        n_words = len(words) - len(symbols)
        if _below(n_words, self.min_doc_words):
            return "too few words"
        if _above(n_words, self.max_doc_words):
            return "too many words"
        average = (sum(map(len, words)) - sum(map(len, symbols))) / n_words if n_words else math.nan
        if _below(average, self.min_avg_word_length):
            return "short words"
        return "long words" if _above(average, self.max_avg_word_length) else None

    def _by_symbols(self, text: str, n_words: int) -> str | None:
        if _above(text.count("#") / max(1, n_words), self.max_symbol_word_ratio):
            return "too many hash signs"
        n_ellipses = text.count("...") + text.count("…")
        return "too many ellipses" if _above(n_ellipses / max(1, n_words), self.max_symbol_word_ratio) else None

    def _by_lines(self, text: str) -> str | None:
        lines = text.splitlines()
        n_bullets = sum(line.lstrip().startswith(("•", "-")) for line in lines) if "•" in text or "-" in text else 0
        if _above(n_bullets / max(1, len(lines)), self.max_bullet_lines_ratio):
            return "too many bullets"
        n_ellipses = sum(line.rstrip().endswith(("...", "…")) for line in lines) if "..." in text or "…" in text else 0
        too_many = _above(n_ellipses / max(1, len(lines)), self.max_ellipsis_lines_ratio)
        return "too many lines with ellipses" if too_many else None

    def _by_letters(self, words: list[str], n_without: int) -> str | None:
        if _below((len(words) - n_without) / max(1, len(words)), self.min_alpha_words_ratio):
            return "too few words with letters"
        known = set(self.stop_words).intersection(words)
        return "too few stop words" if _below(len(known), self.min_stop_words) else None


@dataclasses.dataclass(kw_only=True, repr=False, eq=False)
class C4Quality(_Rules):
    """Keeps the lines that look like sentences, and leaves out documents with few of them (C4, arXiv:1910.10683, 2.2).

    Decides as datatrove's ``C4QualityFilter`` with the sentences of `lumi.corpus.steps.word_tokenizer`. It changes the text:
    lines are stripped, and those that break a rule are taken out.

    Args:
        split_paragraph: rules are for lines, as in the paper; if false, for sentences.
        remove_citations: takes out ``[1]``, ``[edit]`` and ``[citation needed]``.
        filter_no_terminal_punct: takes out lines that do not end with one of ``. ? ! " '``, or end with ``...``.
        min_num_sentences: fewest sentences of a document in the lines that stay.
        min_words_per_line: lines of fewer words are taken out; 3 as in the paper.
        max_word_length: lines with a longer word are taken out; 1000 as in the code of the paper.
        filter_lorem_ipsum: leaves out documents with ``lorem ipsum`` in a line that stays.
        filter_javascript: takes out lines with ``javascript``.
        filter_curly_bracket: leaves out documents with ``{`` in a line that stays.
        filter_policy: takes out lines about cookies and terms of use, as in the code of the paper.

    Null takes out a rule.

    Raises:
        ConfigError: an option is out of range.
    """

    name = "c4_quality"
    _counts: ClassVar[tuple[str, ...]] = ("min_num_sentences", "min_words_per_line", "max_word_length")

    split_paragraph: bool = True
    remove_citations: bool = True
    filter_no_terminal_punct: bool = True
    min_num_sentences: int | None = 5
    min_words_per_line: int | None = 3
    max_word_length: int | None = 1000
    filter_lorem_ipsum: bool = True
    filter_javascript: bool = True
    filter_curly_bracket: bool = True
    filter_policy: bool = True

    def apply(self, document: Document) -> str | None:
        """Take out lines, or tell why nothing of the document is to stay."""
        text = document.text
        parts = text.splitlines() if self.split_paragraph else SpacedWords().sent_tokenize(text)
        kept = [line for part in parts if (line := self._sentence_line(part.strip())) is not None]
        lower = text.lower()
        # Taking out a citation can make one of these of two halves.
        if "[" in text or any(sign in lower for sign in ("{", "lorem ipsum", "javascript", *_POLICIES)):
            reason, kept = self._by_content(kept)
            if reason:
                return reason
        if self.min_num_sentences is not None and not self._has_sentences(kept, self.min_num_sentences):
            return "too few sentences"
        cleaned = ("\n" if self.split_paragraph else " ").join(kept).strip()
        if not cleaned:
            return "nothing left"
        document.text = cleaned
        return None

    def _sentence_line(self, line: str) -> str | None:
        """The line without citations, or None if it breaks a rule on its form; rules on words count the citations."""
        short = self.min_words_per_line
        bare = _CITATION.sub("", line) if self.remove_citations and "[" in line else line
        if self.filter_no_terminal_punct and (not bare.endswith(_SENTENCE_SIGNS) or bare.endswith("...")):
            return None
        if short is not None and len(line.split(None, short)) < short:
            return None
        longest = self.max_word_length
        if longest is not None and len(line) > longest and any(len(word) > longest for word in line.split()):
            return None
        return bare

    def _by_content(self, lines: list[str]) -> tuple[str | None, list[str]]:
        kept = []
        for line in lines:
            lower = line.lower()
            if self.filter_lorem_ipsum and "lorem ipsum" in lower:
                return "lorem ipsum", []
            if self.filter_javascript and "javascript" in lower:
                continue
            if self.filter_curly_bracket and "{" in line:
                return "curly bracket", []
            if not (self.filter_policy and any(policy in lower for policy in _POLICIES)):
                kept.append(line)
        return None, kept

    def _has_sentences(self, lines: list[str], wanted: int) -> bool:
        if not self.split_paragraph:
            return len(lines) >= wanted
        for line in lines:
            wanted -= len(sentence_ends(line))
            if wanted <= 0:
                return True
        return False


@dataclasses.dataclass(kw_only=True, repr=False, eq=False)
class FineWebQuality(_Rules):
    """Leaves out lists and pages with repeated or very short lines (FineWeb, arXiv:2406.17557, 3.6).

    It is datatrove's ``FineWebQualityFilter`` with the words of `lumi.corpus.steps.word_tokenizer`.

    Args:
        line_punct_thr: lowest share of lines that end with one of ``stop_chars``.
        line_punct_exclude_zero: lets documents go in which no line does.
        stop_chars: those that end a sentence in any script, without quotation marks, if null; dialogues end with these.
        short_line_thr: highest share of short lines.
        short_line_length: most characters of a short line.
        char_duplicates_ratio: highest share of characters in lines that were there before.
        new_line_ratio: most newlines a word.

    Null takes out a rule; the defaults are those of the paper.

    Raises:
        ConfigError: an option is out of range.
    """

    name = "fineweb_quality"
    _counts: ClassVar[tuple[str, ...]] = ("short_line_length",)
    _shares: ClassVar[tuple[str, ...]] = ("line_punct_thr", "short_line_thr", "char_duplicates_ratio", "new_line_ratio")

    line_punct_thr: float | None = 0.12
    line_punct_exclude_zero: bool = False
    stop_chars: Sequence[str] | None = None
    short_line_thr: float | None = 0.67
    short_line_length: int | None = 30
    char_duplicates_ratio: float | None = 0.01
    new_line_ratio: float | None = 0.3

    def __post_init__(self) -> None:
        """Check the options."""
        super().__post_init__()
        self.stop_chars = None if self.stop_chars is None else list(self.stop_chars)

    def apply(self, document: Document) -> str | None:
        """Tell the first rule that the document breaks."""
        result = self._filter.filter(document)
        return _FINEWEB_REASONS[result[1]] if isinstance(result, tuple) else None

    @functools.cached_property
    def _filter(self) -> "FineWebQualityFilter":
        from datatrove.pipeline.filters.fineweb_quality_filter import FineWebQualityFilter

        words: Any = SpacedWords()  # allowed as a language, though not by the annotation
        return FineWebQualityFilter(
            line_punct_thr=0.0 if self.line_punct_thr is None else self.line_punct_thr,
            line_punct_exclude_zero=self.line_punct_exclude_zero,
            stop_chars=None if self.stop_chars is None else tuple(self.stop_chars),
            short_line_thr=_or_endless(self.short_line_thr),
            short_line_length=-1 if self.short_line_length is None else self.short_line_length,
            char_duplicates_ratio=_or_endless(self.char_duplicates_ratio),
            new_line_ratio=_or_endless(self.new_line_ratio),
            language=words,
        )


def _is_count(value: object) -> bool:
    return value is None or is_count(value)


def _is_share(value: object) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool) and value >= 0)


def _below(value: float, limit: float | None) -> bool:
    return limit is not None and value < limit


def _above(value: float, limit: float | None) -> bool:
    return limit is not None and value > limit


def _or_endless(limit: float | None) -> float:
    return math.inf if limit is None else limit
