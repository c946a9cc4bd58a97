"""Repetition is found where datatrove finds it, given the same words."""

import json
import pickle
import random
from pydoc_data.topics import topics  # real prose that every Python has

import pytest
from datatrove.data import Document
from datatrove.pipeline.filters.gopher_repetition_filter import GopherRepetitionFilter
from hypothesis import given, settings
from hypothesis import strategies as st

from lumi.corpus.steps import GopherRepetition
from lumi.corpus.steps.word_tokenizer import SpacedWords
from lumi.corpus.steps.words import split_words
from lumi.errors import ConfigError

REASONS = {
    "dup_para_frac": "repeated paragraphs",
    "dup_para_char_frac": "repeated paragraph characters",
    "dup_line_frac": "repeated lines",
    "dup_line_char_frac": "repeated line characters",
    **{f"top_{n}_gram": f"frequent {n}-gram" for n in range(1, 11)},
    **{f"duplicated_{n}_n_grams": f"repeated {n}-grams" for n in range(1, 11)},
}
LINES_OFF = dict.fromkeys(("dup_line_frac", "dup_para_frac", "dup_line_char_frac", "dup_para_char_frac"))


class OurWords(SpacedWords):
    def word_tokenize(self, text: str) -> list[str]:
        return [word.decode() for word in split_words(text)]


def verdict(text: str, **options) -> str | None:
    return GopherRepetition(**options).apply(Document(text=text, id=""))


def datatrove_verdict(text: str, **options) -> str | None:
    result = GopherRepetitionFilter(language=OurWords(), **options).filter(Document(text=text, id=""))  # pyright: ignore[reportArgumentType]
    return REASONS[result[1]] if isinstance(result, tuple) else None


def prose_and_worse() -> list[str]:
    """Pieces of prose, half of them with a passage, lines or words that come again."""
    rng = random.Random(0)
    text = "\n".join(topics.values())
    pieces = [text[start : start + 1600] for start in range(0, 300_000, 1600)]
    for index in range(0, len(pieces), 2):
        words, lines = pieces[index].split(" "), pieces[index].split("\n")
        start, length = rng.randrange(len(words)), rng.randrange(1, 30)
        pieces[index] = rng.choice([
            " ".join(words[:start] + words[start : start + length] * rng.randrange(2, 12) + words[start:]),
            "\n".join(rng.choice(lines) if rng.random() < 0.3 else line for line in lines),
            " ".join(rng.choices(words[:50], k=rng.randrange(1, 300))),
        ])  # fmt: skip
    return pieces


def test_decisions_on_prose_and_worse_are_those_of_datatrove():
    ours = [verdict(text) for text in prose_and_worse()]
    assert ours == [datatrove_verdict(text) for text in prose_and_worse()]
    assert len(set(ours)) > 8


@settings(max_examples=200, deadline=None)
@given(
    words=st.lists(
        st.sampled_from(["a", "b", "Ab", "c,", "é", "日本", "long-word", "\n", "\n\n", "x."]), min_size=1, max_size=60
    ),
    limit=st.sampled_from([0.05, 0.2, 0.5]),
    scale=st.sampled_from([None, 0.3]),
)
def test_decisions_on_any_words_are_those_of_datatrove(words, limit, scale):
    pairs = {"top_n_grams": ((1, limit), (3, limit)), "dup_n_grams": ((2, limit), (3, limit), (5, limit))}
    options = {**dict.fromkeys(LINES_OFF, scale), **pairs}
    text = " ".join(words)
    assert verdict(text, **options) == datatrove_verdict(text, **options)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("one two\n\none two\n\nthree four five six", "repeated paragraphs"),
        ("longest\n\nlongest\n\na b\n\nc d\n\ne f", "repeated paragraph characters"),
        ("one\none\ntwo three four five six", "repeated lines"),
        ("longest\nlongest\na b\nc d", "repeated line characters"),
        ("A b; a b. c d e f g", "frequent 2-gram"),  # a b twice: 6 of 19 characters
    ],
)
def test_each_rule_has_its_reason(text, expected):
    assert verdict(text) == expected


def test_a_repeated_passage_counts_once_and_without_spaces():
    passage = "ten words make one passage that is here two times"  # 40 letters
    text = f"{passage} {passage} " + " ".join(f"word{number}" for number in range(20))
    shares = {"top_n_grams": None, "dup_n_grams": [[10, 40 / len(text)]]}
    assert verdict(text, **shares) is None
    assert verdict(text, **{**shares, "dup_n_grams": [[10, 39 / len(text)]]}) == "repeated 10-grams"


def test_null_takes_out_every_rule():
    assert verdict("a a a a\n\na a a a\n\na a a a", **LINES_OFF, top_n_grams=None, dup_n_grams=None) is None


@pytest.mark.parametrize("text", [" \n", "...", "word", "\n\n\n"])
def test_documents_of_hardly_a_word_are_looked_at_too(text):
    verdict(text)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("dup_line_frac", 2),
        ("dup_para_frac", "much"),
        ("top_n_grams", 0.2),
        ("dup_n_grams", [[0, 0.1]]),
        ("dup_n_grams", [5]),
    ],
)
def test_a_wrong_option_is_refused(key, value):
    with pytest.raises(ConfigError, match=rf"corpus\.steps\.gopher_repetition\.{key}="):
        GopherRepetition(**{key: value})


def test_its_settings_are_plain_json():
    step = GopherRepetition(top_n_grams=[(3, 0.1), (2, 0.2)])
    assert json.loads(json.dumps(step.settings())) == step.settings()
    assert pickle.loads(pickle.dumps(step)).settings() == step.settings()
