"""The embedded conversations and pairs: tests ask what training did not."""

import pytest

from lumi.corpus import World
from lumi.corpus.chat import Tasks, WorldChat, build_chat, read_chat
from lumi.corpus.preference import WorldPairs, build_preference, read_preference


@pytest.fixture(scope="module")
def world():
    return World(n_people=10, megabytes=0.1)


@pytest.fixture(scope="module")
def chat(world, tmp_path_factory):
    folder = tmp_path_factory.mktemp("chat") / "world_chat"
    build_chat(WorldChat(world=world, n_conversations=200, n_test=20), folder)
    return folder


def asked(folder, split) -> list[str]:
    return [m.content for c in read_chat(folder, split) for m in c.messages if m.role == "user"]


def test_held_out_people_are_asked_about_in_the_test_only(world, chat):
    about_them = {question.question for person in world.held_out for question in world.questions(person)}
    assert not about_them & set(asked(chat, "train") + asked(chat, "val"))
    assert about_them & set(asked(chat, "test"))


def test_new_wordings_are_in_no_training_conversation(chat):
    tests = [c for c in read_chat(chat, "test") if c.meta["task"] == "fact, new wording"]
    assert len(tests) == 20
    assert not {c.messages[0].content for c in tests} & set(asked(chat, "train"))


def test_building_again_does_nothing(world, chat):
    before = (chat / "MANIFEST.json").stat().st_mtime_ns
    build_chat(WorldChat(world=world, n_conversations=200, n_test=20), chat)
    assert (chat / "MANIFEST.json").stat().st_mtime_ns == before


def test_tasks_have_the_right_answer_and_a_test_of_their_own(tmp_path):
    build_chat(Tasks(n_conversations=50, n_test=10), tmp_path / "tasks")
    rules = {
        "Copy": lambda items: items,
        "Reverse": lambda items: items[::-1],
        "Sort": sorted,
        "Count": lambda items: [str(len(items))],
        "Add": lambda items: [str(int(items[0]) + int(items[2]))],
    }
    for split in ("train", "test"):
        for conversation in read_chat(tmp_path / "tasks", split):
            name, _, items = conversation.messages[0].content.partition(": ")
            assert conversation.messages[1].content == " ".join(rules[name](items.split()))
    assert not set(asked(tmp_path / "tasks", "train")) & set(asked(tmp_path / "tasks", "test"))


def test_pairs_put_the_right_answer_first_and_are_broken_as_they_say(world, tmp_path):
    build_preference(WorldPairs(world=world, n_pairs=100, n_test=10), tmp_path / "pairs")
    right = {q.question: q.answer for person in world.people for q in world.questions(person)}
    kinds = set()
    for pair in read_preference(tmp_path / "pairs", "test"):
        assert pair.chosen == right[pair.prompt[-1].content] != pair.rejected
        assert pair.rejected_ends == (pair.meta["kind"] != "no stop")
        kinds.add(pair.meta["kind"])
    assert kinds == {"fact", "run-on", "echo", "no stop", "other answer"}
