"""All the language of a world in one value, so that tests can put a tiny one in its place."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from lumi.corpus.world import plots_of_company, plots_of_things, portraits, words
from lumi.corpus.world.plot import Plot
from lumi.corpus.world.portraits import Fact
from lumi.corpus.world.template import Template


@dataclasses.dataclass(frozen=True, kw_only=True)
class Grammar:
    """What a world can say.

    Attributes:
        first_names: of people; those in ``women`` go with *she*.
        surnames: of people.
        women: first names of people and of characters in stories that go with *she*.
        values: what can be true of a person, by kind of fact.
        lists: words that templates draw from.
        openings: first sentences of a portrait.
        topics: sentences that tell a fact or two, by topic.
        closings: last sentences of a portrait.
        facts: what can be asked about a person.
        plots: what can happen in a story.
        min_topics: fewest topics that a portrait tells; the most is all of them.
        max_asked: most questions in a document of questions; the fewest is two.
        max_story_questions: most questions after a story; the fewest is one.
    """

    first_names: tuple[str, ...] = words.WOMEN + words.MEN
    surnames: tuple[str, ...] = words.SURNAMES
    women: frozenset[str] = frozenset(words.WOMEN + words.GIRLS)
    values: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=lambda: words.FACTS)
    lists: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=lambda: words.LISTS)
    openings: tuple[Template, ...] = portraits.OPENINGS
    topics: Mapping[str, tuple[Template, ...]] = dataclasses.field(default_factory=lambda: portraits.TOPICS)
    closings: tuple[Template, ...] = portraits.CLOSINGS
    facts: tuple[Fact, ...] = portraits.FACTS
    plots: tuple[Plot, ...] = plots_of_things.PLOTS + plots_of_company.PLOTS
    min_topics: int = 4
    max_asked: int = 5
    max_story_questions: int = 3

    def as_json(self) -> Any:
        """Everything in it as plain JSON, for a fingerprint."""
        return _plain(self)


def _plain(value: Any) -> Any:
    if isinstance(value, Template):
        return value.source
    if dataclasses.is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return [[key, _plain(item)] for key, item in value.items()]  # the order of topics decides the bytes: keep it
    if isinstance(value, frozenset):
        return sorted(value)
    return [_plain(item) for item in value] if isinstance(value, tuple) else value
