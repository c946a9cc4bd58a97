"""What a plot is: lines in several wordings, and the questions that they settle.

The slots of a plot keep track of what a reader should: who has the thing, where it is, who came last. An alternative that
changes the course of events sets the slot that the questions ask about (``{owner:=pal}``), so that an answer always
follows from the story in front of it.
"""

import dataclasses

from lumi.corpus.world.template import Template, template, templates


@dataclasses.dataclass(frozen=True, kw_only=True)
class StoryQuestion:
    """A question that a plot settles.

    Attributes:
        kind: its name within the plot.
        asks: slot that holds what is asked for.
        wordings: of the question.
        answer: the one answer to all of them.
    """

    kind: str
    asks: str
    wordings: tuple[Template, ...]
    answer: Template


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plot:
    """A kind of story.

    Attributes:
        name: of the plot.
        paragraphs: of lines, each a choice between wordings.
        questions: what can be asked afterwards.
    """

    name: str
    paragraphs: tuple[tuple[tuple[Template, ...], ...], ...]
    questions: tuple[StoryQuestion, ...]


def ask(asks: str, wordings: tuple[str, ...], answer: str, kind: str | None = None) -> StoryQuestion:
    """A question from plain strings; its kind is the slot that it asks for unless that is said otherwise."""
    return StoryQuestion(kind=kind or asks, asks=asks, wordings=templates(*wordings), answer=template(answer))
