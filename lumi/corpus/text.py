r"""The rules that every text of a corpus obeys, whatever it came from.

A text is Unicode that can be written as UTF-8, its lines end in ``\n``, it is not only white space, and it holds no NUL.
Lone surrogates (``"\ud800"`` is valid JSON) make SentencePiece raise, and NUL ends a string early in C code: both are
rejected rather than repaired, because a row that has them is usually damaged in other places too.
"""

import dataclasses
from codecs import BOM_UTF16_BE, BOM_UTF16_LE


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """Why a row cannot become a document.

    Attributes:
        reason: a short class of fault; rejected rows are counted by it.
        rule: the sentence for the user, which follows the place: *is not UTF-8 at byte 7 of the line (0xe9)*.
        fix: the setting that would let the row pass, if there is one.
        harmless: the row is well formed and merely has nothing to offer, so it is left out even when faults are errors.
        line: where in the row it stands, from 1, when a row of several lines has one place that is wrong.
    """

    reason: str
    rule: str
    fix: str = ""
    harmless: bool = False
    line: int | None = None


def normalise_newlines(text: str) -> str:
    r"""``text`` with CRLF and lone CR as ``\n``; other characters are kept as they are."""
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def decode_utf8(data: bytes) -> str | Fault:
    """The text of ``data``, or where its first byte stands that is not UTF-8."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        column = error.start - data.rfind(b"\n", 0, error.start)
        return Fault(
            reason="invalid UTF-8",
            rule=f"is not UTF-8 at byte {column:,} of the line (0x{data[error.start]:02x})",
            fix="source.encoding=utf-16"
            if data.startswith((BOM_UTF16_LE, BOM_UTF16_BE))
            else "source.encoding=latin-1",
            line=data.count(b"\n", 0, error.start) + 1,
        )


def text_fault(text: str) -> Fault | None:
    """What keeps ``text`` from being a document, or None when it obeys the rules of this module."""
    if not text or text.isspace():
        return Fault(reason="empty text", rule="has no text", harmless=True)
    if "\0" in text:
        return Fault(reason="NUL character", rule=f"holds a NUL character (at character {text.index(chr(0)) + 1:,})")
    if not text.isascii():
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            rule = f"holds the lone surrogate U+{ord(text[error.start]):04X} (at character {error.start + 1:,})"
            return Fault(reason="lone surrogate", rule=rule)
    return None
