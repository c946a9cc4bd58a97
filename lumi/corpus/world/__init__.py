"""A generated world whose text has a known entropy: invented people, questions about them, and small stories.

    python prepare.py source=world source.n_people=200

Nothing is downloaded and the bytes are the same on every machine. Because every choice behind a document is counted, the
corpus says of each document how many bits an ideal reader who knows the world and its grammar would need for it; a model's
loss can be compared with that floor. The facts about people are not part of the count: they are the world, and learning
them is what the gap between a model and the floor mostly consists of.
"""

from lumi.corpus.world.people import Person
from lumi.corpus.world.questions import Question, Story
from lumi.corpus.world.world import World

__all__ = ["Person", "Question", "Story", "World"]
