"""Cleaning mends what is broken, leaves what is fine, and does the same again to its own work."""

import pickle
import time

import pytest
from datatrove.data import Document
from ftfy.badness import BADNESS_RE, is_bad
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lumi.corpus.steps import Clean
from lumi.corpus.steps.clean import _SUSPECT
from lumi.corpus.text import text_fault
from lumi.errors import ConfigError

OPTIONS = {
    "mojibake": st.booleans(),
    "unicode": st.sampled_from(["NFC", "NFKC", None]),
    "control_characters": st.booleans(),
    "whitespace": st.booleans(),
    "urls": st.sampled_from(["keep", "remove"]),
    "code": st.sampled_from(["keep", "remove"]),
    "gutenberg": st.booleans(),
}
PIECES = [
    "a", "b.", "word", "(", ")", "[", "]", "<", ">", " ", "  ", "\t", "\n", "\n\n", "\n\n\n", "\r", "\x0c", "\x85", "\u2028",
    "\xa0", "\xad", "\u200b", "\ufeff", "“", "”", "—", "…", "ﬁ", "½", "´", "ﷺ", "é", "e\u0301", "\u0301", "Ã©", "Â ", "Ã ",
    "â€œ", "â€\x9d", "À\x80", "í\xa0\x80", "http://", "www.x.org", "https://a.b/c_(d)", "[a](http://x.y)", "```", "```py\n",
    "~~~", "    x = f(1)\n", "    The moon\n", "\tdef f():\n", "Produced by A B\n\n", "[Transcriber's Note: x]",
    "Transcriber's Notes:\n", "*** START OF THE PROJECT GUTENBERG EBOOK X ***\n", "End of Project Gutenberg's X\n",
]  # fmt: skip
CHARACTERS = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
MOJIBAKE = st.text(CHARACTERS, max_size=4).map(lambda text: text.encode().decode("latin-1"))
TEXTS = st.lists(st.sampled_from(PIECES) | MOJIBAKE | st.text(CHARACTERS, max_size=4), max_size=20).map("".join)

BOOK = """The Project Gutenberg EBook of Rain, by A. Nobody
Title: Rain

*** START OF THIS PROJECT GUTENBERG EBOOK RAIN, AND WHAT
CAME AFTER IT ***

Produced by A. Volunteer and
the Online Distributed Proofreading Team

[Transcriber's Note: italics are
_so_.]

RAIN

It rained on the hills, the fields and the sea. [Transcriber's Note: sic.]

THE END

Transcriber's Notes:

Page 3: "teh" was changed to "the".

End of Project Gutenberg's Rain, by A. Nobody

*** END OF THIS PROJECT GUTENBERG EBOOK RAIN ***
You may copy it."""


def clean(text: str, **options) -> str | None:
    document = Document(text=text, id="")
    return document.text if Clean(**options).apply(document) is None else None


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(text=TEXTS, options=st.fixed_dictionaries(OPTIONS))
def test_cleaning_a_cleaned_text_changes_nothing_and_it_obeys_the_rules(text, options):
    once = clean(text, **options)
    if once is not None:
        assert text_fault(once) is None
        assert clean(once, **options) == once


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.from_regex(BADNESS_RE))
def test_every_text_that_ftfy_finds_bad_is_suspect(text):
    assert is_bad(text)
    assert _SUSPECT.search(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cafÃ© â€œquotedâ€\x9d", "café “quoted”"),
        ("won\x92t", "won’t"),
        ("e\u0301t\u00e9", "été"),
        ("exam\xadple\ufeff and\u200b more\u202e", "example and more"),
        ("a\x00b\x07c\x7f\x9bd", "abc›d"),
        ("one\x0ctwo\u2028three\r\nfour", "one\ntwo\nthree\nfour"),
        ("a\xa0b\u2003c\u3000d", "a b c d"),
        ("    deep\t \n\n\n\n\tdeeper  ", "    deep\n\n\tdeeper"),
    ],
)
def test_each_rule_mends_its_fault(text, expected):
    assert clean(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "Plain ASCII.\n\n    with  indentation,\ttabs and two  spaces.\n",
        "“Curly,” she said — ‘and “nested.”’…",
        "Łódź, Ångström, naïveté, Œuvre, São Paulo, 10³ €",
        "“Да,” — сказал он. Ελληνικά, 日本語。",
        "👩\u200d👩\u200d👧 می\u200cخواهم",
    ],
)
def test_a_text_that_is_fine_stays_as_it_is(text):
    assert clean(text) == text


@pytest.mark.parametrize(
    ("option", "value", "text"),
    [
        ("mojibake", False, "cafÃ©"),
        ("unicode", None, "e\u0301"),
        ("control_characters", False, "a\u200bb"),
        ("whitespace", False, "a \n\n\n\xa0b"),
        ("urls", "keep", "see http://a.b/c"),
        ("code", "keep", "```\nx = 1\n```"),
        ("gutenberg", False, BOOK),
    ],
)
def test_every_rule_can_be_left_out(option, value, text):
    assert clean(text, **{option: value}) == text


def test_variants_of_characters_are_replaced_only_on_request():
    assert clean("ﬁve") == "ﬁve"
    assert clean("ﬁve", unicode="NFKC") == "five"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("see http://a.b/c?d=e, and", "see, and"),
        ("(at https://en.wikipedia.org/wiki/A_(b)).", "(at)."),
        ("go to www.example.org.", "go to."),
        ("read <ftp://a.b/c> now", "read now"),
        ("a [link](https://a.b/c 'title') here", "a link here"),
        ("write to me@a.org or call awww.no", "write to me@a.org or call awww.no"),
    ],
)
def test_addresses_are_removed_with_the_space_before_them(text, expected):
    assert clean(text, urls="remove") == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A:\n\n```python\nx = 1\n```\n\nB.", "A:\n\nB."),
        ("A\n~~~~\n```\n~~~\n~~~~\nB", "A\nB"),
        ("A\n```\nnever closed", "A\n```\nnever closed"),
        ("A:\n\n    def f(x):\n\n        return x\n\nB.", "A:\n\nB."),
        ("A:\n\n    x = 1\n\nB.", "A:\n\n    x = 1\n\nB."),
        (
            "A:\n\n    The moon is high;\n    the sea is low.\n\nB.",
            "A:\n\n    The moon is high;\n    the sea is low.\n\nB.",
        ),
    ],
)
def test_code_is_removed_and_verse_is_not(text, expected):
    assert clean(text, code="remove") == expected


def test_of_a_gutenberg_book_the_book_stays():
    assert clean(BOOK, gutenberg=True) == "RAIN\n\nIt rained on the hills, the fields and the sea.\n\nTHE END\n\n"


@pytest.mark.parametrize(
    "text",
    [
        "Licence\n*END*THE SMALL PRINT! FOR PUBLIC DOMAIN ETEXTS*Ver.04.29.93*END*\nIt rained.",
        "Produced by David Widger\n\n\nIt rained.",
        "Transcriber's note:\n\nItalics are _so_.\n\nIt rained.",
        "It rained.\nEnd of the Project Gutenberg Etext of Rain\nYou may copy it.",
        "***START OF THE PROJECT GUTENBERG EBOOK RAIN***\nIt rained.\n***END OF THE PROJECT GUTENBERG EBOOK RAIN***\nBye.",
    ],
)
def test_older_forms_of_gutenberg_are_known(text):
    cleaned = clean(text, gutenberg=True)
    assert cleaned is not None
    assert cleaned.strip() == "It rained."


def test_two_books_in_one_file_both_stay():
    second = BOOK.replace("It rained", "It snowed")
    cleaned = clean(f"{BOOK}\n\n{second}", gutenberg=True)
    assert cleaned is not None
    assert "It rained" in cleaned
    assert "It snowed" in cleaned
    assert "Gutenberg" not in cleaned


@pytest.mark.parametrize("text", ["\u200b\ufeff", " \xa0\n", "\x00\x01"])
def test_a_document_of_which_nothing_is_left_keeps_its_text(text):
    document = Document(text=text, id="")
    assert Clean().apply(document) == "nothing left"
    assert document.text == text


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000 + "http://",
        "[a](http://" + "x" * 100_000,
        "http://" + "(" * 100_000,
        "http://" + ".)" * 50_000,
        " " * 100_000 + "x",
        "-\n" * 50_000 + "Transcriber",
        "```a\n" * 20_000,
        "    x\n\n" * 20_000,
    ],
    ids=range(8),
)
def test_no_text_takes_long(text):
    start = time.perf_counter()
    clean(text, urls="remove", code="remove", gutenberg=True)
    assert time.perf_counter() - start < 5  # what is quadratic takes minutes


@pytest.mark.parametrize(
    ("key", "value"), [("unicode", "NFD"), ("urls", "drop"), ("code", True), ("whitespace", "yes")]
)
def test_a_wrong_option_is_refused(key, value):
    with pytest.raises(ConfigError, match=rf"corpus\.steps\.clean\.{key}={value!r}"):
        Clean(**{key: value})


def test_it_crosses_a_process_border_after_use():
    step = Clean(urls="remove")
    step.apply(Document(text="cafÃ©", id=""))
    assert pickle.loads(pickle.dumps(step)).settings() == step.settings()
