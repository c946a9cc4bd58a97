"""Reads a long JSON list row by row, in memory bounded by the largest row.

The list may be the whole file, or the one list that the outermost object holds (``{"version": 1, "data": [...]}``). A
list has no lines to start anew from, so what is not JSON ends the file with an error, also where bad rows are skipped.
"""

import codecs
import io
import json
import re
from collections.abc import Iterator
from typing import Any

from lumi.corpus.streams import BOM
from lumi.errors import DataError

_SPACE = re.compile(r"[ \t\n\r]*")
_PIECE_BYTES = 1 << 20


class JsonList:
    """The rows of one file.

    Bytes that are not UTF-8 come back as surrogates U+DC80 to U+DCFF in the row that holds them, so that the rows around it
    can still be used.

    Args:
        stream: UTF-8 bytes.
        name: of the file, for errors.
        max_bytes: about the most characters that a row may have.
        text_keys: keys that a row has; an outermost object that has one is no list of rows.
    """

    def __init__(self, stream: io.BufferedReader, name: str, max_bytes: int, text_keys: list[str]) -> None:
        self._stream, self._name, self._max_bytes, self._text_keys = stream, name, max_bytes, text_keys
        self._decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        self._text, self._pos, self._ended = "", 0, False
        self._line, self._line_pos = 1, 0

    def rows(self) -> Iterator[tuple[int, Any]]:
        """Each row with the line on which it begins.

        Raises:
            DataError: not JSON, or neither a list nor an object that holds one list.
        """
        self._grow()
        self._text = self._text.removeprefix(BOM)
        match self._peek():
            case "[":
                yield from self._list()
            case "{":
                yield from self._object()
            case "":
                return
            case _:
                raise self._error("holds neither a list nor an object with a list")
        if self._peek():
            raise self._error("goes on after its list", "one object a line is .jsonl: rename the file")

    def _list(self) -> Iterator[tuple[int, Any]]:
        self._take("[")
        while self._peek() != "]":
            yield self._line_here(), self._value()
            if self._peek() != "]":
                self._take(",")
        self._take("]")

    def _object(self) -> Iterator[tuple[int, Any]]:
        self._take("{")
        keys: list[str] = []
        list_key = None
        while self._peek() != "}":
            keys.append(str(self._value()))
            self._take(":")
            if self._peek() != "[" or keys[-1] in self._text_keys:
                self._value()
            elif list_key is None:
                list_key = keys[-1]
                yield from self._list()
            else:
                rule = f"holds more than one list: {list_key!r} and {keys[-1]!r}"
                raise self._error(rule, "write the rows as .jsonl, one object a line")
            if self._peek() != "}":
                self._take(",")
        self._take("}")
        if list_key is None or set(self._text_keys) & set(keys):
            rule = f"is one object without a list of rows; its keys: {', '.join(keys[:20])}"
            raise self._error(rule, "write it as .jsonl, one object a line")

    def _value(self) -> Any:
        """Parse the value that begins at the next character, reading on until it is complete."""
        self._peek()
        while True:
            try:
                value, end = json.JSONDecoder().raw_decode(self._text, self._pos)
                # A number that ends where the text ends may go on in the next piece.
                if end < len(self._text) or self._ended:
                    self._pos = end
                    return value
                problem = "it has no end"
            except json.JSONDecodeError as error:
                problem = f"{error.msg} at character {error.pos - self._pos + 1:,} of the row"
            except (RecursionError, ValueError) as error:  # too deep, or an integer of too many digits
                raise self._error(f"cannot be read: {error}") from None
            if self._ended:
                raise self._error(f"is not JSON: {problem}")
            if len(self._text) - self._pos > self._max_bytes:
                raise self._error(f"holds a row that is not JSON or larger than {self._max_bytes:,} bytes ({problem})")
            self._grow()

    def _peek(self) -> str:
        """The next character that is not white space, or "" at the end."""
        while True:
            self._pos = _SPACE.match(self._text, self._pos).end()  # pyright: ignore[reportOptionalMemberAccess]  # matches ""
            if self._pos < len(self._text) or self._ended:
                return self._text[self._pos : self._pos + 1]
            self._grow()

    def _take(self, char: str) -> None:
        if (found := self._peek()) != char:
            raise self._error(
                f"is not JSON: {char!r} expected, found {found!r}" if found else f"ends before a {char!r}"
            )
        self._pos += 1

    def _grow(self) -> None:
        """Drop what was consumed and read on: as much as is there already, so that a long row is parsed few times."""
        self._line_here()
        self._text = self._text[self._pos :]
        data = self._stream.read(max(_PIECE_BYTES, len(self._text)))
        self._ended = not data
        self._text += self._decoder.decode(data, final=self._ended)
        self._pos = self._line_pos = 0

    def _line_here(self) -> int:
        self._line += self._text.count("\n", self._line_pos, self._pos)
        self._line_pos = self._pos
        return self._line

    def _error(self, rule: str, fix: str = "") -> DataError:
        return DataError(f"{self._name}:{self._line_here()}", rule, fix)
