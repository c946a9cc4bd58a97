"""The people of the world and what is true of them."""

import dataclasses
from collections.abc import Mapping, Sequence

from lumi.corpus.world.draws import Draws


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """Somebody with a name and one value of every kind of fact.

    Attributes:
        name: first name and surname; nobody else has both.
        friend: name of the best friend. The friendships form one ring through all people, so that being somebody's best
            friend says nothing about one's own.
    """

    name: str
    town: str
    trade: str
    age: str
    food: str
    instrument: str
    pet: str
    pet_name: str
    friend: str


def invent_people(
    draws: Draws, n_people: int, first_names: Sequence[str], surnames: Sequence[str], facts: Mapping[str, Sequence[str]]
) -> tuple[Person, ...]:
    """Draw ``n_people`` people; first names and surnames are used evenly, values independently of each other.

    Args:
        facts: the possible values of every field of `Person` but the name and the friend.
    """
    names: list[str] = []
    firsts: list[str] = []
    lasts: list[str] = []
    while len(names) < n_people:
        firsts = firsts or draws.shuffled(first_names)
        lasts = lasts or draws.shuffled(surnames)
        if (name := f"{firsts.pop()} {lasts.pop()}") not in names:
            names.append(name)
    ring = draws.shuffled(names)
    friends = dict(zip(ring, ring[1:] + ring[:1], strict=True))
    return tuple(
        Person(
            name=name,
            friend=friends[name],
            **{kind: values[draws.below(len(values))] for kind, values in facts.items()},
        )
        for name in names
    )
