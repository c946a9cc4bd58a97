"""What a tokenizer is trained with, checked when it is made (``tokenizer=unigram``, ``bpe``, ``demo`` or ``existing``)."""

import dataclasses
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from lumi.errors import ConfigError, join_violations

ModelType = Literal["unigram", "bpe"]

UNK, BOS, EOS, PAD = "<unk>", "<s>", "</s>", "<pad>"
"""Always ids 0, 1, 2 and 3."""

CHAT_MARKERS = (
    *("<|im_start|>", "<|im_end|>"),  # ChatML
    *("[INST]", "[/INST]"),  # Instruct
    *("<|system|>", "<|user|>", "<|assistant|>", "<|end|>"),  # Chat
)
RESERVED = tuple(f"<|reserved_{number}|>" for number in range(8))
"""Nameless rooms: a marker that is needed after training takes one of these, and no embedding has to grow."""

SPACE_MARK = "\u2581"
"""SentencePiece writes a space as this character inside its pieces."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TokenizerConfig:
    r"""How to train a tokenizer that gives every text back exactly.

    Text is never changed: no Unicode normalisation, no space put before it, none taken away. Whoever wants NFKC applies it
    to the corpus, where it can be seen.

    Attributes:
        name: folder of the tokenizer.
        vocab_size: pieces, the special ones and the 256 bytes included.
        exact_size: refuse text that has fewer pieces to offer than ``vocab_size``; false takes as many as there are.
        model_type: ``unigram`` (arXiv:1804.10959; encodes four times faster) or ``bpe`` (trains ten times faster); they
            compress alike.
        character_coverage: share of all characters that get a piece of their own; the rest is written as bytes.
        byte_fallback: write what has no piece as its UTF-8 bytes. Without it such text becomes ``<unk>`` and is lost.
        split_digits: every digit is a piece of its own, so that numbers of any length are read alike.
        split_by_number: no piece joins digits with letters (only matters without ``split_digits``).
        split_by_unicode_script: no piece joins letters with punctuation or two alphabets.
        split_by_whitespace: no piece spans words.
        whitespace_pieces: a run of spaces may be one piece (indentation).
        max_piece_length: longest piece in characters.
        required_characters: these get a piece even if they are rare.
        seed_pieces: candidates that unigram starts from; null is four times ``vocab_size``, which compresses better than
            the usual million (0.3 % with 4k pieces, 0.7 % with 32k) in two thirds of the time.
        shrinking_factor: share of the candidates that unigram keeps in each round.
        em_steps: expectation-maximisation steps of unigram in each round.
        train_megabytes: text to learn from, in millions of bytes; more than this is sampled, sentence by sentence.
            Twice as much gains about 0.1 % with 4k pieces and 0.5 % with 32k.
        seed: of that sample, and of the documents that are held out for the card.
        num_threads: of the training. Another number adds floats in another order and makes another tokenizer, so it is a
            setting like the others and does not follow the machine.
        control_symbols: markers for the chat templates. Text never becomes one of them, whatever it says.
        user_symbols: strings that always are one piece. Unlike control symbols these can be typed.
    """

    name: str
    vocab_size: int
    exact_size: bool = True
    model_type: ModelType = "unigram"
    character_coverage: float = 0.9995
    byte_fallback: bool = True
    split_digits: bool = True
    split_by_number: bool = True
    split_by_unicode_script: bool = True
    split_by_whitespace: bool = True
    whitespace_pieces: bool = True
    max_piece_length: int = 16
    required_characters: str = ""
    seed_pieces: int | None = None
    shrinking_factor: float = 0.75
    em_steps: int = 2
    train_megabytes: float = 20.0
    seed: int = 0
    num_threads: int = 2
    control_symbols: Sequence[str] = CHAT_MARKERS + RESERVED
    user_symbols: Sequence[str] = ()

    def __post_init__(self) -> None:
        """Check every rule at once.

        Raises:
            ConfigError: naming each value that breaks a rule.
        """
        violations = list(self._type_violations()) or [
            *self._range_violations(),
            *self._symbol_violations("control_symbols", self.control_symbols, {UNK, BOS, EOS, PAD}),
            *self._symbol_violations("user_symbols", self.user_symbols, {UNK, BOS, EOS, PAD, *self.control_symbols}),
        ]
        if violations:
            raise join_violations(violations)

    @property
    def n_reserved(self) -> int:
        """Ids that are taken before the first learned piece."""
        return 4 + len(self.control_symbols) + len(self.user_symbols) + (256 if self.byte_fallback else 0)

    def settings(self) -> dict[str, Any]:
        """Everything that decides the model's bytes, as plain JSON."""
        fields = {key: value for key, value in dataclasses.asdict(self).items() if key != "name"}
        return {**fields, "control_symbols": list(self.control_symbols), "user_symbols": list(self.user_symbols)}

    def trainer_arguments(self) -> dict[str, Any]:
        """The same in SentencePiece's own words, with what is never a choice here: nothing that changes the text."""
        arguments: dict[str, Any] = {
            "vocab_size": self.vocab_size,
            "hard_vocab_limit": self.exact_size,
            "model_type": self.model_type,
            "character_coverage": self.character_coverage,
            "byte_fallback": self.byte_fallback,
            "split_digits": self.split_digits,
            "split_by_number": self.split_by_number,
            "split_by_unicode_script": self.split_by_unicode_script,
            "split_by_whitespace": self.split_by_whitespace,
            "allow_whitespace_only_pieces": self.whitespace_pieces,
            "max_sentencepiece_length": self.max_piece_length,
            "required_chars": self.required_characters,
            "control_symbols": list(self.control_symbols),
            "user_defined_symbols": list(self.user_symbols),
            "num_threads": self.num_threads,
            "unk_piece": UNK,
            "bos_piece": BOS,
            "eos_piece": EOS,
            "pad_piece": PAD,
            "pad_id": 3,
            "normalization_rule_name": "identity",
            "add_dummy_prefix": False,
            "remove_extra_whitespaces": False,
        }
        if self.model_type == "unigram":
            arguments["seed_sentencepiece_size"] = self.seed_pieces or 4 * self.vocab_size
            arguments["shrinking_factor"] = self.shrinking_factor
            arguments["num_sub_iterations"] = self.em_steps
        return arguments

    def _type_violations(self) -> Iterator[ConfigError]:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if not _fits(value, field.type):
                yield _violation(field.name, value, f"must be {_TYPE_NAMES[field.type]}")

    def _range_violations(self) -> Iterator[ConfigError]:
        if not re.fullmatch(r"[^/\\\0]*[^./\\\0][^/\\\0]*", self.name):
            yield _violation("name", self.name, "must be usable as the name of a folder")
        if self.model_type not in get_args(ModelType):
            yield _violation("model_type", self.model_type, f"must be one of {', '.join(get_args(ModelType))}")
        if self.vocab_size <= self.n_reserved:
            rule = f"must be above {self.n_reserved}, the number of special pieces and bytes"
            yield _violation("vocab_size", self.vocab_size, rule, "4096 is small, 32768 usual")
        for name, least, most in (
            ("character_coverage", 0.98, 1.0),
            ("max_piece_length", 1, 512),
            ("shrinking_factor", 0.5, 0.95),
            ("em_steps", 1, 10),
            ("num_threads", 1, 1024),
        ):
            if not least <= (value := getattr(self, name)) <= most:
                yield _violation(name, value, f"must be from {least} to {most}")
        if not 0 < self.train_megabytes < float("inf"):
            yield _violation("train_megabytes", self.train_megabytes, "must be above 0")
        if self.seed_pieces is not None and self.seed_pieces <= self.vocab_size:
            rule = f"must be above tokenizer.vocab_size={self.vocab_size}"
            yield _violation("seed_pieces", self.seed_pieces, rule, "null takes four times as many")

    def _symbol_violations(self, name: str, symbols: Sequence[str], taken: set[str]) -> Iterator[ConfigError]:
        seen = set(taken)
        for symbol in symbols:
            if not symbol or symbol in seen:
                yield _violation(name, repr(symbol), "must be new and not empty: each symbol has one id")
            # A space would reach the vocabulary as the mark, and a NUL ends the symbol in SentencePiece's own code.
            if re.search(rf"[ {SPACE_MARK}\0]", symbol) or re.fullmatch(r"<0x[0-9A-F]{2}>", symbol):
                yield _violation(name, repr(symbol), "must hold no space, U+2581 or NUL, and not look like a byte")
            seen.add(symbol)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExistingTokenizer:
    """A tokenizer that was trained before: nothing is trained, and the artefacts made with it carry its name.

    Attributes:
        path: its folder.
        name: folder of the packed data made with it; null is the name of ``path``.
    """

    path: Path
    name: str = ""

    def __post_init__(self) -> None:
        """Take the name from the path unless one is given."""
        object.__setattr__(self, "path", Path(self.path))
        object.__setattr__(self, "name", self.name or self.path.resolve().name)


_TYPE_NAMES: dict[Any, str] = {
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    int | None: "a whole number or null",
    ModelType: f"one of {', '.join(get_args(ModelType))}",
    Sequence[str]: "a list of texts",
}


def _fits(value: Any, expected: Any) -> bool:
    """YAML gives 1 where 1.0 is meant, and Python takes True for 1; neither may confuse anybody."""
    if expected == Sequence[str]:
        return isinstance(value, Sequence) and not isinstance(value, str) and all(isinstance(v, str) for v in value)
    if expected is bool:
        return isinstance(value, bool)
    if expected is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if expected == (int | None):
        return value is None or _fits(value, int)
    if expected is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, str)


def _violation(name: str, value: Any, rule: str, fix: str = "") -> ConfigError:
    return ConfigError(f"tokenizer.{name}={value}", rule, fix)
