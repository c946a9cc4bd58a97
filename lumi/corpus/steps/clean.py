"""Cleaning: encoding, invisible characters, white space, and on request addresses, code and what Project Gutenberg adds.

Every rule looks for its few signs first, which costs next to nothing in a text that has none. The rules are repeated until
nothing changes: what one takes out can bring together what another looks for, and a cleaned text is to stay as it is.
"""

import dataclasses
import functools
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from typing import Literal

from datatrove.data import Document

from lumi.corpus.document import broken_rules
from lumi.corpus.steps.step import Step
from lumi.corpus.text import normalise_newlines
from lumi.errors import ConfigError, join_violations

_MOST_ROUNDS = 100  # two are usual; a bound, so that no text can keep a worker for ever

# What ftfy takes for a trace of a wrong encoding has a C1 control, one of four capitals, or two characters in a row that are
# neither both quotes and dashes nor both Cyrillic or Greek letters or of another script. ftfy's own search takes 50 times as
# long. The lookbehinds stand after the first character, so that the search for it is a fast scan.
_DASHES_AND_QUOTES = "\u2010-\u201f\u2022-\u2027"
_OTHER_SCRIPTS = "\u0386-\u0401\u0403-\u048f\u0492-\u1fff\u3000-\ud7ff"
_SUSPECT = re.compile(
    rf"[^\x00-\x7f](?:(?<=[\x80-\x9fÂÃŒœ])"
    rf"|[^\x00-\x7f](?<![{_DASHES_AND_QUOTES}]{{2}})(?<![{_OTHER_SCRIPTS}]{{2}}))"
)

_BREAKS = "\x0b\x0c\r\x85\u2028\u2029"
_INVISIBLE = "\xad\u061c\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufeff\ufff9-\ufffb"
_BREAK = re.compile(f"[{_BREAKS}]")
_CONTROL = re.compile(f"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029{_INVISIBLE}]")
_ASCII_BREAKS = bytes.maketrans(b"\x0b\x0c\r", b"\n\n\n")
_ASCII_CONTROLS = bytes(set(range(0x20)) - set(b"\t\n\x0b\x0c\r")) + b"\x7f"

_SPACE = re.compile("[\xa0\u1680\u2000-\u200a\u202f\u205f\u3000]")
_NEWLINES = re.compile(r"\n\n\n+")  # much faster than \n{3,}: its beginning is a literal

_ADDRESS = r"""(?:(?i:https?|ftp)://|www\.(?=\w))(?:[^\s<>"()]|\([^\s<>"()]*\))+(?<![.,;:!?'’”\]}*_])"""
_LINK = re.compile(rf"!?\[([^\[\]\n]*)\]\((?>{_ADDRESS})[^()\n]*\)")
_URL = re.compile(rf" ?(?:<{_ADDRESS}>|\b{_ADDRESS})")

_FENCE = re.compile(r"[ \t]*(`{3,}|~{3,})([^`\n]*)$")
_INDENTED = ("    ", "\t")
_CODE = re.compile(
    r"[{}=\\]|\w[\[(]|\w_\w|->|::|\|\||&&|</?\w|^\s*(?:>>>|[$#@] ?\w|//|import \w|from \w+ import|return\b|else:|try:)"
)

_NOTE = r"(?i:(?:original )?transcriber(?:[’']?s)?[’']? notes?\b)"
_START = (
    r"(?:^[ \t]*\*{3}[ *]*START OF (?:THE |THIS )?PROJECT GUTENBERG(?:[^*\n]*\n?[^*\n]*\*{3})?[^\n]*"
    r"|^[ \t]*\*END[ *]*THE SMALL PRINT![^\n]*)"
)
_END = (
    r"(?:^[ \t]*\*{3}[ *]*END OF (?:THE |THIS )?PROJECT GUTENBERG"
    r"|^[ \t*]*(?:This is the )?End of (?:the |this )?Project Gutenberg|^[ \t*]*START: FULL LICENSE)"
)
_HEAD = re.compile(_START, re.M | re.I)
_FOOT = re.compile(rf"{_END}[\s\S]*?(?:{_START}|\Z)", re.M | re.I)
_CREDIT = re.compile(
    r"\s*(?:(?:Produced|Transcribed|Prepared) by [A-Z]|Transcribed from |HTML version by |E-?[Tt]ext (?:prepared|produced) by "
    rf"|This (?:[Ee]-?[Tt]ext|e-?[Bb]ook) was (?:produced|prepared) )|\W*{_NOTE}[^\w\n]*(?:\n[ \t]*)*"
)
_BLANK = re.compile(r"\n[ \t]*\n")
_BRACKETED_NOTE = re.compile(rf"[ \t]*\[\s*{_NOTE}[^\[\]]{{0,3000}}\]")
_LAST_NOTE = re.compile(
    rf"^[^\w\n]*(?:{_NOTE}|(?i:typographical errors corrected by the etext transcriber))[^\n]{{0,60}}$", re.M
)
_LAST_NOTE_CHARS = 8000


@dataclasses.dataclass(kw_only=True, repr=False, eq=False)
class Clean(Step):
    r"""Mends a text and takes out what no model should learn to write; leaves a document out if nothing is left of it.

    Indentation, line breaks and spaces between words stay: they mean something in code, tables and verse.

    Args:
        mojibake: lines that were read in a wrong encoding (``cafÃ©``) are mended by ftfy, which tells them from lines that only
            look unusual. Lines that are fine are never handed to it.
        unicode: normal form: ``NFC`` writes one character one way; ``NFKC`` also replaces variants, ``ﬁ`` by ``fi`` and with it
            ``10³`` by ``103``; null leaves them.
        control_characters: drops control characters but tab and newline, zero-width and direction marks, byte order marks and
            soft hyphens; joiners stay, for emoji and some scripts need them. Vertical tabs, form feeds, carriage returns,
            U+0085, U+2028 and U+2029 become newlines.
        whitespace: no-break and other spaces of Unicode become plain ones, spaces at line ends go, and no more than two
            newlines follow each other.
        urls: ``keep`` or ``remove``, of ``http://``, ``https://``, ``ftp://`` and ``www.``; of a link in Markdown its text
            stays.
        code: ``keep`` or ``remove``, of blocks between fences of Markdown, and of two or more indented lines in a row (by four
            spaces or a tab) of which at least half have signs of code.
        gutenberg: takes out what volunteers and Project Gutenberg add to a book: all before its start and after its end mark,
            in the forms of all years; at the beginning who made it; transcriber's notes at the beginning, at the end and in
            brackets.

    Raises:
        ConfigError: an option is not one of its values; ``mojibake`` and the package ftfy is missing.
    """

    name = "clean"

    mojibake: bool = True
    unicode: Literal["NFC", "NFKC"] | None = "NFC"
    control_characters: bool = True
    whitespace: bool = True
    urls: Literal["keep", "remove"] = "keep"
    code: Literal["keep", "remove"] = "keep"
    gutenberg: bool = False

    def __post_init__(self) -> None:
        """Check the options."""
        super().__post_init__()
        switches = ("mojibake", "control_characters", "whitespace", "gutenberg")
        rules = {key: (isinstance(getattr(self, key), bool), "must be true or false") for key in switches}
        rules["unicode"] = (self.unicode in ("NFC", "NFKC", None), "must be NFC, NFKC or null")
        rules |= {key: (getattr(self, key) in ("keep", "remove"), "must be keep or remove") for key in ("urls", "code")}
        if violations := broken_rules(f"corpus.steps.{self.name}", self, rules):
            raise join_violations(violations)

    def apply(self, document: Document) -> str | None:
        """Clean the text; one of which nothing is left is kept as it was, for a person to look at."""
        text = document.text
        for _ in range(_MOST_ROUNDS):
            before, text = text, self._once(text)
            if text == before:
                break
        if not text or text.isspace():
            return "nothing left"
        document.text = text
        return None

    def _once(self, text: str) -> str:
        if self.mojibake and not text.isascii():
            text = _mended(text)
        if self.control_characters:
            text = _without_controls(text)
        if self.unicode is not None and not text.isascii():
            text = unicodedata.normalize(self.unicode, text)
        if self.gutenberg:
            text = _without_gutenberg(text)
        if self.code == "remove":
            text = _without_code(text)
        if self.urls == "remove" and ("://" in text or "www." in text):
            text = _URL.sub("", _LINK.sub(r"\1", text))
        return _tidy(text) if self.whitespace else text


@functools.cache
def _ftfy() -> tuple[Callable[[str], bool], Callable[[str], str]]:
    try:
        from ftfy import fix_encoding
        from ftfy.badness import is_bad
    except ImportError:
        raise ConfigError(
            "corpus.steps.clean.mojibake=True", "needs the package ftfy", "pip install 'lumi[corpus]'"
        ) from None
    return is_bad, fix_encoding


def _mended(text: str) -> str:
    if not _SUSPECT.search(text):
        return text
    is_bad, fix_encoding = _ftfy()
    lines = text.split("\n")
    for number, line in enumerate(lines):
        if _SUSPECT.search(line) and is_bad(line):
            # Java wrote NUL as C0 80, and ftfy reads it; a document must not hold one.
            lines[number] = fix_encoding(line).replace("\0", "")
    return "\n".join(lines)


def _without_controls(text: str) -> str:
    text = normalise_newlines(text)
    if text.isascii():
        data = text.encode()
        kept = data.translate(_ASCII_BREAKS, _ASCII_CONTROLS)
        return text if kept == data else kept.decode()
    return _CONTROL.sub("", _BREAK.sub("\n", text)) if _CONTROL.search(text) else text


def _tidy(text: str) -> str:
    if not text.isascii():
        text = _SPACE.sub(" ", text)
    if " \n" in text or "\t\n" in text or text.endswith((" ", "\t")):
        text = "\n".join([line.rstrip(" \t") for line in text.split("\n")])
    return _NEWLINES.sub("\n\n", text) if "\n\n\n" in text else text


def _without_code(text: str) -> str:
    if "```" in text or "~~~" in text:
        text = "\n".join(_outside_fences(text.split("\n")))
    if "\n    " in text or "\n\t" in text or text.startswith(_INDENTED):
        text = "\n".join(_outside_code(text.split("\n")))
    return text


def _outside_fences(lines: Iterable[str]) -> Iterator[str]:
    """The lines that are not between two fences; a fence that nothing closes is a line like any other."""
    fence, inside = "", list[str]()
    for line in lines:
        match = _FENCE.match(line)
        if not fence and not match:
            yield line
        elif not fence and match:
            fence, inside = match[1], [line]
        elif match and match[1].startswith(fence) and not match[2].strip():
            fence, inside = "", []
        else:
            inside.append(line)
    yield from inside


def _outside_code(lines: list[str]) -> Iterator[str]:
    """The lines without the indented blocks that look like code."""
    position = 0
    while position < len(lines):
        end = _block_end(lines, position)
        block = [line for line in lines[position:end] if line.strip()]
        if len(block) < 2 or 2 * sum(1 for line in block if _CODE.search(line)) < len(block):
            yield from lines[position : max(end, position + 1)]
        position = max(end, position + 1)


def _block_end(lines: list[str], position: int) -> int:
    """Behind the last indented line of a block that begins at ``position``; blank lines inside belong to it."""
    end = position
    for number in range(position, len(lines)):
        if lines[number].strip():
            if not lines[number].startswith(_INDENTED):
                break
            end = number + 1
        elif end == position:
            break
    return end


def _without_gutenberg(text: str) -> str:
    if "utenberg" in text or "UTENBERG" in text or "SMALL PRINT" in text:
        text = _FOOT.sub("\n", text)
        heads = list(_HEAD.finditer(text))
        text = text[heads[-1].end() :] if heads else text
    text = _after_credits(text)
    if "ranscriber" in text or "RANSCRIBER" in text:
        text = _BRACKETED_NOTE.sub("", text)
        note = _LAST_NOTE.search(text, max(len(text) // 2, len(text) - _LAST_NOTE_CHARS))
        text = text[: note.start()] if note else text
    return text


def _after_credits(text: str) -> str:
    """Without the paragraphs at the beginning that tell who made the file; not if there is nothing else."""
    start = 0
    while credit := _CREDIT.match(text, start):
        blank = _BLANK.search(text, credit.end())
        if blank is None:
            break
        start = blank.end()
    return text[start:]
