"""The language of a document is compared with that of its source, by the model that comes with a package."""

import pickle

import pytest
from datatrove.data import Document

from lumi.corpus.steps import Language
from lumi.corpus.steps.language import _sample
from lumi.corpus.steps.step import LANGUAGE
from lumi.errors import ConfigError

ENGLISH = "It was a bright cold day in April, and the clocks were striking thirteen when he came home."
GERMAN = "Es war ein klarer, kalter Tag im April, und die Uhren schlugen gerade dreizehn, als er nach Hause kam."


def verdict(text: str, wanted: str | None = "en", **options) -> str | None:
    metadata = {} if wanted is None else {LANGUAGE: wanted}
    return Language(**options).apply(Document(text=text, id="", metadata=metadata))


@pytest.mark.parametrize(
    ("text", "wanted", "expected"),
    [
        (ENGLISH, "en", None),
        (ENGLISH.upper(), "en", None),
        (GERMAN, "de", None),
        (GERMAN, "en", "other language"),
        (ENGLISH, "de", "other language"),
        ("今天天气很好，我们一起去公园散步吧。", "en", "other language"),
        (GERMAN, None, None),
    ],
)
def test_the_language_of_the_source_is_wanted(text, wanted, expected):
    assert verdict(text, wanted) == expected


def test_what_the_model_cannot_tell_is_left_out_unless_all_is_accepted():
    assert verdict("12 34 56") == "unsure language"
    assert verdict("12 34 56", min_score=None) is None


def test_line_breaks_do_not_matter():
    assert verdict(ENGLISH.replace(" ", "\n")) is None


def test_a_long_document_is_judged_by_its_beginning_middle_and_end():
    assert _sample("a" * 50 + "b" * 50 + "c" * 50, 30) == f"{'a' * 10} {'b' * 10} {'c' * 10}"
    assert _sample("a\nb", 30) == "a b"


def test_a_german_document_with_an_english_preface_is_no_english_document():
    assert verdict(ENGLISH * 5 + GERMAN * 50) == "other language"


@pytest.mark.parametrize(("key", "value"), [("min_score", 1.5), ("min_score", "high"), ("sample_chars", 0)])
def test_a_wrong_option_is_refused(key, value):
    with pytest.raises(ConfigError, match=rf"corpus\.steps\.language\.{key}={value!r}"):
        Language(**{key: value})


def test_the_model_is_not_sent_with_the_step():
    step = Language()
    step.apply(Document(text=ENGLISH, id="", metadata={LANGUAGE: "en"}))
    assert len(pickle.dumps(step)) < 10_000
