"""The tokenizer in Hugging Face's own format, with the same ids: ``AutoTokenizer.from_pretrained(folder)``.

transformers' own reader of SentencePiece files gives wrong ids for a unigram model, so the fast format is written instead.
Three things differ from what its converters do, so that every text gets the ids that `Tokenizer.encode` gives:

- Pieces hold real spaces. Nothing is replaced by U+2581, so a text with that character is not mistaken for spaces.
- Hugging Face's unigram model would find ``<0x41>`` or ``</s>`` in a text as a piece, because the names of bytes and
  control tokens stand in its vocabulary. Such names are split before they reach the model, at a place that no piece spans.
- Its chat templates need special tokens to be recognised in text, so by default they are. With
  ``split_special_tokens=True`` they are text, as in Lumi: use that for what users type.
"""

import itertools
import json
import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lumi.manifest import write_atomic
from lumi.tokenizer.config import SPACE_MARK
from lumi.tokenizer.frozen import Tokenizer
from lumi.tokenizer.proto import Piece

log = logging.getLogger(__name__)


def to_huggingface(tokenizer: Tokenizer, folder: Path) -> None:
    """Write ``tokenizer.json`` and ``tokenizer_config.json`` into ``folder``."""
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": tokenizer.piece(tokenizer.bos_id),
        "eos_token": tokenizer.piece(tokenizer.eos_id),
        "unk_token": tokenizer.piece(tokenizer.unk_id),
        "pad_token": tokenizer.piece(tokenizer.pad_id),
        "clean_up_tokenization_spaces": False,
        "lumi_sha256": tokenizer.sha256,
    }
    write_atomic(folder / "tokenizer.json", _json(tokenizer_json(tokenizer)))
    write_atomic(folder / "tokenizer_config.json", _json(config))


def tokenizer_json(tokenizer: Tokenizer) -> dict[str, Any]:
    """The content of ``tokenizer.json``."""
    pieces, unigram = tokenizer.pieces, tokenizer.model_type == "unigram"
    names = [piece.text for piece in pieces if piece.kind in ("unknown", "control")]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            _added_token(token, piece)
            for token, piece in enumerate(pieces)
            if piece.kind in ("unknown", "control", "user")
        ],
        "normalizer": None,
        "pre_tokenizer": _split_names(names, pieces) if unigram else None,
        "post_processor": None,
        "decoder": {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, {"type": "Fuse"}]},
        "model": _unigram(tokenizer, pieces) if unigram else _bpe(tokenizer, pieces),
    }


def _added_token(token: int, piece: Piece) -> dict[str, Any]:
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return {"id": token, "content": piece.text, "special": piece.kind != "user", **flags}


def _unigram(tokenizer: Tokenizer, pieces: Sequence[Piece]) -> dict[str, Any]:
    return {
        "type": "Unigram",
        "unk_id": tokenizer.unk_id,
        "vocab": [[_surface(piece), piece.score] for piece in pieces],
        "byte_fallback": _has_bytes(pieces),
    }


def _bpe(tokenizer: Tokenizer, pieces: Sequence[Piece]) -> dict[str, Any]:
    """SentencePiece keeps no merges: any two neighbours whose union is a piece merge, the best piece first."""
    learned = {_surface(piece): piece.score for piece in pieces if piece.kind == "normal"}
    merges = [
        [text[:cut], text[cut:]]
        for text in sorted(learned, key=lambda text: -learned[text])
        for cut in range(1, len(text))
        if text[:cut] in learned and text[cut:] in learned
    ]
    return {
        "type": "BPE",
        "unk_token": pieces[tokenizer.unk_id].text,
        "fuse_unk": True,
        "byte_fallback": _has_bytes(pieces),
        "vocab": {_surface(piece): token for token, piece in enumerate(pieces)},
        "merges": merges,
    }


def _surface(piece: Piece) -> str:
    return piece.text.replace(SPACE_MARK, " ") if piece.kind == "normal" else piece.text


def _has_bytes(pieces: Sequence[Piece]) -> bool:
    return any(piece.kind == "byte" for piece in pieces)


def _split_names(names: Sequence[str], pieces: Sequence[Piece]) -> dict[str, Any]:
    """Cut every name that a text may spell where no learned piece spans, so that the model cannot find it whole."""
    spanned = {a + b for piece in pieces if piece.kind == "normal" for a, b in itertools.pairwise(_surface(piece))}
    places = []
    for name in [*names, *(["<0x00>"] if _has_bytes(pieces) else [])]:
        cuts = [
            cut
            for cut in range(1, min(len(name), 3 if name == "<0x00>" else 99))
            if name[cut - 1 : cut + 1] not in spanned
        ]
        if not cuts:
            log.warning("in Hugging Face a text that spells %s becomes that token: pieces span all of it", name)
            continue
        before, after = re.escape(name[: cuts[0]]), re.escape(name[cuts[0] :])
        places.append(f"(?<={before})(?={after})".replace("00>", "[0-9A-F]{2}>"))
    return {"type": "Split", "pattern": {"Regex": "|".join(places)}, "behavior": "Isolated", "invert": False}


def _json(value: dict[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False, indent=1) + "\n"
