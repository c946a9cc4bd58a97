"""How good a tokenizer is on text that it was not trained on, in figures and in a page for people (TOKENIZER_CARD.md)."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from lumi.tokenizer.config import TokenizerConfig
from lumi.tokenizer.frozen import Tokenizer, utf8

_N_EXAMPLES = 40


def measure(tokenizer: Tokenizer, texts: Sequence[str]) -> dict[str, Any]:
    """Compression, losses and use of the vocabulary on ``texts``.

    Returns:
        ``documents``, ``bytes``, ``tokens``; ``bytes_per_token`` and ``chars_per_token``; the shares of tokens that are
        ``<unk>`` (``unknown_ratio``: text that is lost) or single bytes (``byte_ratio``: characters without a piece);
        ``round_trip_failures``, texts that decode to something else; ``pieces_used_ratio``, learned pieces that occur.
    """
    counts = np.zeros(tokenizer.vocab_size, dtype=np.int64)
    n_failures = 0
    for text in texts:
        (ids,) = tokenizer.encode_batch([text])
        counts += np.bincount(ids, minlength=tokenizer.vocab_size)
        n_failures += tokenizer.decode(ids) != text
    kinds = np.array([piece.kind for piece in tokenizer.pieces])
    n_bytes, n_tokens = sum(len(utf8(text)) for text in texts), int(counts.sum())
    return {
        "documents": len(texts),
        "bytes": n_bytes,
        "tokens": n_tokens,
        "bytes_per_token": round(n_bytes / n_tokens, 4),
        "chars_per_token": round(sum(map(len, texts)) / n_tokens, 4),
        "unknown_ratio": round(float(counts[tokenizer.unk_id]) / n_tokens, 6),
        "byte_ratio": round(float(counts[kinds == "byte"].sum()) / n_tokens, 6),
        "round_trip_failures": n_failures,
        "pieces_used_ratio": round(float((counts[kinds == "normal"] > 0).mean()), 4),
    }


def tokenizer_card(tokenizer: Tokenizer, config: TokenizerConfig, parents: dict[str, str], info: dict[str, Any]) -> str:
    """The page: identity, figures, special tokens, and pieces to look at."""
    where = "held-out documents" if info["held_out"] else "documents it was trained on (too few to hold any out)"
    learned = [piece.text for piece in tokenizer.pieces if piece.kind == "normal"]
    longest = sorted(learned, key=len, reverse=True)
    trained_on = ", ".join(f"{name} (`{sha256[:12]}…`)" for name, sha256 in parents.items()) or "unnamed text"
    figures = info["measured"]
    return f"""# Tokenizer {config.name}

{tokenizer.vocab_size:,} pieces, {config.model_type}, trained on {info["train_bytes"] / 1e6:,.1f} MB of
{info["text_bytes"] / 1e6:,.1f} MB from {trained_on}.

Identity (SHA-256 of `tokenizer.model`): `{tokenizer.sha256}`

## Measured on {figures["documents"]:,} {where}, {figures["bytes"] / 1e6:,.2f} MB

| | |
|---|---|
| bytes per token | {figures["bytes_per_token"]:.3f} |
| characters per token | {figures["chars_per_token"]:.3f} |
| unknown tokens (text lost) | {figures["unknown_ratio"]:.4%} |
| single-byte tokens (characters without a piece) | {figures["byte_ratio"]:.4%} |
| documents that do not decode to themselves | {figures["round_trip_failures"]} |
| learned pieces that occur | {figures["pieces_used_ratio"]:.1%} |

## Special tokens: no text becomes one of these

{", ".join(f"`{name}` = {token}" for name, token in tokenizer.controls.items())}; `{tokenizer.piece(tokenizer.unk_id)}` =
{tokenizer.unk_id} stands for what has no piece.

## Pieces (a space is written ▁)

First: {_shown(learned[:_N_EXAMPLES])}

Longest: {_shown(longest[:_N_EXAMPLES])}

Last: {_shown(learned[-_N_EXAMPLES:])}

## Settings

| key | value |
|---|---|
{chr(10).join(f"| tokenizer.{key} | `{value}` |" for key, value in config.settings().items())}
"""


def _shown(pieces: Sequence[str]) -> str:
    return " ".join(f"`{_visible(piece)}`" for piece in pieces)


def _visible(piece: str) -> str:
    """``piece`` without line breaks, and without the sign that would end Markdown's code."""
    return piece.replace("\n", "\\n").replace("\r", "\\r").replace("`", "′")
