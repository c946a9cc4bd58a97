"""Generation checks: does the model write, stop, and not fall into loops?

These find broken models (a wrong shift, a lost end token, collapsed sampling), not good ones. Prompts come in
categories from ``conf/smoke/``; every sample is measured, the measures are averaged by category and compared with the
suite's limits.
"""

import codecs
import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lumi.arch import Decoder
from lumi.errors import ConfigError, did_you_mean, join_violations
from lumi.eval.codec import Codec
from lumi.eval.table import markdown_table, number
from lumi.eval.windows import PackedSplit
from lumi.generate import Completion, SamplingParams, generate

MEASURES = {
    "non_empty": "share of samples with anything but white space",
    "finished": "share of samples that the model ended itself",
    "valid_utf8": "share of samples whose bytes are valid text",
    "distinct_texts": "share of samples that differ from all others for the same prompt",
    "repetition": "share of 4-grams of tokens that occurred before in the sample",
    "distinct_1": "distinct tokens per token (arXiv:1510.03055)",
    "distinct_2": "distinct pairs of tokens per pair",
    "byte_fallback": "share of tokens that are single bytes for lack of a piece",
    "control_tokens": "share of tokens that stand for no text",
    "new_tokens": "tokens generated",
}
"""What is measured on samples; each but the last is from 0 to 1."""

_BYTE_PIECE = re.compile(r"<0x([0-9A-F]{2})>")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SmokeSuite:
    """What to generate and what to ask of it; a file in ``conf/smoke/``.

    Attributes:
        name: quick, standard, thorough, or your own.
        categories: category → prompts. An empty prompt starts a document freely.
        samples_per_prompt: samples of each prompt; within a category, seeds count up from the sampling seed.
        sampling: how they are drawn; a seed is needed, so that a suite gives the same samples again.
        minimum: measure → smallest mean that a category may have.
        maximum: measure → largest mean that a category may have.
        held_out_prompts: documents of each validation split whose beginning is a prompt too.
        held_out_tokens: length of those beginnings.
    """

    name: str
    categories: Mapping[str, Sequence[str]]
    sampling: SamplingParams
    samples_per_prompt: int = 1
    minimum: Mapping[str, float] = dataclasses.field(default_factory=dict)
    maximum: Mapping[str, float] = dataclasses.field(default_factory=dict)
    held_out_prompts: int = 0
    held_out_tokens: int = 16

    def __post_init__(self) -> None:
        """Check every rule at once.

        Raises:
            ConfigError: naming each value that breaks one.
        """
        violations = [
            ConfigError(f"smoke.{side}.{name}", "is not a measure", did_you_mean(name, MEASURES))
            for side in ("minimum", "maximum")
            for name in getattr(self, side)
            if name not in MEASURES
        ]
        violations += [
            ConfigError(f"smoke.categories.{name}={prompts!r}", "must be a list of texts", 'write ["…"]')
            for name, prompts in self.categories.items()
            if isinstance(prompts, str) or not all(isinstance(prompt, str) for prompt in prompts)
        ]
        if self.sampling.seed is None:
            violations.append(ConfigError("smoke.sampling.seed=null", "checks must be repeatable", "give a number"))
        for name, least in (("samples_per_prompt", 1), ("held_out_prompts", 0), ("held_out_tokens", 1)):
            if getattr(self, name) < least:
                violations.append(ConfigError(f"smoke.{name}={getattr(self, name)}", f"must be at least {least}"))
        if violations:
            raise join_violations(violations)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sample:
    """One answer with its measures; None where it is too short to have one."""

    category: str
    prompt: str
    text: str
    finish_reason: str
    seed: int
    measures: dict[str, float | None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SmokeReport:
    """Samples, the mean measures of each category, and what fell outside the limits.

    Attributes:
        suite: name of the suite.
        samples: all of them, in order.
        categories: category → measure → mean.
        failures: one sentence a limit that was broken; empty when all is well.
    """

    suite: str
    samples: list[Sample]
    categories: dict[str, dict[str, float | None]]
    failures: list[str]

    @property
    def passed(self) -> bool:
        """Whether every limit holds in every category."""
        return not self.failures

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return dataclasses.asdict(self) | {"passed": self.passed}


def run_smoke(
    model: Decoder,
    tokenizer: Codec,
    suite: SmokeSuite,
    *,
    splits: Mapping[str, PackedSplit] | None = None,
    batch_size: int = 32,
) -> SmokeReport:
    """Generate every sample of the suite and judge it.

    Args:
        splits: source → validation split, for the suite's held-out prompts; a category each.
        batch_size: samples in the model at a time.
    """
    categories = {name: list(prompts) for name, prompts in suite.categories.items()}
    for name, split in (splits or {}).items():
        begun = held_out_prompts(split, tokenizer, n_prompts=suite.held_out_prompts, n_tokens=suite.held_out_tokens)
        categories[f"{name}, held out"] = begun
    jobs = [job for name, prompts in categories.items() for job in _jobs(name, prompts, suite)]
    completions = generate(
        model,
        [[tokenizer.bos_id, *tokenizer.encode(prompt)] for _, prompt, _ in jobs],
        [params for _, _, params in jobs],
        eos_id=tokenizer.eos_id,
        batch_size=batch_size,
        progress=True,
    )
    kinds = TokenKinds(tokenizer)
    samples = [_sample(*job[:2], done, tokenizer, kinds) for job, done in zip(jobs, completions, strict=True)]
    means = {
        name: _averages([sample for sample in samples if sample.category == name])
        for name, prompts in categories.items()
        if prompts
    }
    return SmokeReport(suite=suite.name, samples=samples, categories=means, failures=_failures(means, suite))


def held_out_prompts(stream: PackedSplit, tokenizer: Codec, *, n_prompts: int, n_tokens: int) -> list[str]:
    """Beginnings of documents, spread evenly over a split: prompts that fit whatever the model was trained on."""
    documents = np.unique(np.linspace(0, len(stream.offsets) - 2, n_prompts).astype(np.int64)) if n_prompts else []
    prompts = []
    for document in documents:
        start, stop = int(stream.offsets[document]), int(stream.offsets[document + 1])
        # Without bos, and never so much that nothing is left to write.
        prompts.append(tokenizer.decode(stream.tokens(start + 1, min(start + 1 + n_tokens, stop - 1)).tolist()))
    return prompts


class TokenKinds:
    """Which tokens are control tokens, and which byte a byte piece stands for."""

    def __init__(self, tokenizer: Codec) -> None:
        self.is_control = tokenizer.token_bytes() == 0
        pieces = (_BYTE_PIECE.fullmatch(tokenizer.piece(token)) for token in range(tokenizer.vocab_size))
        self.byte = [None if match is None else bytes.fromhex(match[1]) for match in pieces]


def measure(completion: Completion, text: str, kinds: TokenKinds) -> dict[str, float | None]:
    """The measures of one sample, as `MEASURES` says; None for a share of nothing."""
    tokens = completion.tokens
    n_bytes = sum(kinds.byte[token] is not None for token in tokens)
    distinct = {n: distinct_share(tokens, n) for n in (1, 2, 4)}
    return {
        "non_empty": float(bool(text.strip())),
        "finished": float(completion.finish_reason == "stop"),
        "valid_utf8": float(is_valid_utf8(tokens, kinds, cut=completion.finish_reason == "length")),
        "repetition": None if distinct[4] is None else 1.0 - distinct[4],
        "distinct_1": distinct[1],
        "distinct_2": distinct[2],
        "byte_fallback": n_bytes / len(tokens) if tokens else None,
        "control_tokens": float(kinds.is_control[tokens].mean()) if tokens else None,
        "new_tokens": float(len(tokens)),
    }


def distinct_share(tokens: Sequence[int], n: int) -> float | None:
    """Distinct n-grams per n-gram; None when there is no n-gram."""
    ngrams = [tuple(tokens[start : start + n]) for start in range(len(tokens) - n + 1)]
    return len(set(ngrams)) / len(ngrams) if ngrams else None


def is_valid_utf8(tokens: Sequence[int], kinds: TokenKinds, *, cut: bool) -> bool:
    """Whether byte pieces form whole characters between ordinary pieces.

    Args:
        cut: the sample ended at a limit, which may fall within a character.
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        for token in tokens:
            byte = kinds.byte[token]
            decoder.decode(b"" if byte is None else byte, final=byte is None)
        decoder.decode(b"", final=not cut)
    except UnicodeDecodeError:
        return False
    return True


def smoke_table(report: Mapping[str, Any]) -> str:
    """Mean measures by category, with what failed beneath, from `SmokeReport.as_dict`."""
    rows = [[name, *(number(means[key], 2) for key in MEASURES)] for name, means in report["categories"].items()]
    failures = "\n".join(f"- {line}" for line in report["failures"])
    return f"{markdown_table(['category', *MEASURES], rows)}\n\n{failures or 'All within the limits.'}"


def _jobs(category: str, prompts: Sequence[str], suite: SmokeSuite) -> list[tuple[str, str, SamplingParams]]:
    """Category, prompt and settings of each sample; seeds count up, as the same prompt may stand there twice."""
    assert suite.sampling.seed is not None, "checked by SmokeSuite"
    repeated = [prompt for prompt in prompts for _ in range(suite.samples_per_prompt)]
    return [
        (category, prompt, dataclasses.replace(suite.sampling, seed=suite.sampling.seed + index))
        for index, prompt in enumerate(repeated)
    ]


def _sample(category: str, prompt: str, completion: Completion, tokenizer: Codec, kinds: TokenKinds) -> Sample:
    text = tokenizer.decode(completion.tokens)
    return Sample(
        category=category,
        prompt=prompt,
        text=text,
        finish_reason=completion.finish_reason,
        seed=completion.seed,
        measures=measure(completion, text, kinds),
    )


def _averages(samples: list[Sample]) -> dict[str, float | None]:
    """Mean of each measure over the samples that have it."""
    means: dict[str, float | None] = {}
    for name in MEASURES:
        if name == "distinct_texts":
            texts = [(sample.prompt, sample.text) for sample in samples]
            values = [float(texts.count(text) == 1) for text in texts]
        else:
            values = [value for sample in samples if (value := sample.measures[name]) is not None]
        means[name] = sum(values) / len(values) if values else None
    return means


def _failures(categories: dict[str, dict[str, float | None]], suite: SmokeSuite) -> list[str]:
    failures = []
    for category, means in categories.items():
        for name, mean in means.items():
            low, high = suite.minimum.get(name), suite.maximum.get(name)
            if mean is not None and low is not None and mean < low:
                failures.append(f"{category}: {name} is {mean:.2f}, must be at least {low:g}")
            if mean is not None and high is not None and mean > high:
                failures.append(f"{category}: {name} is {mean:.2f}, must be at most {high:g}")
    return failures
