"""`PreferenceData`: pairs of a better and a worse answer, packed side by side (``data=preference``).

In a window, document 2k is the better answer of pair k after its prompt, document 2k + 1 the worse one. Only answers are
supervised. The reference model's log-probabilities, computed once, travel with the windows.
"""

import bisect
import dataclasses
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lumi.corpus.preference import Pair, audit_lines, build_preference, read_preference
from lumi.data.chat import ChatData, Rendering, answer_document
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

    def __init__(self, examples: list[Example], seq_len: int, seed: int, ids: Sequence[str] = ()) -> None:
        super().__init__(examples, seq_len, seed, most=PAIRS_IN_A_ROW, ids=ids)
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

    Both answers of a pair share a window. Of a pair that is longer ``too_long=cut`` drops the oldest exchanges of its prompt.
    """

    kind = "preference"

    def _prepare(self, source: Any, folder: Path, *, force: bool) -> Manifest:
        manifest = build_preference(source, folder, force=force)
        for line in audit_lines(manifest.info["audit"]):
            log.info("audit of %s: %s", source.name, line)
        return manifest

    def _stream(self, name: str, split: str) -> PreferenceStream:
        pairs = read_preference(self.folder(name), split)
        rendering = render_pairs(pairs, self.template, self.tokenizer, self.seq_len, cut=self.cut)
        stream = PreferenceStream(rendering.examples, self.seq_len, self.seed, rendering.ids)
        log.info("%s", rendering.report(f"{name} {split}", "pairs", stream))
        return stream

    def reference_key(self) -> dict[str, Any]:
        """What, beside the model, decides the reference log-probabilities."""
        folders = {name: read_manifest(self.folder(name)).fingerprint for name in self.sources}
        own = {"seq_len": self.seq_len, "cut": self.cut}
        return {"data": folders, "template": self.template.sha256, **own}


def render_pairs(
    pairs: Iterable[Pair], template: Template, tokenizer: Tokenizer, seq_len: int, *, cut: bool = False
) -> Rendering:
    """Pairs as two documents each.

    Args:
        seq_len: tokens of both answers with their prompts, at most.
        cut: drop the oldest exchanges of a longer pair's prompt, instead of leaving the pair out.

    Raises:
        DataError: an answer has no token to judge by.
    """
    examples, ids, shortened, too_long = [], list[str](), 0, 0
    for pair in pairs:
        example = _example(pair, template, tokenizer)
        if _length(example) > seq_len:
            example = _recent(pair, template, tokenizer, seq_len) if cut else None
            too_long += example is None
            shortened += example is not None
        if example is None:
            continue
        if not all(mask.any() for _, mask in example):
            raise DataError(f"pair {pair.id}", "has an answer without a token", "prepare the pairs again")
        examples.append(example)
        ids.append(pair.id)
    return Rendering(examples=examples, ids=ids, cut=shortened, too_long=too_long)


def _example(pair: Pair, template: Template, tokenizer: Tokenizer) -> Example:
    return [
        answer_document(template, tokenizer, pair.prompt, pair.chosen),
        answer_document(template, tokenizer, pair.prompt, pair.rejected, ends=pair.rejected_ends),
    ]


def _length(example: Example) -> int:
    return sum(len(tokens) for tokens, _ in example)


def _recent(pair: Pair, template: Template, tokenizer: Tokenizer, seq_len: int) -> Example | None:
    """The pair with as many of its last exchanges as fit, or None when the question alone does not."""
    system = pair.prompt[:1] if pair.prompt[0].role == "system" else ()
    starts = [number for number, message in enumerate(pair.prompt) if message.role == "user"][::-1]

    def since(start: int) -> Example:
        shortened = dataclasses.replace(pair, prompt=(*system, *pair.prompt[start:]))
        return _example(shortened, template, tokenizer)

    fitting = bisect.bisect_right(starts, seq_len, key=lambda start: _length(since(start)))
    return since(starts[fitting - 1]) if fitting else None
