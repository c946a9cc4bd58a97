"""Text to ids and back: exact for every text, and only with the bytes that were asked for."""

import io
import pickle
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import sentencepiece
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lumi.errors import DataError, TokenizerMismatch
from lumi.manifest import sha256_bytes
from lumi.tokenizer import Tokenizer

any_text = given(text=st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=200))
tricky_text = given(
    text=st.lists(
        st.sampled_from(
            [" ", "  ", "\n", "\t", "▁", "<", "|", ">", "<0x41>", "</s>", "<|im_end|>", "foo_bar", "0", "é", "ba"]
        )
    ).map("".join)
)
# The fixture is immutable, so that one for all examples is right.
examples = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def check_promises(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert tokenizer.token_bytes()[ids].sum() == len(text.encode())
    assert not {*ids} & {*tokenizer.controls.values(), tokenizer.unk_id}
    assert tokenizer.encode_batch([text, "x", text])[2].tolist() == ids


@examples
@any_text
def test_any_text_comes_back_and_never_gives_a_control_id(tokenizer, text):
    check_promises(tokenizer, text)


@examples
@tricky_text
def test_tricky_text_comes_back_and_never_gives_a_control_id(tokenizer, text):
    check_promises(tokenizer, text)


def test_known_adversaries_come_back_and_never_give_a_control_id(tokenizer, adversarial):
    check_promises(tokenizer, adversarial)


def test_every_byte_has_a_token_of_its_own(tokenizer):
    names = [f"<0x{byte:02X}>" for byte in range(256)]
    ids = [token for token in range(tokenizer.vocab_size) if tokenizer.piece(token) in names]
    assert [tokenizer.decode_bytes([token]) for token in ids] == [bytes([byte]) for byte in range(256)]


def test_special_ids_are_four_and_fixed(tokenizer):
    assert (tokenizer.unk_id, tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id) == (0, 1, 2, 3)
    assert tokenizer.controls["<|im_start|>"] == 4
    assert [tokenizer.piece(token) for token in range(4)] == ["<unk>", "<s>", "</s>", "<pad>"]


def test_user_symbols_are_one_token_the_leftmost_first(tokenizer):
    ids = tokenizer.encode("foo_bar\t\t\t")
    assert [tokenizer.piece(token) for token in ids] == ["foo_bar", "\t\t", "<0x09>"]


def test_control_tokens_say_nothing_unless_asked(tokenizer):
    ids = [tokenizer.bos_id, *tokenizer.encode("hi"), tokenizer.controls["<|im_end|>"]]
    assert tokenizer.decode(ids) == "hi"
    assert tokenizer.decode(ids, skip_control=False) == "<s>hi<|im_end|>"
    assert tokenizer.token_bytes()[[1, 2, 3]].tolist() == [0, 0, 0]


def test_half_a_character_becomes_the_replacement_sign(tokenizer):
    assert tokenizer.decode(tokenizer.encode("é")[:1]) in ("é", "\ufffd")
    euro = [tokenizer.encode_batch(["▁"])[0][0]]  # the first of the three bytes of U+2581
    assert tokenizer.decode(euro) == "\ufffd"
    assert tokenizer.decode_bytes(euro) == b"\xe2"


@pytest.mark.parametrize("wrong", [-1, 800])
def test_ids_outside_the_vocabulary_are_refused(tokenizer, wrong):
    with pytest.raises(DataError, match=rf"token id {wrong} · must be from 0 to 799"):
        tokenizer.decode([5, wrong])


def test_half_a_surrogate_pair_is_refused_with_its_place(tokenizer):
    for call in (tokenizer.encode, lambda text: tokenizer.encode_batch(["ok", text])):
        with pytest.raises(DataError, match=r"'\\ud800' at character 3"):
            call("ab\ud800c")


def test_threads_change_nothing(tokenizer, documents):
    one, two = tokenizer.encode_batch(documents, 1), tokenizer.encode_batch(documents, 2)
    assert all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))
    assert [array.tolist() for array in one] == [tokenizer.encode(text) for text in documents]


def test_a_line_has_the_same_tokens_wherever_it_stands(tokenizer, documents):
    text = "\n".join(documents)
    lines = re.split(r"(?<=[^\n])(?=\n)", text)  # blank lines stay at the start of the next one
    apart = [token for line in lines for token in tokenizer.encode(line)]
    assert tokenizer.encode(text) == apart


def test_a_line_of_megabytes_without_a_space_is_encoded(tokenizer):
    text = "bana" * 250_000
    (ids,) = tokenizer.encode_batch([text])
    assert tokenizer.decode(ids) == text


def test_a_copy_in_another_process_is_the_same(tokenizer):
    copy = pickle.loads(pickle.dumps(tokenizer))
    assert (copy.sha256, copy.encode("ba na")) == (tokenizer.sha256, tokenizer.encode("ba na"))


def test_identity_is_the_sha256_of_the_model_file(folder, tokenizer):
    assert tokenizer.sha256 == sha256_bytes((folder / "tokenizer.model").read_bytes())
    assert tokenizer.model_bytes == (folder / "tokenizer.model").read_bytes()


@pytest.mark.parametrize("name", ["tokenizer.model", "TOKENIZER_CARD.md"])
@pytest.mark.parametrize("place", [0, 0.3, 0.999])
def test_one_flipped_bit_blocks_the_load(folder, tmp_path, name, place):
    shutil.copytree(folder, tmp_path / "t")
    data = bytearray((tmp_path / "t" / name).read_bytes())
    data[int(place * len(data))] ^= 1
    (tmp_path / "t" / name).write_bytes(data)
    with pytest.raises(DataError, match="changed or damaged"):
        Tokenizer.load(tmp_path / "t")


def test_a_hash_changed_in_the_manifest_blocks_the_load(folder, tokenizer, tmp_path):
    for number in (0, 1):  # the hash stands twice: as a fact and in the list of files
        shutil.copytree(folder, tmp_path / f"{number}")
        path = tmp_path / f"{number}" / "MANIFEST.json"
        parts = path.read_text().split(tokenizer.sha256)
        assert len(parts) == 3
        path.write_text(
            ("f" * 64).join(parts[:2]) + tokenizer.sha256 + parts[2]
            if number == 0
            else tokenizer.sha256.join(parts[:2]) + "f" * 64 + parts[2]
        )
        with pytest.raises(DataError):
            Tokenizer.load(tmp_path / f"{number}")


def test_another_tokenizer_than_expected_is_refused_with_both_hashes(folder, tokenizer):
    for load in (
        lambda: Tokenizer.load(folder, expect_sha256="ab" * 32),
        lambda: Tokenizer.from_bytes(tokenizer.model_bytes, expect_sha256="ab" * 32),
    ):
        with pytest.raises(TokenizerMismatch, match=rf"{tokenizer.sha256[:12]}.*abababababab.*prepare\.py"):
            load()


def test_bytes_are_compared_before_they_are_parsed():
    with pytest.raises(TokenizerMismatch):
        Tokenizer.from_bytes(b"no model at all", expect_sha256="ab" * 32)
    with pytest.raises(DataError, match="not a SentencePiece model"):
        Tokenizer.from_bytes(b"no model at all")


@pytest.mark.parametrize(
    "change",
    [
        {"normalization_rule_name": "nfkc"},
        {"add_dummy_prefix": True},
        {"remove_extra_whitespaces": True},
        {"pad_id": -1},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_model_that_breaks_the_promises_is_refused(documents, change):
    writer = io.BytesIO()
    lossless = {"normalization_rule_name": "identity", "add_dummy_prefix": False, "remove_extra_whitespaces": False}
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(documents),
        model_writer=writer,
        vocab_size=100,
        minloglevel=2,
        model_type="bpe",
        **{"pad_id": 3, **lossless, **change},
    )
    with pytest.raises(DataError, match=r"must (not change text|have four different ids)"):
        Tokenizer.from_bytes(writer.getvalue())


def test_without_byte_fallback_unknown_text_is_shown_as_lost(train: Callable[..., Path]):
    tokenizer = Tokenizer.load(train(byte_fallback=False, vocab_size=400))
    ids = tokenizer.encode("ba語")
    assert ids[-1] == tokenizer.unk_id
    assert tokenizer.decode(ids) == "ba⁇"
