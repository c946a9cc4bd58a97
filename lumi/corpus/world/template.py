"""The small language in which the world's sentences are written, and the page they are written on.

    {town}              the value bound to *town*
    {hero=name}         a word drawn from the list *name*, bound to *hero* and written
    {=weather}          a word drawn from the list *weather* and written
    {owner:=pal}        *owner* now means what *pal* means; writes nothing
    {a thing}           the value with its article: a brass key, an old hat
    {he hero} {him hero} {his hero}      the pronoun that goes with a name: he or she, him or her, his or her
    {He hero} {Place}   the same with a capital first letter
    [often|never]       one of several wordings, which may hold slots of their own

A draw is written where it is made, and a word is never drawn twice from the same list within a document. Reading a text
from left to right therefore shows every draw at its place, which is what makes the count of bits exact.
"""

import dataclasses
import functools
import math
import re
from collections.abc import Mapping, Sequence
from typing import Protocol, TypeVar

from lumi.corpus.world.draws import Draws

T = TypeVar("T")

_SLOT = re.compile(r"(?:(a|he|him|his) )?(\w*)(?:(:?=)(\w+))?", re.IGNORECASE)
_PIECE = re.compile(r"\{([^{}]*)\}|([\[|\]])")
_PRONOUNS = {"he": "she", "him": "her", "his": "her"}


class Page:
    """A document in the making: its text, what its slots mean, and the words still to be had.

    Args:
        draws: where choices come from and are counted.
        lists: the words of every list that a slot may draw from.
        women: first names that go with *she*.
        values: what the slots mean at the start.
        richness: share of the wordings and words that are in use, see `World`.
    """

    def __init__(
        self,
        draws: Draws,
        lists: Mapping[str, Sequence[str]],
        women: frozenset[str],
        values: Mapping[str, str] | None = None,
        richness: float = 1.0,
    ) -> None:
        self.draws = draws
        self.values: dict[str, str] = dict(values or {})
        self.origins: dict[str, str] = {}
        self._lists = lists
        self._women = women
        self._richness = richness
        self._left: dict[str, list[str]] = {}
        self._written: list[str] = []

    @property
    def text(self) -> str:
        """What has been written so far."""
        return "".join(self._written)

    def write(self, text: str) -> None:
        """Append ``text``, at no cost."""
        self._written.append(text)

    def say(self, wordings: Sequence["Template"]) -> None:
        """Write one of several wordings."""
        self.choose(wordings).write(self)

    def fill(self, sentence: "Template", **values: str) -> str:
        """A sentence as it would read here if some slots meant something else; writes nothing."""
        page = Page(self.draws, self._lists, self._women, {**self.values, **values}, self._richness)
        sentence.write(page)
        return page.text

    def choose(self, options: Sequence[T]) -> T:
        """One of the options in use, each equally likely."""
        return options[self.draws.below(math.ceil(len(options) * self._richness))]

    def draw(self, slot: str, origin: str) -> str:
        """A word of the list ``origin`` that this document has not drawn yet; ``slot`` means it from now on."""
        left = self._left.get(origin)
        if left is None:
            words = self._lists[origin]
            left = self._left[origin] = list(words[: math.ceil(len(words) * self._richness)])
        word = left.pop(self.draws.below(len(left)))
        if slot:
            self.values[slot], self.origins[slot] = word, origin
        return word

    def alias(self, slot: str, other: str) -> None:
        """Let ``slot`` mean what ``other`` means now."""
        self.values[slot], self.origins[slot] = self.values[other], self.origins[other]

    def rivals(self, slot: str) -> list[str]:
        """The other words that ``slot`` could have meant; those that occur on this page come first."""
        origin = self.origins[slot]
        here = [value for other, value in self.values.items() if self.origins.get(other) == origin]
        return [word for word in dict.fromkeys([*here, *self._lists[origin]]) if word != self.values[slot]]

    def inflect(self, value: str, form: str) -> str:
        """The value itself, its article and it, or the pronoun for it."""
        if not form:
            return value
        if form == "a":
            return f"an {value}" if value[0] in "aeiou" else f"a {value}"
        return _PRONOUNS[form] if value.partition(" ")[0] in self._women else form


class Part(Protocol):
    """A piece of a template."""

    def write(self, page: Page) -> None:
        """Append this piece to the page, drawing what it needs."""
        ...


@dataclasses.dataclass(frozen=True, slots=True)
class Literal:
    """Text as it stands."""

    text: str

    def write(self, page: Page) -> None:
        """Append the text."""
        page.write(self.text)


@dataclasses.dataclass(frozen=True, slots=True)
class Slot:
    """A value, drawn here if it has an origin."""

    name: str
    origin: str
    form: str
    capital: bool

    def write(self, page: Page) -> None:
        """Append the value in the form that the slot asks for."""
        value = page.draw(self.name, self.origin) if self.origin else page.values[self.name]
        text = page.inflect(value, self.form)
        page.write(text[0].upper() + text[1:] if self.capital else text)


@dataclasses.dataclass(frozen=True, slots=True)
class Alias:
    """A second name for a value."""

    name: str
    other: str

    def write(self, page: Page) -> None:
        """Bind, and append nothing."""
        page.alias(self.name, self.other)


@dataclasses.dataclass(frozen=True, slots=True)
class Choice:
    """One of several sequences of parts."""

    options: tuple[tuple[Part, ...], ...]

    def write(self, page: Page) -> None:
        """Append one of the options."""
        for part in page.choose(self.options):
            part.write(page)


@dataclasses.dataclass(frozen=True, slots=True)
class Template:
    """A sentence with slots, ready to be written.

    Attributes:
        source: the text it was parsed from.
        parts: what it consists of.
    """

    source: str
    parts: tuple[Part, ...]

    def write(self, page: Page) -> None:
        """Append all parts."""
        for part in self.parts:
            part.write(page)


@functools.cache
def template(source: str) -> Template:
    """Parse one template.

    Raises:
        ValueError: a bracket or a slot is not well formed.
    """
    stack: list[list[list[Part]]] = [[[]]]
    position = 0
    for piece in _PIECE.finditer(source):
        if piece.start() > position:
            stack[-1][-1].append(Literal(source[position : piece.start()]))
        position = piece.end()
        if piece[2] is None:
            stack[-1][-1].append(_slot(piece[1]))
        elif piece[2] == "[":
            stack.append([[]])
        elif len(stack) == 1:
            raise ValueError(f"{source!r}: {piece[2]!r} without '['")
        elif piece[2] == "|":
            stack[-1].append([])
        else:
            options = stack.pop()
            stack[-1][-1].append(Choice(tuple(map(tuple, options))))
    if len(stack) > 1:
        raise ValueError(f"{source!r}: '[' without ']'")
    if position < len(source):
        stack[-1][-1].append(Literal(source[position:]))
    return Template(source, tuple(stack[0][0]))


def templates(*sources: str) -> tuple[Template, ...]:
    """Parse several wordings of one thing."""
    return tuple(map(template, sources))


def _slot(inside: str) -> Part:
    match = _SLOT.fullmatch(inside)
    if match is None:
        raise ValueError(f"{{{inside}}} is not a slot")
    form, name, sign, other = match.groups()
    if sign == ":=":
        return Alias(name, other)
    form = form or ""
    capital = inside[0].isupper()
    return Slot(name.lower() if capital and not form else name, other or "", form.lower(), capital)
