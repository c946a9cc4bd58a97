"""Settings of a tokenizer: every wrong one is named, with the rule that it breaks."""

from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from lumi.errors import ConfigError
from lumi.tokenizer import ExistingTokenizer, TokenizerConfig

CONF = Path(__file__).parents[2] / "conf" / "tokenizer"


@pytest.mark.parametrize(
    ("key", "value", "rule"),
    [
        ("vocab_size", "4096", "must be a whole number"),
        ("vocab_size", True, "must be a whole number"),
        ("vocab_size", 4096.0, "must be a whole number"),
        ("vocab_size", 276, "must be above 276"),
        ("model_type", "wordpiece", "must be one of unigram, bpe"),
        ("character_coverage", 0.5, "must be from 0.98 to 1.0"),
        ("byte_fallback", 1, "must be true or false"),
        ("max_piece_length", 0, "must be from 1 to 512"),
        ("train_megabytes", 0, "must be above 0"),
        ("train_megabytes", float("nan"), "must be above 0"),
        ("seed_pieces", 4096, "must be above tokenizer.vocab_size=4096"),
        ("num_threads", 0, "must be from 1 to 1024"),
        ("name", "a/b", "name of a folder"),
        ("name", "..", "name of a folder"),
        ("control_symbols", "<|x|>", "must be a list of texts"),
        ("control_symbols", ["<s>"], "must be new and not empty"),
        ("control_symbols", ["<|x|>", "<|x|>"], "must be new and not empty"),
        ("control_symbols", ["<0x41>"], "not look like a byte"),
        ("user_symbols", ["a b"], "must hold no space"),
        ("user_symbols", ["<|im_end|>"], "must be new and not empty"),
        ("user_symbols", [""], "must be new and not empty"),
    ],
)
def test_a_wrong_setting_is_named_with_its_rule(key, value, rule):
    with pytest.raises(ConfigError) as caught:
        TokenizerConfig(**{"name": "t", "vocab_size": 4096, key: value})
    assert caught.value.found.startswith(f"tokenizer.{key}=")
    assert rule in caught.value.rule


def test_all_wrong_settings_are_named_at_once():
    with pytest.raises(ConfigError, match=r"(?s)2 settings.*tokenizer\.em_steps=0.*tokenizer\.train_megabytes=-1"):
        TokenizerConfig(name="t", vocab_size=4096, em_steps=0, train_megabytes=-1)


def test_the_reserved_ids_are_four_specials_sixteen_markers_and_the_bytes():
    assert TokenizerConfig(name="t", vocab_size=4096).n_reserved == 4 + 16 + 256


def test_the_name_does_not_decide_the_bytes():
    one, two = TokenizerConfig(name="a", vocab_size=999), TokenizerConfig(name="b", vocab_size=999)
    assert one.settings() == two.settings()


def test_every_option_in_conf_is_accepted(composed):
    options = sorted({path.stem for path in CONF.glob("*.yaml")} - {"trained"})
    assert {"unigram", "bpe", "demo", "existing"} <= {*options}
    kinds = {"lumi.tokenizer.TokenizerConfig": TokenizerConfig, "lumi.tokenizer.ExistingTokenizer": ExistingTokenizer}
    for option in options:
        extra = ["tokenizer.path=somewhere"] if option == "existing" else []
        node: Any = OmegaConf.to_container(composed("prepare", f"tokenizer={option}", *extra).tokenizer, resolve=True)
        kinds[node.pop("_target_")](**node)


def test_an_existing_tokenizer_is_called_as_its_folder_unless_named():
    assert ExistingTokenizer(path=Path("data/tokenizer/world")).name == "world"
    assert ExistingTokenizer(path=Path("data/tokenizer/world"), name="w").name == "w"
