"""The entropy that the world claims is exact: no text can come from two sequences of choices.

A scripted `Draws` takes its choices from a list instead of a generator. Trying all lists gives every document of a tiny
grammar, or, cut wherever the text goes astray, every way in which the whole grammar can produce a given document.
"""

import dataclasses
import math
import random
from collections.abc import Iterator, Sequence
from fractions import Fraction

import pytest

from lumi.corpus.world import World
from lumi.corpus.world.draws import Draws, log2
from lumi.corpus.world.grammar import Grammar
from lumi.corpus.world.plot import Plot, ask
from lumi.corpus.world.template import Page, templates


class UndecidedError(Exception):
    """The script has ended, and the next choice has these weights."""

    def __init__(self, weights: Sequence[int]) -> None:
        self.weights = weights


class Scripted(Draws):
    """Choices from a script; ``chance`` is their exact probability, counted apart from the class under test."""

    def __init__(self, script: Sequence[int]) -> None:
        super().__init__(random.Random(0))
        self.script = iter(script)
        self.shares: list[tuple[int, int]] = []

    def below(self, n: int) -> int:
        return self.weighted((1,) * n)

    def weighted(self, weights: Sequence[int]) -> int:
        choice = next(self.script, None)
        if choice is None:
            raise UndecidedError(weights)
        self.shares.append((weights[choice], sum(weights)))
        return choice

    @property
    def chance(self) -> Fraction:
        return math.prod((Fraction(part, whole) for part, whole in self.shares), start=Fraction(1))


def derivations(world: World, text: str | None = None) -> Iterator[tuple[str, Fraction]]:
    """Every sequence of choices as (text, probability); only those that give ``text`` if there is one."""
    scripts: list[tuple[int, ...]] = [()]
    while scripts:
        script = scripts.pop()
        draws = Scripted(script)
        page = world.narrator.page(draws)
        try:
            world.narrator.write(page)
        except UndecidedError as undecided:
            if text is None or text.startswith(page.text):
                scripts += [(*script, choice) for choice, weight in enumerate(undecided.weights) if weight]
        else:
            if text is None or text == page.text:
                yield page.text, draws.chance


TINY_PLOT = Plot(
    name="tiny",
    paragraphs=(
        (
            templates(
                "{one=name} and {two=name} shared {a thing=thing}.", "{one=name} showed {two=name} {a thing=thing}."
            ),
        ),
        (templates("{two} kept it [gladly|sadly].{has:=two}", "{one} took it back.{has:=one}"),),
    ),
    questions=(
        ask("has", ("Who has the {thing}?", "Whose is the {thing} now?"), "{has} has the {thing}."),
        ask("thing", ("What was it?", "What did they have?"), "It was {a thing}."),
    ),
)


def tiny_grammar() -> Grammar:
    """Ten people, two towns, two trades, at most two of every word and wording of the real grammar; a story of its own."""
    whole = Grammar()
    return Grammar(
        first_names=whole.first_names[:3] + whole.first_names[-2:],
        surnames=whole.surnames[:4],
        values={kind: values[:2] for kind, values in whole.values.items()},
        lists={name: words[:2] for name, words in whole.lists.items()},
        openings=whole.openings[2:3],
        topics={"town": whole.topics["town"][:2], "food": whole.topics["food"][5:6]},
        closings=whole.closings[:1],
        facts=tuple(
            dataclasses.replace(fact, wordings=fact.wordings[:1], checks=fact.checks[:1]) for fact in whole.facts[:2]
        ),
        plots=(TINY_PLOT,),
        min_topics=1,
        max_asked=2,
    )


def test_no_two_derivations_of_a_tiny_world_give_one_text_and_their_chances_sum_to_one() -> None:
    found = list(derivations(World(n_people=10, grammar=tiny_grammar())))
    assert len(found) > 5_000
    assert len({text for text, _ in found}) == len(found)
    assert sum(chance for _, chance in found) == 1  # a sum of fractions: exactly


@pytest.mark.parametrize("index", range(16))
def test_a_document_of_the_whole_grammar_has_one_derivation_and_its_bits(index: int) -> None:
    world = World(n_people=10)  # the search tries everybody for every question; more people only take longer
    document = world.document(index)
    [(_, chance)] = derivations(world, document.text)
    assert document.bits == pytest.approx(-math.log2(chance), abs=1e-9)


def test_an_ambiguous_grammar_would_be_noticed() -> None:
    twice = templates("{one=name} met {two=name}.", "{one=name} [met|saw] {two=name}.")
    plot = Plot(name="bad", paragraphs=((twice,),), questions=())
    world = World(n_people=10, shares={"story": 1}, grammar=dataclasses.replace(tiny_grammar(), plots=(plot,)))
    found = [text for text, _ in derivations(world)]
    assert len(set(found)) < len(found)


def test_a_page_never_draws_a_word_twice_and_counts_what_is_left() -> None:
    draws = Draws(random.Random(0))
    page = Page(draws, {"name": ("Ann", "Bob", "Cid")}, frozenset())
    drawn = [page.draw("", "name") for _ in range(3)]
    assert sorted(drawn) == ["Ann", "Bob", "Cid"]
    assert draws.bits == pytest.approx(math.log2(6))


@pytest.mark.parametrize(("n", "expected"), [(1, 0.0), (2, 1.0), (3, 1.584962500721156), (1024, 10.0)])
def test_log2_is_correctly_rounded(n: int, expected: float) -> None:
    assert log2(n) == expected


def test_below_gives_every_number_equally_often() -> None:
    draws = Draws(random.Random(0))
    counts = [0] * 6
    for _ in range(60_000):
        counts[draws.below(6)] += 1
    assert max(abs(count - 10_000) for count in counts) < 400  # four and a half standard deviations
    assert draws.bits == pytest.approx(60_000 * math.log2(6))


def test_weighted_follows_and_counts_its_weights() -> None:
    draws = Draws(random.Random(0))
    drawn = [draws.weighted((3, 0, 1)) for _ in range(20_000)]
    assert drawn.count(1) == 0
    assert drawn.count(0) == pytest.approx(15_000, abs=280)
    assert draws.bits == pytest.approx(drawn.count(0) * math.log2(4 / 3) + drawn.count(2) * 2)
