"""Questions as values: what later stages ask a model, each with its answer and with answers that are plausible but wrong."""

import dataclasses
from collections.abc import Sequence

from lumi.corpus.world.plot import Plot
from lumi.corpus.world.portraits import Fact
from lumi.corpus.world.template import Page

QUESTION, ANSWER = "Question: ", "\nAnswer: "
YES, NO = ", so yes.", ", so no."


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A question with its one right answer.

    Attributes:
        kind: the kind of fact, or the name of the question within its plot.
        question: the question itself.
        answer: a full sentence.
        wrong: the same sentence with other values of the same kind; those of the same story come first. For a yes-or-no
            question it is the true sentence with the wrong verdict.
        wording: index among the wordings of this question, so that a later stage can keep some for its test.
    """

    kind: str
    question: str
    answer: str
    wrong: tuple[str, ...]
    wording: int

    @property
    def text(self) -> str:
        """Both in the form that documents use."""
        return f"{QUESTION}{self.question}{ANSWER}{self.answer}"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """A story that is in no document but by chance.

    Attributes:
        text: the story alone.
        plot: name of its plot.
        questions: everything that it settles, in every wording.
    """

    text: str
    plot: str
    questions: tuple[Question, ...]


def fact_questions(page: Page, fact: Fact, others: Sequence[str]) -> list[Question]:
    """One fact asked for in every wording.

    Args:
        page: its slots mean the facts of the person who is asked about.
        others: the values that are not true of this person.
    """
    wrong = tuple(page.fill(fact.answer, **{fact.kind: value}) + "." for value in others)
    answer = page.fill(fact.answer) + "."
    return [
        Question(kind=fact.kind, question=page.fill(wording), answer=answer, wrong=wrong, wording=index)
        for index, wording in enumerate(fact.wordings)
    ]


def check_questions(page: Page, fact: Fact, guess: str) -> list[Question]:
    """Whether ``guess`` is true of a person, in every wording; the answer recalls the fact before it judges."""
    truth = page.fill(fact.answer)
    right, wrong = (YES, NO) if guess == page.values[fact.kind] else (NO, YES)
    return [
        Question(kind=fact.kind, question=question, answer=truth + right, wrong=(truth + wrong,), wording=index)
        for index, question in enumerate(page.fill(wording, guess=guess) for wording in fact.checks)
    ]


def story_questions(page: Page, plot: Plot) -> list[Question]:
    """Everything that the story on ``page`` settles, in every wording."""
    return [
        Question(
            kind=asked.kind,
            question=page.fill(wording),
            answer=page.fill(asked.answer),
            wrong=tuple(page.fill(asked.answer, **{asked.asks: value}) for value in page.rivals(asked.asks)),
            wording=index,
        )
        for asked in plot.questions
        for index, wording in enumerate(asked.wordings)
    ]
