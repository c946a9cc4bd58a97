"""A tokenizer in the form that llama.cpp reads, with the same ids wherever its algorithms can give them.

The name of a family of tokenizers in the file chooses llama.cpp's algorithm:

- SentencePiece ``bpe`` is its ``llama``: merges by score, and bytes for what has no piece.
- SentencePiece ``unigram`` is its ``t5``: the same search for the best segmentation, with the same choice among equals.
  Its ``llama`` merges greedily and gives other ids for most texts. Its ``plamo2`` knows bytes, but searches from the
  other end: a run of five spaces is four and one there, and one and four in SentencePiece.

``t5`` has no bytes for what has no piece; it says ``<unk>``. Three of its features together give them after all:

- A *user-defined* token is found in the raw text before anything else, byte by byte. A byte that no character of a piece has
  (a *lone* byte) can be one, and cuts the text around it.
- What remains of such a character is no UTF-8. The table of replacements (`lumi.export.charsmap`) keeps its bytes as they are,
  where llama.cpp would put U+FFFD.
- A byte that is left over is a normal token. The first byte of a character is only found at the end of a part, since
  llama.cpp steps over as many bytes as it announces.

So a character without a piece keeps its bytes when its first or its second byte is lone. What is left (`Vocabulary.is_exact`)
becomes ``<unk>``: few characters in a vocabulary of English, none in one of ASCII; NUL always, since it ends a string in
the file.
"""

import dataclasses
from collections.abc import Sequence

from lumi.export.charsmap import charsmap
from lumi.export.chat_template import CONTROL_MARK
from lumi.tokenizer import Tokenizer
from lumi.tokenizer.config import SPACE_MARK

_TYPES = {"normal": 1, "unknown": 2, "control": 3, "user": 4, "unused": 5, "byte": 6}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """Arrays of ``tokenizer.ggml.*``.

    Attributes:
        model: llama.cpp's name of the algorithm.
        tokens: each token's bytes; those of control tokens and ``<unk>`` begin with `CONTROL_MARK`.
        scores: float32.
        types: 1 normal, 2 unknown, 3 control, 4 user-defined, 6 byte.
        replacements: the table of replacements; None where none is needed.
        covered: characters that are a piece, a space among them.
        lone: bytes that no character of any piece has.
        falls_back: the tokenizer writes what has no piece as bytes.
    """

    model: str
    tokens: Sequence[bytes]
    scores: Sequence[float]
    types: Sequence[int]
    replacements: bytes | None
    covered: frozenset[str]
    lone: frozenset[int]
    falls_back: bool

    def is_exact(self, text: str) -> bool:
        """Whether llama.cpp can give this text the ids that Lumi gives it."""
        return all(char in self.covered or self._is_exact(char) for char in set(text))

    def _is_exact(self, char: str) -> bool:
        if not self.falls_back:
            return False
        if self.model == "llama":  # there a space is U+2581 before the text is read
            return char != SPACE_MARK or not self.lone.isdisjoint(SPACE_MARK.encode())
        return char != "\0" and not self.lone.isdisjoint(char.encode()[:2])


def make_vocabulary(tokenizer: Tokenizer) -> Vocabulary:
    """The vocabulary of a unigram or bpe tokenizer."""
    pieces = tokenizer.pieces
    surfaces = [piece.text.replace(SPACE_MARK, " ") for piece in pieces if piece.kind == "normal"]
    used = {char for surface in surfaces for char in surface}
    lone = frozenset(range(1, 256)) - {byte for char in used for byte in char.encode()}
    unigram = tokenizer.model_type == "unigram"
    least = min(piece.score for piece in pieces if piece.kind == "normal")
    tokens, scores, types = [], [], []
    for piece in pieces:
        name, score, kind = piece.text.encode(), piece.score, _TYPES[piece.kind]
        if piece.kind in ("control", "unknown"):
            name = (CONTROL_MARK + piece.text).encode()
        elif piece.kind == "byte":
            byte = int(piece.text[3:5], 16)
            if byte in (lone if unigram else lone & set(SPACE_MARK.encode())):
                name, kind = bytes([byte]), _TYPES["user"]
            elif unigram and byte >= 0x80:
                name, kind, score = bytes([byte]), _TYPES["normal"], least
        tokens.append(name)
        scores.append(score)
        types.append(kind)
    wide = sorted(char.encode() for char in used if len(char.encode()) > 1)
    kept = [bytes([byte]) for byte in range(0x80, 0x100) if byte not in lone]
    return Vocabulary(
        model="t5" if unigram else "llama",
        tokens=tokens,
        scores=scores,
        types=types,
        replacements=charsmap({text: text for text in (*wide, *kept)}) if unigram and wide else None,
        covered=frozenset(surface for surface in surfaces if len(surface) == 1),
        lone=lone,
        falls_back=any(piece.kind == "byte" for piece in pieces),
    )
