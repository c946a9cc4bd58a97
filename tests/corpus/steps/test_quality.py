"""Quality rules decide as datatrove's filters do, given the same words."""

import json
import pickle
import random
from pydoc_data.topics import topics  # real prose that every Python has
from typing import Any

import pytest
from datatrove.data import Document
from datatrove.pipeline.filters.c4_filters import C4QualityFilter
from datatrove.pipeline.filters.fineweb_quality_filter import FineWebQualityFilter
from datatrove.pipeline.filters.gopher_quality_filter import GopherQualityFilter
from hypothesis import given, settings
from hypothesis import strategies as st

from lumi.corpus.steps import C4Quality, FineWebQuality, GopherQuality
from lumi.corpus.steps.step import Step
from lumi.corpus.steps.word_tokenizer import SpacedWords
from lumi.errors import ConfigError

WORDS: Any = SpacedWords()
REASONS = {
    "gopher_short_doc": "too few words",
    "gopher_long_doc": "too many words",
    "gopher_below_avg_threshold": "short words",
    "gopher_above_avg_threshold": "long words",
    "gopher_too_many_hashes": "too many hash signs",
    "gopher_too_many_ellipsis": "too many ellipses",
    "gopher_too_many_bullets": "too many bullets",
    "gopher_too_many_end_ellipsis": "too many lines with ellipses",
    "gopher_below_alpha_threshold": "too few words with letters",
    "gopher_enough_stop_words": "too few stop words",
    "lorem_ipsum": "lorem ipsum",
    "curly_bracket": "curly bracket",
    "too_few_sentences": "too few sentences",
    "empty": "no lines",
    "line_punct_ratio": "too few lines with end punctuation",
    "short_line_ratio": "too many short lines",
    "char_dup_ratio": "repeated lines",
    "list_ratio": "too many newlines",
}
SIGNS = [
    "-", "•", "#", "...", "…", "|", "12", "½", "№", "Ⅷ", "१२", "_", "—", "“x”", "«да»", "日本語", "don't", "the", "and", "of",
    "to", "be", "Javascript", "java[2]script", "{x}", "lorem ipsum", "Privacy policy", "use cookies", "[1]", "[edit]",
    "[citation needed]", "end.", 'End."', "Why?", "No!", "Well...", "Mr.", "J.", "Smith", "\u3000", "\x85", "\x0b",
]  # fmt: skip
TEXTS = st.lists(st.sampled_from([*SIGNS, "\n", "\n\n", "\t"]), min_size=1, max_size=50).map(" ".join).filter(str.strip)
PROSE = "The cat and the dog have to be friends, that is what they say. "


def verdict(step: Step, text: str) -> tuple[str | None, str]:
    document = Document(text=text, id="")
    return step.apply(document), document.text


def datatrove_verdict(rules: Any, text: str) -> tuple[str | None, str]:
    document = Document(text=text, id="")
    result = rules.filter(document)
    reason = REASONS[result[1]] if isinstance(result, tuple) else None
    # A document that only C4's own code would keep, with nothing in it.
    return (reason, document.text) if document.text else ("nothing left", text)


def prose_and_worse() -> list[str]:
    """Pieces of prose, and what chance makes of them and of signs."""
    rng = random.Random(0)
    text = "\n".join(topics.values())
    pieces = [text[start : start + 1600] for start in range(0, 200_000, 1600)]
    wide = [piece.replace("\n   ", " ").replace("\n\n", "\n") for piece in pieces]
    noisy = [
        " ".join(rng.choice([*SIGNS, "\n"]) if rng.random() < rng.random() / 2 else word for word in piece.split(" "))
        for piece in wide
    ]
    return pieces + wide + noisy + [piece[: rng.randrange(1, 300)] for piece in wide]


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (GopherQuality(), GopherQualityFilter(language=WORDS)),
        (C4Quality(), C4QualityFilter(language=WORDS)),
        (C4Quality(split_paragraph=False), C4QualityFilter(language=WORDS, split_paragraph=False)),
        (FineWebQuality(), FineWebQualityFilter(language=WORDS)),
    ],
)
def test_decisions_on_prose_and_worse_are_those_of_datatrove(ours, theirs):
    texts = prose_and_worse()
    verdicts = [verdict(ours, text) for text in texts]
    assert verdicts == [datatrove_verdict(theirs, text) for text in texts]
    assert len({reason for reason, _ in verdicts}) >= 3


@settings(max_examples=200, deadline=None)
@given(TEXTS, st.sampled_from([1, 5, 20]), st.sampled_from([0.05, 0.3, 0.7]))
def test_gopher_on_any_signs_decides_as_datatrove(text, count, ratio):
    options = {
        "min_doc_words": count, "min_avg_word_length": 1 + 3 * ratio, "max_avg_word_length": 2 + 3 * ratio,
        "max_symbol_word_ratio": ratio, "max_bullet_lines_ratio": ratio, "max_ellipsis_lines_ratio": ratio,
        "min_stop_words": 1,
    }  # fmt: skip
    theirs = GopherQualityFilter(language=WORDS, max_non_alpha_words_ratio=ratio, **options)
    assert verdict(GopherQuality(min_alpha_words_ratio=ratio, **options), text) == datatrove_verdict(theirs, text)


@settings(max_examples=200, deadline=None)
@given(TEXTS, st.fixed_dictionaries({
    "split_paragraph": st.booleans(), "remove_citations": st.booleans(), "filter_no_terminal_punct": st.booleans(),
    "filter_lorem_ipsum": st.booleans(), "filter_javascript": st.booleans(), "filter_curly_bracket": st.booleans(),
    "filter_policy": st.booleans(), "min_num_sentences": st.sampled_from([None, 1, 3]),
    "min_words_per_line": st.sampled_from([None, 2]), "max_word_length": st.sampled_from([None, 5]),
}))  # fmt: skip
def test_c4_on_any_signs_decides_as_datatrove(text, options):
    theirs: Any = {key: -1 if value is None else value for key, value in options.items()}
    theirs = C4QualityFilter(language=WORDS, **theirs)
    assert verdict(C4Quality(**options), text) == datatrove_verdict(theirs, text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (PROSE * 4, None),
        (PROSE * 3, "too few words"),  # 3 * 14
        ("a " * 60, "short words"),
        ("unbelievable " * 60, "long words"),
        ((PROSE + "# # ") * 4, "too many hash signs"),
        ((PROSE + "well... ah... ") * 4, "too many ellipses"),
        ("- The cat and the dog have to be friends.\n" * 6, "too many bullets"),
        ("The cat and the dog have to be so very good friends...\n" * 5, "too many lines with ellipses"),
        ("2024 and then the 1999 " * 20, "too few words with letters"),
        ("some words without any use here now " * 10, "too few stop words"),
    ],
)
def test_each_rule_of_gopher_has_its_reason(text, expected):
    assert verdict(GopherQuality(), text) == (expected, text)


def test_c4_keeps_the_lines_that_are_sentences():
    kept = "Is it two, then? Yes.\nTwo more are here. And here."
    text = f"Home | About\n  One is here[1].\nTwo words.\nWe use cookies here.\n{kept}"
    assert verdict(C4Quality(), text) == (None, f"One is here.\n{kept}")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (PROSE * 4, "too few sentences"),
        (PROSE * 5 + "\nLorem ipsum dolor sit.", "lorem ipsum"),
        (PROSE * 5 + "\nAnd then { is here.", "curly bracket"),
    ],
)
def test_each_rule_of_c4_has_its_reason(text, expected):
    assert verdict(C4Quality(), text) == (expected, text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("\n".join(f"{PROSE}{number}." for number in range(3)), None),
        ("one\ntwo\nthree", "too few lines with end punctuation"),
        ("One.\nTwo.\nThree.", "too many short lines"),
        (f"{PROSE.strip()}\n{PROSE.strip()}", "repeated lines"),
        ("".join(f"\n\n\nThe {number}th of many very long lines.." for number in range(3)), "too many newlines"),
    ],
)
def test_each_rule_of_fineweb_has_its_reason(text, expected):
    assert verdict(FineWebQuality(), text) == (expected, text)


@pytest.mark.parametrize("kind", [GopherQuality, C4Quality, FineWebQuality])
def test_null_takes_out_every_rule(kind):
    thresholds = dict.fromkeys((*kind._counts, *kind._shares))
    switches = {key: False for key, value in vars(kind()).items() if key.startswith("filter_") and value is True}
    assert verdict(kind(**thresholds, **switches), "# { - ...") == (None, "# { - ...")


def test_c4_leaves_out_a_document_of_which_nothing_is_left():
    assert verdict(C4Quality(min_num_sentences=None), "no end") == ("nothing left", "no end")


@pytest.mark.parametrize(
    ("kind", "key", "value"),
    [
        (GopherQuality, "min_doc_words", 0),
        (GopherQuality, "max_symbol_word_ratio", -1),
        (C4Quality, "min_num_sentences", -1),
        (C4Quality, "max_word_length", "long"),
        (FineWebQuality, "line_punct_thr", True),
        (FineWebQuality, "short_line_length", 2.5),
    ],
)
def test_a_wrong_option_is_refused(kind, key, value):
    with pytest.raises(ConfigError, match=rf"corpus\.steps\.{kind.name}\.{key}={value!r}"):
        kind(**{key: value})


@pytest.mark.parametrize("kind", [GopherQuality, C4Quality, FineWebQuality])
def test_a_step_crosses_a_process_border_after_use(kind):
    step = kind()
    step.apply(Document(text=PROSE * 5, id=""))
    copy = pickle.loads(pickle.dumps(step))
    assert json.loads(json.dumps(copy.settings())) == step.settings()
    assert verdict(copy, PROSE * 5) == verdict(step, PROSE * 5)


def test_initials_and_titles_end_no_sentence():
    sentences = SpacedWords().sent_tokenize('Mr. J. Smith went home. "Why?" he asked. "So." Nobody knew… Well! 3 knew.')
    assert sentences == ["Mr. J. Smith went home.", '"Why?" he asked.', '"So."', "Nobody knew…", "Well!", "3 knew."]
