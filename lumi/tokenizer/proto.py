"""A SentencePiece model file as Python values: its processor does not tell the kind of model, nor all types of pieces.

The file is a ``ModelProto``: field 1 is a piece (1 text, 2 score, 3 type) and repeats, field 2 the trainer's settings (3 model
type). In protobuf's wire format each field is a varint ``number << 3 | type``, then a varint (type 0), eight bytes (1), a
length and so many bytes (2), or four bytes (5). Reading these few takes less than depending on the protobuf package, whose
versions are a common conflict.
"""

import struct
from collections.abc import Iterator
from typing import Literal, NamedTuple

PieceKind = Literal["normal", "unknown", "control", "user", "unused", "byte"]

_KINDS: dict[int, PieceKind] = {1: "normal", 2: "unknown", 3: "control", 4: "user", 5: "unused", 6: "byte"}
_FLOAT = struct.Struct("<f")
_MODEL_TYPES = {1: "unigram", 2: "bpe", 3: "word", 4: "char"}


class Piece(NamedTuple):
    """One row of the vocabulary: its text (with U+2581 for a space), its float32 score, and what it is."""

    text: str
    score: float
    kind: PieceKind


def read_model(model_bytes: bytes) -> tuple[str, list[Piece]]:
    """The kind of model (``unigram``, ``bpe``…) and its pieces by id.

    Raises:
        ValueError: the bytes are no model.
    """
    model_type, pieces = 1, []
    for number, _, message in _fields(model_bytes, slice(0, len(model_bytes))):
        if number == 1:
            text, score, kind = b"", bytes(4), 1
            for field, value, place in _fields(model_bytes, message):
                if field == 1:
                    text = model_bytes[place]
                elif field == 2:
                    score = model_bytes[place]
                elif field == 3:
                    kind = value
            if kind not in _KINDS or len(score) != _FLOAT.size:
                raise ValueError(f"piece {len(pieces)} is of no known kind, or its score no float32")
            pieces.append(Piece(text.decode(), _FLOAT.unpack(score)[0], _KINDS[kind]))
        elif number == 2:
            settings = _fields(model_bytes, message)
            model_type = next((value for field, value, _ in settings if field == 3), model_type)
    if model_type not in _MODEL_TYPES:
        raise ValueError(f"its kind is {model_type}, none that is known")
    return _MODEL_TYPES[model_type], pieces


def normaliser_tables(model_bytes: bytes) -> bool:
    """Whether the model brings tables that rewrite text, which SentencePiece would follow without looking where they lead.

    Raises:
        ValueError: the bytes are no model.
    """
    messages = (place for number, _, place in _fields(model_bytes, slice(0, len(model_bytes))) if number in (3, 5))
    return any(
        field == 2 and place.start < place.stop for spec in messages for field, _, place in _fields(model_bytes, spec)
    )


def with_rounded_scores(model_bytes: bytes, steps_per_unit: int) -> bytes:
    """The same model with each score rounded to a multiple of ``1 / steps_per_unit``."""
    rounded = bytearray(model_bytes)
    for number, _, message in _fields(model_bytes, slice(0, len(model_bytes))):
        if number == 1:
            for field, _, place in _fields(model_bytes, message):
                if field == 2:
                    (score,) = _FLOAT.unpack(model_bytes[place])
                    rounded[place] = _FLOAT.pack(round(score * steps_per_unit) / steps_per_unit)
    return bytes(rounded)


def _fields(data: bytes, within: slice) -> Iterator[tuple[int, int, slice]]:
    """Number, integer and place of the bytes of each field; the one of the two that its type lacks is 0 or empty."""
    at = within.start
    while at < within.stop:
        tag, at = _varint(data, at)
        value = size = 0
        match tag & 7:
            case 0:
                value, at = _varint(data, at)
            case 2:
                size, at = _varint(data, at)
            case kind:
                size = {1: 8, 5: 4}.get(kind, len(data) + 1)  # of no other kind is the length known
        if at + size > within.stop:
            raise ValueError("a field is longer than what holds it")
        yield tag >> 3, value, slice(at, at + size)
        at += size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while shift < 70:  # ten bytes are the most
        if at == len(data):
            break
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
    raise ValueError("a number has no end")
