"""Who writes the documents: a portrait, questions about people, a story, or a story with questions.

A document's kind, and everything that varies within it, is drawn through the page's `Draws`; what follows from earlier
draws is written without one and costs nothing. How many sentences or questions there will be is drawn before the first of
them, so that the end of a document is counted too.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from lumi.corpus.world.draws import Draws
from lumi.corpus.world.grammar import Grammar
from lumi.corpus.world.people import Person
from lumi.corpus.world.plot import Plot
from lumi.corpus.world.portraits import Fact
from lumi.corpus.world.questions import ANSWER, NO, QUESTION, YES
from lumi.corpus.world.template import Page

KINDS = ("portrait", "questions", "story", "story_questions")

_OPEN, _CHECK = 4, 1  # an open question is four times as frequent as one to be answered with yes or no
_FIRST_PARAGRAPH = 3  # sentences in the first paragraph of a portrait


class Narrator:
    """Writes documents about a world.

    Args:
        grammar: what can be said.
        people: everybody, in a fixed order; portraits are about all of them.
        asked: the people whom questions are about.
        shares: relative frequency of each of `KINDS`.
        richness: share of the wordings and words that are in use.
    """

    def __init__(
        self,
        grammar: Grammar,
        people: Sequence[Person],
        asked: Sequence[Person],
        shares: Mapping[str, int],
        richness: float,
    ) -> None:
        self.grammar = grammar
        self._people = people
        self._asked = asked
        self._weights = [shares[kind] for kind in KINDS]
        self._richness = richness
        self._facts = {
            person.name: {**dataclasses.asdict(person), "first": person.name.split(" ")[0]} for person in people
        }
        self._values = {**grammar.values, "friend": tuple(person.name for person in people)}

    def page(self, draws: Draws) -> Page:
        """An empty page."""
        return Page(draws, self.grammar.lists, self.grammar.women, richness=self._richness)

    def write(self, page: Page) -> dict[str, Any]:
        """Fill the page with one document and say what it is: its kind, and the people or the plot."""
        kind = KINDS[page.draws.weighted(self._weights)]
        if kind == "portrait":
            return {"kind": kind, "people": [self.write_portrait(page).name]}
        if kind == "questions":
            return {"kind": kind, "people": [person.name for person in self.write_questions(page)]}
        plot = self.write_story(page)
        if kind == "story_questions":
            self._write_story_questions(page, plot)
        return {"kind": kind, "people": [], "plot": plot.name}

    def introduce(self, page: Page, person: Person) -> None:
        """Let the page's slots mean the facts of ``person``."""
        page.values.update(self._facts[person.name])

    def others(self, page: Page, kind: str) -> list[str]:
        """The values of a kind of fact that are not true of the page's person, who is nobody's own best friend either."""
        return [value for value in self._values[kind] if value not in (page.values[kind], page.values["name"])]

    def write_portrait(self, page: Page) -> Person:
        """An opening, some of the topics in any order, a closing."""
        draws = page.draws
        person = self._people[draws.below(len(self._people))]
        self.introduce(page, person)
        topics = list(self.grammar.topics.values())
        fewest = self.grammar.min_topics
        n_topics = fewest + draws.below(len(topics) - fewest + 1)
        page.say(self.grammar.openings)
        for index in range(1, n_topics + 1):
            page.write("\n\n" if index == _FIRST_PARAGRAPH else " ")
            page.say(topics.pop(draws.below(len(topics))))
        page.write(" ")
        page.say(self.grammar.closings)
        return person

    def write_questions(self, page: Page) -> list[Person]:
        """A few questions, each about another person."""
        left, asked = list(self._asked), []
        for index in range(2 + page.draws.below(self.grammar.max_asked - 1)):
            person = left.pop(page.draws.below(len(left)))
            self.introduce(page, person)
            fact = self.grammar.facts[page.draws.below(len(self.grammar.facts))]
            page.write("\n\n" + QUESTION if index else QUESTION)
            if page.draws.weighted((_OPEN, _CHECK)):
                self._write_check(page, fact)
            else:
                page.say(fact.wordings)
                page.write(ANSWER)
                fact.answer.write(page)
                page.write(".")
            asked.append(person)
        return asked

    def _write_check(self, page: Page, fact: Fact) -> None:
        truth = page.values[fact.kind]
        is_true = page.draws.below(2)
        others = self.others(page, fact.kind)
        page.values["guess"] = truth if is_true else others[page.draws.below(len(others))]
        page.say(fact.checks)
        page.write(ANSWER)
        fact.answer.write(page)
        page.write(YES if is_true else NO)

    def write_story(self, page: Page) -> Plot:
        """One of the plots."""
        plot = self.grammar.plots[page.draws.below(len(self.grammar.plots))]
        for paragraph, lines in enumerate(plot.paragraphs):
            for index, wordings in enumerate(lines):
                page.write(" " if index else "\n\n" if paragraph else "")
                page.say(wordings)
        return plot

    def _write_story_questions(self, page: Page, plot: Plot) -> None:
        left = list(plot.questions)
        for _ in range(1 + page.draws.below(min(len(left), self.grammar.max_story_questions))):
            asked = left.pop(page.draws.below(len(left)))
            page.write("\n\n" + QUESTION)
            page.say(asked.wordings)
            page.write(ANSWER)
            asked.answer.write(page)
