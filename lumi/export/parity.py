"""What an export must agree on with the model that it was made from; one that does not is not written.

Three things are compared, and all figures stand in the folder's card and facts: the numbers that the model computes, the ids of
`N_TEXTS` texts, and the ids of conversations. Rounded weights (bfloat16, q8_0 …) are compared with Lumi's decoder holding the
same rounded weights, so that the tolerance stays that of another order of sums and an error in a conversion cannot
hide in the rounding; what the rounding itself changes is measured beside it.
"""

import dataclasses
import math
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lumi.arch import Decoder
from lumi.arch.lora import attach_adapter
from lumi.arch.weights import load_decoder
from lumi.errors import DataError
from lumi.export.gguf import MODEL, rounded
from lumi.export.huggingface import DTYPES
from lumi.export.llamacpp import LlamaCpp
from lumi.export.source import Source, need
from lumi.export.texts import N_TEXTS, conversations, texts
from lumi.export.vocabulary import Vocabulary
from lumi.tokenizer import Message, Template, Tokenizer

N_SEQUENCES = 4
SEQUENCE_TOKENS = 128
GREEDY_TOKENS = 16

LOGIT_TOLERANCE = 1e-4
"""Of the largest logit. Both sides add the same float32 products in another order: a few units of 2**-24 (6e-8) a layer.
Measured is 8e-7 with 4 layers and with 24; a tensor in the wrong place gives tenths."""
LLAMACPP_TOLERANCE = {"f32": (1e-3, 1e-5), "f16": (5e-2, 1e-4), "q8_0": (0.5, 1e-2)}
"""Nats: the most that the log-probability of a token of at least `LIKELY` may differ, and the mean Kullback-Leibler divergence.
With f32 llama.cpp only adds in another order. Otherwise it also rounds the activations before it multiplies, layer after layer:
to f16 (2**-11), or to 8 bits in blocks of 32 (2**-8); measured are 4e-3 and 8e-2 with six layers. Weights in the wrong place
give nats."""
LIKELY = 1e-4
ROUNDING_TOLERANCE = 0.05
"""Nats, mean Kullback-Leibler divergence of the rounded model's predictions from the original's: beyond it the rounding has
changed the model, not its last digits."""


class ParityError(DataError):
    """An export computes or reads something else than the model that it was made from."""


def check_huggingface(source: Source, folder: Path, dtype: str) -> dict[str, Any]:
    """Compare a Hugging Face folder in transformers with the model; returns the figures.

    Raises:
        ParityError: naming the first difference.
        ConfigError: transformers is not installed.
    """
    transformers = _transformers()
    loaded = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, local_files_only=True
    ).eval()
    same = _rounded(source.decoder, DTYPES[dtype])
    figures: dict[str, Any] = {"logits": compare_logits(same, lambda tokens: loaded(tokens).logits, source.tokenizer)}
    if dtype != "float32":
        figures["rounding"] = _rounding(source.decoder, same, source.tokenizer, dtype)
    hub = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    compared = texts(source.tokenizer)
    found = hub(compared, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    figures["ids"] = _compare_ids(source.tokenizer, compared, found, "transformers")
    if source.template is not None:
        figures["conversations"] = _compare_chat(source, hub)
    return figures


def check_adapter(source: Source, folder: Path, base: Path) -> dict[str, Any]:
    """Compare an adapter that peft puts over its exported base with the checkpoint's own; returns the figures.

    Neither is merged here, because adding an adapter into weights rounds them once more.

    Raises:
        ParityError: the numbers differ.
        ConfigError: peft or transformers is not installed.
    """
    transformers, peft = _transformers(), need("peft", "peft")
    loaded = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, local_files_only=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # between peft and transformers
        adapted = peft.PeftModel.from_pretrained(loaded, folder).eval()
    mine = load_decoder(source.checkpoint)
    attach_adapter(mine, source.checkpoint)
    return compare_logits(mine.eval(), lambda tokens: adapted(tokens).logits, source.tokenizer)


def check_gguf(source: Source, folder: Path, dtype: str, vocabulary: Vocabulary) -> dict[str, Any]:
    """Compare a GGUF file in llama.cpp with the model; returns the figures.

    Raises:
        ParityError: naming the first difference.
        ConfigError: xllamacpp is not installed.
    """
    same = rounded(source.decoder, dtype)
    with LlamaCpp(folder / MODEL, source.decoder.config.max_seq_len) as llamacpp:
        figures: dict[str, Any] = {"probabilities": _compare_probabilities(same, source, llamacpp, dtype)}
        if dtype != "f32":
            figures["rounding"] = _rounding(source.decoder, same, source.tokenizer, dtype)
        every = texts(source.tokenizer)
        exact = [text for text in every if vocabulary.is_exact(text)]
        figures["ids"] = _compare_ids(source.tokenizer, exact, llamacpp.tokenize(exact), "llama.cpp")
        figures["ids"]["inexact"] = len(every) - len(exact)
        if source.template is not None:
            figures["conversations"] = _compare_llamacpp_chat(source, llamacpp, vocabulary)
    return figures


def _transformers() -> Any:
    """Transformers without its progress bars and its advice, of which nothing concerns these folders."""
    transformers = need("transformers", "transformers")
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    return transformers


def compare_logits(decoder: Decoder, other: Callable[[Tensor], Tensor], tokenizer: Tokenizer) -> dict[str, Any]:
    """Logits of a decoder and of another implementation on the same sequences.

    Args:
        other: (B, T) int64 -> (B, T, V).

    Raises:
        ParityError: they differ by more than `LOGIT_TOLERANCE` of the largest one.
    """
    tokens = _sequences(decoder, tokenizer)
    with torch.no_grad():
        mine, theirs = decoder.logits(decoder(tokens)), other(tokens)
    difference, largest = (mine - theirs).abs().max().item(), mine.abs().max().item()
    allowed = LOGIT_TOLERANCE * max(largest, 1.0)
    if not difference <= allowed:
        raise ParityError(
            f"logits differ by {difference:.2g}", f"at most {allowed:.2g} comes from another order of sums", "report it"
        )
    return {"tokens": tokens.numel(), "max_difference": difference, "largest_logit": largest, "tolerance": allowed}


def _sequences(decoder: Decoder, tokenizer: Tokenizer) -> Tensor:
    """Random tokens of the whole vocabulary, from a fixed seed: (B, T) int64, bos first."""
    length = min(SEQUENCE_TOKENS, decoder.config.max_seq_len)
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(decoder.config.vocab_size, (N_SEQUENCES, length), generator=generator)
    tokens[:, 0] = tokenizer.bos_id
    controls = torch.tensor(list(tokenizer.controls.values()))[: length - 1]  # random ones might never meet their rows
    tokens[0, 1 : 1 + len(controls)] = controls
    return tokens


def _rounded(decoder: Decoder, dtype: torch.dtype) -> Decoder:
    if dtype == torch.float32:
        return decoder
    other = Decoder(decoder.config)
    other.load_state_dict({name: value.to(dtype).float() for name, value in decoder.state_dict().items()})
    return other.eval()


@torch.no_grad()
def _rounding(decoder: Decoder, same: Decoder, tokenizer: Tokenizer, dtype: str) -> dict[str, Any]:
    tokens = _sequences(decoder, tokenizer)
    before, after = (model.logits(model(tokens)).log_softmax(-1) for model in (decoder, same))
    divergence = (before.exp() * (before - after)).sum(-1).mean().item()
    if not divergence <= ROUNDING_TOLERANCE:
        raise ParityError(
            f"dtype={dtype} changes predictions by {divergence:.2g} nats on average",
            f"at most {ROUNDING_TOLERANCE} is the last digits",
            "dtype=float32, or f32 in a GGUF file",
        )
    return {"mean_divergence": divergence, "tolerance": ROUNDING_TOLERANCE}


def _compare_ids(
    tokenizer: Tokenizer, compared: Sequence[str], found: Sequence[Sequence[int]], program: str
) -> dict[str, Any]:
    expected = [ids.tolist() for ids in tokenizer.encode_batch(compared)]
    wrong = [number for number, ids in enumerate(expected) if ids != list(found[number])]
    if wrong:
        number = wrong[0]
        raise ParityError(
            f"{len(wrong)} of {len(compared)} texts have other ids in {program}, the first is {compared[number][:60]!r}",
            f"{expected[number][:12]}… there {list(found[number])[:12]}…",
            "export in another format, and report it",
        )
    return {"texts": len(compared), "different": 0}


def _compare_chat(source: Source, hub: Any) -> dict[str, Any]:
    """Prompts and whole conversations through the exported chat template."""
    template, count = source.template, 0
    assert template is not None, "asked by the caller"
    for messages in conversations(source.tokenizer):
        for turns, expected in _expected(template, source.tokenizer, messages):
            found = hub.apply_chat_template(
                [dataclasses.asdict(message) for message in turns],
                add_generation_prompt=turns[-1].role == "user",
                tokenize=True,
                return_dict=False,
            )
            _same_conversation(turns, expected, list(found), "transformers")
            count += 1
    return {"rendered": count, "different": 0}


def _expected(
    template: Template, tokenizer: Tokenizer, messages: list[Message]
) -> list[tuple[list[Message], list[int]]]:
    """A conversation up to its last question, and whole, with the tokens of each."""
    return [
        (messages[:-1], template.prompt(tokenizer, messages[:-1])),
        (messages, template.render(tokenizer, messages).tokens),
    ]


def _compare_llamacpp_chat(source: Source, llamacpp: LlamaCpp, vocabulary: Vocabulary) -> dict[str, Any]:
    """Prompts through llama.cpp's own chat; it tokenises a template's text and the message beside it as one.

    Where a piece of the vocabulary spans that border its ids are others, so what is compared there is the joined text.
    """
    template, tokenizer = source.template, source.tokenizer
    assert template is not None, "asked by the caller"
    count = joined = 0
    for messages in conversations(tokenizer):
        prompt = messages[:-1]
        if not all(vocabulary.is_exact(message.content) for message in prompt):
            continue
        apart = template.prompt(tokenizer, prompt)
        expected = _join(apart, tokenizer)
        found = llamacpp.chat_tokens([dataclasses.asdict(message) for message in prompt])
        _same_conversation(prompt, expected, found, "llama.cpp")
        joined += expected != apart
        count += 1
    return {"rendered": count, "different": 0, "joined": joined}


def _join(tokens: Sequence[int], tokenizer: Tokenizer) -> list[int]:
    """The tokens that the text between control tokens has when it is encoded as one."""
    controls = set(tokenizer.controls.values())
    result: list[int] = []
    run: list[int] = []
    for token in [*tokens, tokenizer.bos_id]:
        if token in controls:
            result += [*tokenizer.encode(tokenizer.decode(run)), token]
            run = []
        else:
            run.append(token)
    return result[:-1]


def _same_conversation(turns: Sequence[Message], expected: list[int], found: list[int], program: str) -> None:
    if found != expected:
        raise ParityError(
            f"a conversation has other ids in {program}: {[message.content[:30] for message in turns]}",
            f"{expected[:40]} there {found[:40]}",
            "choose another template, or report it",
        )


def _compare_probabilities(decoder: Decoder, source: Source, llamacpp: LlamaCpp, dtype: str) -> dict[str, Any]:
    """The whole distribution after prefixes of several lengths: the largest difference, and the mean divergence."""
    tokens = _sequences(decoder, source.tokenizer)
    cuts = sorted({1, 2, 7, tokens.shape[1] // 2, tokens.shape[1] - 1})
    largest, divergences = 0.0, []
    for prefix in (row[:cut] for row in tokens.tolist() for cut in cuts):
        mine, theirs = (
            _log_probabilities(decoder, prefix),
            llamacpp.log_probabilities(prefix, decoder.config.vocab_size),
        )
        likely = mine >= min(math.log(LIKELY), mine.max().item())  # of a flat distribution, the most likely one
        largest = max(largest, (mine - theirs)[likely].abs().max().item())
        divergences.append((mine.exp() * (mine - theirs)).sum().item())
    mean = abs(sum(divergences)) / len(divergences)
    most, allowed = LLAMACPP_TOLERANCE[dtype]
    if not (largest <= most and mean <= allowed):
        raise ParityError(
            f"log-probabilities in llama.cpp differ by {largest:.2g} nats, {mean:.2g} on average",
            f"at most {most} and {allowed} come from its rounding",
            "report it",
        )
    figures = {"max_difference": largest, "tolerance": most, "mean_divergence": mean, "mean_tolerance": allowed}
    return {"distributions": len(divergences), **figures, **_compare_greedy(decoder, source, llamacpp, 2 * most)}


def _compare_greedy(decoder: Decoder, source: Source, llamacpp: LlamaCpp, near: float) -> dict[str, Any]:
    """Greedy continuations of llama.cpp: each token is the decoder's own choice, or as likely but for ``near`` nats."""
    n_tokens = equal = 0
    for start in _prompts(source):
        row = list(start)
        for token in llamacpp.continue_greedily(start, GREEDY_TOKENS):
            mine = _log_probabilities(decoder, row)
            if not mine.max() - mine[token] <= near:
                raise ParityError(
                    f"llama.cpp continues with token {token}",
                    f"the model finds {int(mine.argmax())} {mine.max() - mine[token]:.2g} nats more likely",
                    "report it",
                )
            n_tokens, equal = n_tokens + 1, equal + (token == int(mine.argmax()))
            row.append(token)
    return {"greedy_tokens": n_tokens, "greedy_equal": equal}


def _prompts(source: Source) -> list[list[int]]:
    """Beginnings of texts and questions that leave room for an answer."""
    tokenizer, room = source.tokenizer, source.decoder.config.max_seq_len - GREEDY_TOKENS
    starts = [
        [tokenizer.bos_id, *tokenizer.encode(text)] for text in ("", "Once upon a time", "Question: Where", "1, 2,")
    ]
    if source.template is not None:
        asked = ("Hello!", "Where does she live?", "Copy: b a d")
        starts += [source.template.prompt(tokenizer, [Message(role="user", content=text)]) for text in asked]
    return [start for start in starts if len(start) <= room]


@torch.no_grad()
def _log_probabilities(decoder: Decoder, tokens: Sequence[int]) -> Tensor:
    """Of every token after ``tokens``: (V,) float32."""
    return decoder.logits(decoder(torch.tensor([tokens])))[0, -1].log_softmax(-1)


__all__ = ["N_TEXTS", "ParityError", "check_adapter", "check_gguf", "check_huggingface", "compare_logits"]
