"""What a stream of text gives out, against decoding everything at once."""

import random
import time

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from lumi.errors import ConfigError, DataError
from lumi.serve.text import TextStream
from lumi.tokenizer import Tokenizer, TokenizerConfig, train_tokenizer

V = 330
SYLLABLES = ["ba", "do", "ké", "li", "mu", "😀"]


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory) -> Tokenizer:
    rng = random.Random(0)
    words = ["".join(rng.choices(SYLLABLES, k=rng.randint(1, 3))) for _ in range(2000)]
    folder = tmp_path_factory.mktemp("tokenizer") / "t"
    train_tokenizer(lambda: iter([" ".join(words)]), folder, TokenizerConfig(name="t", vocab_size=V), parents={})
    return Tokenizer.load(folder)


@pytest.fixture(scope="session")
def byte(tokenizer) -> dict[int, int]:
    """Byte → the token that stands for it alone."""
    names = {piece.text: token for token, piece in enumerate(tokenizer.pieces) if piece.kind == "byte"}
    return {value: names[f"<0x{value:02X}>"] for value in range(256)}


def spell(byte, text: str | bytes) -> list[int]:
    return [byte[value] for value in (text.encode() if isinstance(text, str) else text)]


def cut_slowly(text: str, stops: list[str]) -> tuple[str, str | None]:
    """Look at every beginning of the text, from the shortest."""
    for end in range(len(text) + 1):
        for stop in sorted(stops, key=len, reverse=True):
            if text[:end].endswith(stop):
                return text[: end - len(stop)], stop
    return text, None


def pushed(stream: TextStream, tokens: list[int]) -> list[str]:
    return [*(stream.push(token) for token in tokens), stream.finish()]


# Few different bytes, whole and half characters among them: so that stop strings, leads and broken UTF-8 really occur.
BYTES = st.sampled_from([*b"aaabb \n\x00", 0xC3, 0xA9, 0xE2, 0x82, 0xAC, 0xF0, 0x9F, 0x98, 0x80, 0xED, 0xA0, 0xFF])
STOPS = st.lists(st.text(st.sampled_from("ab \né€\ufffd"), min_size=1, max_size=5), max_size=4)
LEADS = st.sampled_from(["", " ", "ab", "aab", "é", "\ufffd"])


@settings(max_examples=400, deadline=None)
@given(st.lists(BYTES, max_size=40), st.lists(st.integers(0, V - 1), max_size=6), STOPS, LEADS)
@example(list(b"aab"), [], ["aab", "ab"], "")
def test_what_is_given_out_is_the_decoded_text_without_lead_up_to_the_stop(
    tokenizer, byte, values, others, stops, lead
):
    tokens = [*spell(byte, bytes(values)), *others, *spell(byte, bytes(values[:5]))]
    text, stop = cut_slowly(tokenizer.decode(tokens).removeprefix(lead), stops)
    stream = TextStream(tokenizer, lead=lead, stop=stops)
    assert "".join(pushed(stream, tokens)) == stream.text == text
    assert stream.stopped == stop


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, V - 1), max_size=60), st.data())
def test_arbitrary_tokens_with_a_stop_string_taken_from_their_text(tokenizer, tokens, data):
    text = tokenizer.decode(tokens)
    assume(text)
    start = data.draw(st.integers(0, len(text) - 1))
    stop = text[start : start + data.draw(st.integers(1, 8))]
    stream = TextStream(tokenizer, stop=[stop])
    assert "".join(pushed(stream, tokens)) == text[: text.index(stop)]
    assert stream.stopped == stop


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=30), st.binary(max_size=30))
def test_text_given_out_is_certain_whatever_follows(tokenizer, byte, first, then):
    stream = TextStream(tokenizer, stop=["ab", "\ufffd\ufffd"])
    given_out = "".join(stream.push(token) for token in spell(byte, first))
    whole, _ = cut_slowly((first + then).decode(errors="replace"), ["ab", "\ufffd\ufffd"])
    assert whole.startswith(given_out)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=60))
def test_the_pieces_of_a_text_give_what_its_bytes_give(tokenizer, byte, text):
    whole = [TextStream(tokenizer, stop=["a\n"]) for _ in range(2)]
    assert "".join(pushed(whole[0], tokenizer.encode(text))) == "".join(pushed(whole[1], spell(byte, text)))


def test_a_character_comes_when_its_last_byte_has_come(tokenizer, byte):
    assert pushed(TextStream(tokenizer), spell(byte, "a😀b")) == ["a", "", "", "", "😀", "b", ""]


def test_a_text_that_ends_within_a_character_ends_with_a_replacement(tokenizer, byte):
    assert pushed(TextStream(tokenizer), spell(byte, b"a\xf0\x9f")) == ["a", "", "", "\ufffd"]


def test_the_beginning_of_a_stop_string_is_held_until_it_is_none(tokenizer, byte):
    stream = TextStream(tokenizer, stop=["\nUser:"])
    assert pushed(stream, spell(byte, "a\nUs\nb")) == ["a", "", "", "", "\nUs", "\nb", ""]


def test_held_text_comes_at_the_end(tokenizer, byte):
    assert pushed(TextStream(tokenizer, stop=["\nUser:"]), spell(byte, "a\nU")) == ["a", "", "", "\nU"]


def test_nothing_comes_after_a_stop_string(tokenizer, byte):
    stream = TextStream(tokenizer, stop=["x", "bc"])
    assert pushed(stream, spell(byte, "abcdx")) == ["a", "", "", "", "", ""]
    assert stream.stopped == "bc"


def test_the_first_complete_stop_string_wins_and_of_two_the_longer(tokenizer, byte):
    stream, longer = TextStream(tokenizer, stop=["abcd", "bc"]), TextStream(tokenizer, stop=["bc", "abc"])
    assert "".join(pushed(stream, spell(byte, "abcd"))) == "a"
    assert "".join(pushed(longer, spell(byte, "abcd"))) == ""
    assert (stream.stopped, longer.stopped) == ("bc", "abc")


def test_only_the_first_lead_is_taken_off(tokenizer, byte):
    assert pushed(TextStream(tokenizer, lead="  "), spell(byte, "   a  ")) == ["", "", " ", "a", " ", " ", ""]
    assert pushed(TextStream(tokenizer, lead="  "), spell(byte, " a")) == ["", " a", ""]
    assert pushed(TextStream(tokenizer, lead="  "), spell(byte, " ")) == ["", " "]


def test_control_tokens_give_no_text_but_have_a_name(tokenizer):
    stream = TextStream(tokenizer)
    assert pushed(stream, [tokenizer.eos_id]) == ["", ""]
    assert stream.token_text(tokenizer.eos_id) == "</s>"


def test_the_texts_of_the_tokens_of_ascii_add_up(tokenizer):
    stream = TextStream(tokenizer)
    assert "".join(stream.token_text(token) for token in tokenizer.encode("ba do 12\n")) == "ba do 12\n"


def test_an_empty_stop_string_is_refused(tokenizer):
    with pytest.raises(ConfigError, match="empty string"):
        TextStream(tokenizer, stop=["a", ""])


def test_a_token_outside_the_vocabulary_is_named(tokenizer):
    with pytest.raises(DataError, match="token id 330"):
        TextStream(tokenizer).push(V)


def test_the_ten_thousandth_token_costs_what_the_first_did(tokenizer, byte):
    stream, tokens = TextStream(tokenizer, stop=["a" * 500]), spell(byte, ("a" * 499 + "b") * 40)

    def seconds(part: list[int]) -> float:
        start = time.process_time()
        for token in part:
            stream.push(token)
        return time.process_time() - start

    parts = [seconds(tokens[first : first + 500]) for first in range(0, len(tokens), 500)]
    # Decoding all again would cost 40 times the first part; the least of several, because other work is going on.
    assert min(parts[-10:]) < 5 * min(parts[:10])
