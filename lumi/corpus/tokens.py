"""How many tokens a text has: with the real tokenizer where there is one, else estimated, with the error known.

A budget needs a count before there is a tokenizer, when the tokenizer is still to be trained on the same corpus. The estimate
is a straight line in the bytes and the words of a text, fitted to what Lumi's own tokenizers give (docs/corpus.md).
"""

import dataclasses
import functools
from pathlib import Path
from typing import Any

from lumi.tokenizer import Tokenizer

_PER_BYTE = 0.118
_PER_SPACE = 0.62
ESTIMATE_ERROR = 0.10
"""Largest relative error of the estimate over a source of English prose, with a vocabulary of 32,768 pieces."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TokenCounter:
    """Counts tokens, without bos and eos.

    Args:
        tokenizer: folder of the tokenizer; None estimates.
        sha256: its identity, which a worker checks.
    """

    tokenizer: Path | None = None
    sha256: str | None = None

    def count(self, text: str, n_bytes: int) -> int:
        """Tokens of ``text``, which has ``n_bytes`` UTF-8 bytes."""
        if self.tokenizer is None:
            return max(1, round(_PER_BYTE * n_bytes + _PER_SPACE * text.count(" ")))
        return len(_loaded(self.tokenizer, self.sha256).encode(text))

    def settings(self) -> dict[str, Any]:
        """What decides the counts."""
        if self.tokenizer is None:
            return {"tokens": "estimated", "per_byte": _PER_BYTE, "per_space": _PER_SPACE}
        return {"tokens": "counted", "tokenizer": self.sha256}


@functools.lru_cache(maxsize=1)
def _loaded(folder: Path, sha256: str | None) -> Tokenizer:
    return Tokenizer.load(folder, expect_sha256=sha256)
