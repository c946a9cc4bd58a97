"""The frozen tokenizer: text to ids and back, exactly, with one identity everywhere.

Its identity is the SHA-256 of the bytes of ``tokenizer.model``. They are compared before they are parsed, because a flipped
bit in such a file loads silently and gives other ids. What is promised for every text, and tested with arbitrary Unicode:

- ``decode(encode(text)) == text``, and the tokens' bytes (`Tokenizer.token_bytes`) add up to the text's UTF-8 bytes;
- no text gives a control id: ``</s>`` that somebody typed is text.

SentencePiece by itself breaks the first promise for texts with U+2581, its own sign for a space, and its sums of float32
scores lose so many digits in a long document that the tokens of a line depend on what stands before it (in 49 of 50 books).
Both are mended here by cutting the text where no piece can span, before it is segmented.
"""

import functools
import itertools
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import sentencepiece

from lumi.errors import DataError, TokenizerMismatch
from lumi.manifest import sha256_bytes, verify
from lumi.tokenizer.config import SPACE_MARK
from lumi.tokenizer.proto import Piece, normaliser_tables, read_model

MODEL_FILE = "tokenizer.model"

_SEGMENT_CHARS = 1000
"""Text is segmented in parts of about this length, whose sums of scores are exact; much shorter ones are slower."""
_LONGEST_SEGMENT = 10_000
"""Where there is no white space at all, a cut is forced here: sums stay exact, and a line of 50 MB needs no gigabytes."""
_PROBE = " a  b\n\n\tc \u2047\u00c5\ufb01 "
_UNKNOWN = "\u2047".encode()
_BYTE = re.compile("<0x[0-9A-F]{2}>")


class Tokenizer:
    """A SentencePiece model whose bytes are known to be the expected ones.

    Use `Tokenizer.load` for a folder and `Tokenizer.from_bytes` for a model inside a checkpoint.

    Attributes:
        model_bytes: the model file, for embedding into checkpoints and exports.
        sha256: of those bytes: the identity.
        model_type: ``unigram`` or ``bpe``.
        pieces: the vocabulary by id.
        vocab_size: number of ids.
        unk_id, bos_id, eos_id, pad_id: four different ids.
        controls: name → id of every token that no text becomes, bos, eos and padding included.
    """

    def __init__(self, model_bytes: bytes) -> None:
        processor = sentencepiece.SentencePieceProcessor()
        try:
            self.model_type, self.pieces = read_model(model_bytes)
            if normaliser_tables(model_bytes):
                raise _changes_text()
            processor.LoadFromSerializedProto(model_bytes)
        except (RuntimeError, ValueError) as error:
            raise DataError("the tokenizer's bytes", f"are not a SentencePiece model ({error})") from None
        self._processor = processor
        self.model_bytes = model_bytes
        self.sha256 = sha256_bytes(model_bytes)
        self.vocab_size = len(self.pieces)
        self.unk_id: int = processor.unk_id()
        self.bos_id: int = processor.bos_id()
        self.eos_id: int = processor.eos_id()
        self.pad_id: int = processor.pad_id()
        self.controls = {piece.text: token for token, piece in enumerate(self.pieces) if piece.kind == "control"}
        self._check_promises()
        self._surfaces = [_surface(piece) for piece in self.pieces]
        named = zip(self.pieces, self._surfaces, strict=True)
        self._named_surfaces = [piece.text.encode() if piece.kind == "control" else surface for piece, surface in named]
        self._fixed = self._find_fixed()
        self._fixed_pattern = re.compile(f"({'|'.join(map(re.escape, self._fixed))})")
        self._boundary = self._find_boundary()

    @classmethod
    def load(cls, folder: Path, *, expect_sha256: str | None = None) -> Self:
        """Read the tokenizer of a folder that `train_tokenizer` wrote.

        Raises:
            DataError: the folder is missing, or any of its bytes changed since it was written.
            TokenizerMismatch: it is whole, but not the tokenizer that ``expect_sha256`` names.
        """
        manifest = verify(folder, kind="tokenizer")
        if MODEL_FILE not in manifest.files or manifest.info.get("sha256") != manifest.files[MODEL_FILE]["sha256"]:
            raise DataError(f"{folder}", "its manifest contradicts itself about the model", "make the tokenizer again")
        check_identity(manifest.info["sha256"], expect_sha256, f"{folder}")
        return cls.from_bytes((folder / MODEL_FILE).read_bytes(), expect_sha256=manifest.info["sha256"])

    @classmethod
    def from_bytes(cls, model_bytes: bytes, *, expect_sha256: str | None = None) -> Self:
        """The tokenizer with these model bytes.

        Raises:
            TokenizerMismatch: their SHA-256 is not ``expect_sha256``; they are not even parsed then.
            DataError: they are no SentencePiece model, or one that changes text.
        """
        check_identity(sha256_bytes(model_bytes), expect_sha256, "the tokenizer")
        return cls(model_bytes)

    def encode(self, text: str) -> list[int]:
        """Ids of ``text``, without bos and eos; never a control id.

        Raises:
            DataError: ``text`` holds half a surrogate pair, which has no UTF-8 bytes.
        """
        ids: list[int] = []
        for segment in self._segments(text):
            ids.extend(self._fixed.get(segment) or self._processor.encode(segment))
        return ids

    def encode_batch(self, texts: Sequence[str], num_threads: int = 1) -> list[np.ndarray]:
        """Ids of each text as `encode` gives them, (n_tokens,) int32; the threads change the speed only.

        Raises:
            DataError: as `encode`.
        """
        segments: list[str] = []
        ends = [0]
        for text in texts:
            segments.extend(self._segments(text))
            ends.append(len(segments))
        arrays: list[np.ndarray] = self._processor.encode(segments, out_type="numpy", num_threads=num_threads)
        fixed = {text: np.array(ids, dtype=np.int32) for text, ids in self._fixed.items()}
        arrays = [fixed.get(segment, array) for segment, array in zip(segments, arrays, strict=True)]
        nothing = np.empty(0, dtype=np.int32)  # an empty text has no segment
        return [np.concatenate([nothing, *arrays[start:stop]]) for start, stop in itertools.pairwise(ends)]

    def decode(self, ids: Sequence[int] | np.ndarray, *, skip_control: bool = True) -> str:
        """The text that the ids stand for; bytes that are not UTF-8 (a model may produce any) become U+FFFD.

        Args:
            ids: any integers, a tensor on the CPU too.
            skip_control: leave control tokens out; else their names appear.

        Raises:
            DataError: an id is outside the vocabulary.
        """
        return self.decode_bytes(ids, skip_control=skip_control).decode("utf-8", errors="replace")

    def decode_bytes(self, ids: Sequence[int] | np.ndarray, *, skip_control: bool = True) -> bytes:
        """As `decode`, before UTF-8: for streams that may end within a character."""
        values = np.asarray(ids)
        for bound in (values.min(), values.max()) if values.size else ():
            if not 0 <= bound < self.vocab_size:
                raise DataError(f"token id {bound}", f"must be from 0 to {self.vocab_size - 1}, the vocabulary's last")
        table = self._surfaces if skip_control else self._named_surfaces
        return b"".join([table[token] for token in values.tolist()])

    def piece(self, token: int) -> str:
        """How the vocabulary writes a token: spaces as U+2581, bytes as ``<0x0A>``, control tokens by name."""
        return self.pieces[token].text

    def token_bytes(self) -> np.ndarray:
        """UTF-8 bytes each token stands for, (V,) int32: 0 for control tokens and ``<unk>``, 1 for byte pieces."""
        sizes = np.array([len(surface) for surface in self._surfaces], dtype=np.int32)
        sizes[self.unk_id] = 0
        return sizes

    def __repr__(self) -> str:
        return f"Tokenizer(vocab_size={self.vocab_size}, sha256={self.sha256[:12]}…)"

    def __reduce__(self) -> tuple[Any, ...]:
        return functools.partial(type(self).from_bytes, expect_sha256=self.sha256), (self.model_bytes,)

    def _segments(self, text: str) -> Iterator[str]:
        """``text`` in parts that can be segmented one by one; those in ``_fixed`` have their ids already."""
        if not text.isascii():
            utf8(text)  # SentencePiece would raise without saying where
        for number, part in enumerate(self._fixed_pattern.split(text)):
            if number % 2:  # what the pattern's group has found
                yield part
                continue
            start = 0
            while (near := start + _SEGMENT_CHARS) < len(part):
                far = min(start + _LONGEST_SEGMENT, len(part))
                found = self._boundary.search(part, near, far)
                stop = found.start() if found else far
                yield part[start:stop]
                start = stop
            if start < len(part):
                yield part[start:]

    def _find_fixed(self) -> dict[str, list[int]]:
        """Texts that always have the same ids, the longest first: user symbols, and U+2581 as its three bytes."""
        user = {piece.text: [token] for token, piece in enumerate(self.pieces) if piece.kind == "user"}
        mark = [self._processor.piece_to_id(f"<0x{byte:02X}>") for byte in SPACE_MARK.encode()]
        return {**dict(sorted(user.items(), key=lambda item: -len(item[0]))), SPACE_MARK: mark}

    def _find_boundary(self) -> re.Pattern[str]:
        """Where a cut changes nothing: before white space that no piece has after something else."""
        texts = "\0".join(piece.text.replace(SPACE_MARK, " ") for piece in self.pieces if piece.kind == "normal")
        safe = [sign for sign in " \n" if not re.search(rf"[^ \n\0]{sign}", texts)]
        return re.compile(f"(?<=[^ \n])[{''.join(safe)}]" if safe else r"(?!)")

    def _check_promises(self) -> None:
        """Refuse a model of other origin that would break them."""
        special = (self.unk_id, self.bos_id, self.eos_id, self.pad_id)
        if min(special) < 0 or len(set(special)) < len(special):
            raise DataError(
                "the tokenizer's model",
                f"must have four different ids for unk, bos, eos and pad, it has {special}",
                "train it with python prepare.py step=tokenizer",
            )
        if self._processor.normalize(_PROBE) != _PROBE.replace(" ", SPACE_MARK):
            raise _changes_text()


def _changes_text() -> DataError:
    return DataError(
        "the tokenizer's model",
        "must not change text (normalisation, a space put before it, spaces removed)",
        "train it with python prepare.py step=tokenizer",
    )


def _surface(piece: Piece) -> bytes:
    """The bytes that a piece stands for in a text."""
    match piece.kind:
        case "control":
            return b""
        case "unknown":
            return _UNKNOWN
        case "byte":
            if not _BYTE.fullmatch(piece.text):
                raise DataError("the tokenizer's model", f"has the byte piece {piece.text!r}, which names no byte")
            return bytes([int(piece.text[3:5], 16)])
        case _:
            return piece.text.replace(SPACE_MARK, " ").encode()


def check_identity(actual: str, expected: str | None, what: str) -> None:
    """Compare the identity of a tokenizer with the one that an artefact was made with.

    Raises:
        TokenizerMismatch: with both hashes and the command that rebuilds.
    """
    if expected is not None and actual != expected:
        raise TokenizerMismatch(
            f"{what} has sha256 {actual[:12]}…",
            f"needed here is {expected[:12]}…, the tokenizer that the other artefacts were made with",
            "choose that tokenizer (tokenizer=existing tokenizer.path=…), or rebuild all: python prepare.py force=true",
        )


def utf8(text: str) -> bytes:
    """The UTF-8 bytes of ``text``.

    Raises:
        DataError: it holds half a surrogate pair (JSON can spell one), which has no UTF-8 bytes.
    """
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"text with {text[error.start]!r} at character {error.start + 1:,}",
            "is not Unicode: half a surrogate pair has no UTF-8 bytes",
            "replace it, in Python: text.encode('utf-8', 'replace').decode()",
        ) from None
