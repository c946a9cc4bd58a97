"""The part of a tokenizer that evaluation needs; `lumi.tokenizer.Tokenizer` has it."""

from typing import Protocol

import numpy as np


class Codec(Protocol):
    """Text to tokens and back."""

    @property
    def vocab_size(self) -> int:
        """V, number of tokens."""
        ...

    @property
    def bos_id(self) -> int:
        """Token before every document."""
        ...

    @property
    def eos_id(self) -> int:
        """Token after every document."""
        ...

    def encode(self, text: str, /) -> list[int]:
        """Tokens of a text, without bos and eos."""
        ...

    def decode(self, ids: list[int], /) -> str:
        """The text of tokens; control tokens have none."""
        ...

    def piece(self, token: int, /) -> str:
        """Name of a token in the vocabulary; ``<0x0A>`` stands for a single byte."""
        ...

    def token_bytes(self) -> np.ndarray:
        """(V,) UTF-8 bytes that each token stands for, 0 for control tokens."""
        ...
