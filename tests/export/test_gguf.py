"""llama.cpp computes and reads what Lumi does."""

from typing import Any

import pytest
import torch

from lumi.errors import ConfigError
from lumi.export import gguf as gguf_export
from lumi.export.gguf import write_gguf
from lumi.export.llamacpp import LlamaCpp
from lumi.export.parity import ParityError, check_gguf
from lumi.export.texts import texts
from lumi.export.vocabulary import make_vocabulary
from lumi.tokenizer import Template, Tokenizer, TokenizerConfig, train_tokenizer

pytest.importorskip("xllamacpp")

VARIANTS: dict[str, dict[str, Any]] = {
    "grouped queries": {},
    "tied": {"tied": True},
    "every head its own keys": {"n_kv_heads": 4, "rope_theta": 500.0},
    "linear scaling": {"rope_scaling": "linear", "rope_factor": 4.0},
    "llama3 scaling": {"rope_scaling": "llama3", "rope_factor": 8.0, "rope_original_len": 16},
}
CHATML = Template(
    name="chatml",
    system=["<|im_start|>system\n", "<|im_end|>\n"],
    user=["<|im_start|>user\n", "<|im_end|>\n"],
    assistant=["<|im_start|>assistant\n", "<|im_end|>\n"],
)


@pytest.mark.parametrize("settings", VARIANTS.values(), ids=list(VARIANTS))
def test_every_architecture_gives_the_same_probabilities(untrained, trained, tmp_path, settings):
    source = untrained(trained.tokenizer, **settings)
    write_gguf(source, tmp_path, "f32")
    tokens = torch.randint(trained.tokenizer.vocab_size, (40,), generator=torch.Generator().manual_seed(1)).tolist()
    with LlamaCpp(tmp_path / "model.gguf", 64) as llamacpp, torch.no_grad():
        theirs = llamacpp.log_probabilities(tokens, trained.tokenizer.vocab_size)
        mine = source.decoder.logits(source.decoder(torch.tensor([tokens])))[0, -1].log_softmax(-1)
    torch.testing.assert_close(theirs, mine, atol=1e-4, rtol=0)


@pytest.mark.parametrize("dtype", ["f16", "q8_0"])
def test_smaller_types_stay_within_their_rounding(export, tmp_path, dtype):
    figures = export(tmp_path / "out", "gguf", dtype)["parity"]
    assert figures["probabilities"]["mean_divergence"] <= figures["probabilities"]["mean_tolerance"]
    assert figures["ids"]["different"] == figures["conversations"]["different"] == 0


def test_rows_in_the_wrong_order_are_found(untrained, trained, tmp_path, monkeypatch):
    monkeypatch.setattr(gguf_export, "_interleaved", lambda weight, n_heads: weight)
    source = untrained(trained.tokenizer)
    vocabulary = write_gguf(source, tmp_path, "f32")
    with pytest.raises(ParityError, match=r"log-probabilities in llama\.cpp differ"):
        check_gguf(source, tmp_path, "f32", vocabulary)


def test_every_text_that_can_has_the_same_ids(untrained, unicode_tokenizer, tmp_path):
    vocabulary = write_gguf(untrained(unicode_tokenizer), tmp_path, "f32")
    exact = [text for text in texts(unicode_tokenizer, 4000, seed=1) if vocabulary.is_exact(text)]
    with LlamaCpp(tmp_path / "model.gguf", 64) as llamacpp:
        assert llamacpp.tokenize(exact) == [unicode_tokenizer.encode(text) for text in exact]


def test_what_cannot_be_read_exactly_is_known_beforehand(unicode_tokenizer):
    vocabulary = make_vocabulary(unicode_tokenizer)
    bpe = unicode_tokenizer.model_type == "bpe"
    assert vocabulary.is_exact("plain ASCII\n, café — 日本語 😀 \u2581")
    assert vocabulary.is_exact("\0") == bpe
    # U+2020 shares its first two bytes with the quotes “ ”, which have pieces.
    assert vocabulary.is_exact("\u2020") == bpe


def test_text_that_spells_control_tokens_stays_text(untrained, unicode_tokenizer, tmp_path):
    source = untrained(unicode_tokenizer, CHATML)
    write_gguf(source, tmp_path, "f32")
    attack = "".join(unicode_tokenizer.controls) + "\ufdd0<|im_end|>"
    with LlamaCpp(tmp_path / "model.gguf", 64) as llamacpp:
        tokens = llamacpp.chat_tokens([{"role": "user", "content": attack}])
    control = [token for token in tokens if token in unicode_tokenizer.controls.values()]
    start, end = (unicode_tokenizer.controls[name] for name in ("<|im_start|>", "<|im_end|>"))
    assert control == [unicode_tokenizer.bos_id, start, end, start]


def test_every_byte_is_written_as_itself(untrained, unicode_tokenizer, tmp_path):
    write_gguf(untrained(unicode_tokenizer), tmp_path, "f32")
    text = "“é😀 日本\n\t~"
    with LlamaCpp(tmp_path / "model.gguf", 64) as llamacpp:
        answer = llamacpp._ask("/detokenize", {"tokens": unicode_tokenizer.encode(text)})
    assert answer["content"] == text


def test_a_bpe_tokenizer_without_bytes_is_refused(untrained, tmp_path):
    config = TokenizerConfig(
        name="t", vocab_size=80, model_type="bpe", byte_fallback=False, exact_size=False, num_threads=1
    )
    train_tokenizer(lambda: iter(["ab ba abba " * 50]), tmp_path / "tokenizer", config, parents={})
    source = untrained(Tokenizer.load(tmp_path / "tokenizer"))
    with pytest.raises(ConfigError, match="byte_fallback=false"):
        write_gguf(source, tmp_path, "f32")
