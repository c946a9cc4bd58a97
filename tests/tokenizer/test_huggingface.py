"""Hugging Face's own code gives the same ids for the same text."""

import random
from pathlib import Path
from typing import Any

import pytest

from lumi.tokenizer import Tokenizer, to_huggingface

TRICKY = [
    " ",
    "  ",
    "\n",
    "\n\n",
    "\t",
    "▁",
    "<",
    "|",
    ">",
    "<0x41>",
    "</s>",
    "<unk>",
    "<|im_end|>",
    "foo_bar",
    "0",
    "é",
    "😀",
]


@pytest.fixture(scope="session")
def hub(folder: Path, tokenizer: Tokenizer) -> Any:
    """The exported tokenizer as transformers loads it; the import takes seconds, hence once a session."""
    from transformers import AutoTokenizer

    to_huggingface(tokenizer, folder.with_name(f"{folder.name}-hub"))
    return AutoTokenizer.from_pretrained(folder.with_name(f"{folder.name}-hub"))


def as_text(hub: Any, text: str) -> list[int]:
    return hub.encode(text, add_special_tokens=False, split_special_tokens=True)


def test_adversaries_have_the_same_ids(hub, tokenizer, adversarial):
    assert as_text(hub, adversarial) == tokenizer.encode(adversarial)


@pytest.mark.parametrize("kind", ["ascii", "unicode", "tricky", "pieces"])
def test_random_texts_have_the_same_ids(hub, tokenizer, kind):
    rng = random.Random(kind)
    surfaces = [piece.text.replace("▁", " ") for piece in tokenizer.pieces]
    draw = {
        "ascii": lambda: chr(rng.randrange(128)),
        "unicode": lambda: chr(rng.choice([rng.randrange(0xD800), rng.randrange(0xE000, 0x11000)])),
        "tricky": lambda: rng.choice([*TRICKY, *rng.sample(surfaces, 3)]),
        "pieces": lambda: rng.choice(surfaces),
    }[kind]
    for _ in range(150):
        text = "".join(draw() for _ in range(rng.choice([5, 60])))
        assert as_text(hub, text) == tokenizer.encode(text), repr(text)


def test_long_documents_have_the_same_ids(hub, tokenizer, documents):
    text = "".join(documents)
    assert as_text(hub, text) == tokenizer.encode(text)


def test_ids_decode_to_the_text(hub, tokenizer, adversarial):
    assert hub.decode(tokenizer.encode(adversarial)) == adversarial


def test_special_tokens_have_the_same_ids_and_are_found_for_chat_templates(hub, tokenizer):
    assert (hub.unk_token_id, hub.bos_token_id, hub.eos_token_id, hub.pad_token_id) == (0, 1, 2, 3)
    assert len(hub) == tokenizer.vocab_size
    assert hub.encode("<|im_start|>ba</s>") == [4, *tokenizer.encode("ba"), 2]


def test_a_name_without_a_place_to_cut_is_warned_about(train, tmp_path, caplog):
    # Pieces with "ab" and with "bc" exist, so that every cut within "abc" might change other texts.
    folder = train(texts=["xab ybc " * 400], exact_size=False, control_symbols=["abc"], model_type="unigram")
    to_huggingface(Tokenizer.load(folder), tmp_path / "hub")
    assert "a text that spells abc becomes that token" in caplog.text
