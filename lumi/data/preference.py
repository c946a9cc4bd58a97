"""`PreferenceData`: pairs of a better and a worse answer, packed side by side (``data=preference``).

In a window, document 2k is the better answer of pair k after its prompt, document 2k + 1 the worse one. Only answers are
supervised. The reference model's log-probabilities, computed once, travel with the windows.
"""

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from lumi.corpus.preference import Pair, build_preference, read_preference
from lumi.data.chat import ChatData, answer_document
from lumi.data.rows import RowStream
from lumi.errors import DataError
from lumi.manifest import Manifest, read_manifest
from lumi.tokenizer import Template, Tokenizer

log = logging.getLogger(__name__)

Example = list[tuple[np.ndarray, np.ndarray]]

PAIRS_IN_A_ROW = 16
"""Bounds the arrays that go with a window; more would only be reached by answers of a few tokens."""


class PreferenceStream(RowStream):
    """Packed pairs.

    Attributes:
        reference: (pairs, 2) float32 summed log-probabilities of better and worse answer under the reference model; zeros
            until they are attached.
    """

    def __init__(self, examples: list[Example], seq_len: int, seed: int) -> None:
        super().__init__(examples, seq_len, seed, most=PAIRS_IN_A_ROW)
        self.reference = np.zeros((len(examples), 2), dtype=np.float32)

    def windows(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """With ``pairs`` (n, P) int64, -1 where a window has fewer, and ``reference`` (n, P, 2) float32."""
        result = super().windows(indices)
        pairs = np.full((len(indices), PAIRS_IN_A_ROW), -1, dtype=np.int64)
        for row, index in enumerate(np.asarray(indices).tolist()):
            pairs[row, : len(self.rows[index])] = self.rows[index]
        reference = np.where((pairs >= 0)[..., None], self.reference[np.maximum(pairs, 0)], np.float32(0))
        return {**result, "pairs": pairs, "reference": reference}


class PreferenceData(ChatData):
    """Preference pairs of one or several weighted sources; constructor keys as in `ChatData`.

    A pair that does not fit a window together is left out and counted.
    """

    kind = "preference"

    def _prepare(self, source: Any, folder: Path, *, force: bool) -> Manifest:
        return build_preference(source, folder, force=force)

    def _stream(self, name: str, split: str) -> PreferenceStream:
        examples, too_long = render_pairs(
            read_preference(self.folder(name), split), self.template, self.tokenizer, self.seq_len
        )
        stream = PreferenceStream(examples, self.seq_len, self.seed)
        left_out = f", {too_long:,} longer than a window left out" if too_long else ""
        log.info(
            "%s %s: %s pairs in %s windows, %.1f %% filled%s",
            name, split, f"{len(examples):,}", f"{len(stream):,}", 100 * stream.efficiency, left_out,
        )  # fmt: skip
        return stream

    def reference_key(self) -> dict[str, Any]:
        """What, beside the model, decides the reference log-probabilities."""
        folders = {name: read_manifest(self.folder(name)).fingerprint for name in self.sources}
        return {"data": folders, "template": self.template.sha256, "seq_len": self.seq_len, "seed": self.seed}


def render_pairs(
    pairs: Iterable[Pair], template: Template, tokenizer: Tokenizer, seq_len: int
) -> tuple[list[Example], int]:
    """Pairs as two documents each, and how many did not fit.

    Raises:
        DataError: an answer has no token to judge by.
    """
    examples, too_long = [], 0
    for pair in pairs:
        example = [
            answer_document(template, tokenizer, pair.prompt, pair.chosen),
            answer_document(template, tokenizer, pair.prompt, pair.rejected, ends=pair.rejected_ends),
        ]
        if sum(len(tokens) for tokens, _ in example) > seq_len:
            too_long += 1
            continue
        if not all(mask.any() for _, mask in example):
            raise DataError(f"pair {pair.id}", "has an answer without a token", "prepare the pairs again")
        examples.append(example)
    return examples, too_long
