"""What the evaluation asks is not in the corpus, and what was taken out is counted by task."""

import pickle
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from datatrove.data import Document

from lumi.corpus.steps import Decontaminate
from lumi.corpus.steps.step import DROPPED, NOTES
from lumi.errors import ConfigError
from lumi.eval.tasks import Task
from lumi.eval.text import TextTask

LONG = "Question: which of the seven rivers of the north runs past the mill of the old baker? Answer: the Lune"
SHORT = "a goat ate all of the red boats"
FILLER = "Here is another line about the weather, which is fine today and will be fine tomorrow too, they say.\n" * 30


class Exam:
    """A benchmark of given texts."""

    def __init__(self, name: str, *texts: str) -> None:
        self.name, self._texts = name, texts

    def settings(self) -> dict[str, Any]:
        return {"texts": self._texts}

    def texts(self):
        yield from self._texts


@pytest.fixture
def judge(tmp_path: Path):
    """``judge(text, …)``: the text that is left, or None, and the notes."""
    tasks = {"a": Exam("rivers", LONG), "b": Exam("goats", SHORT, "too short"), "c": None}

    def run(text: str, **settings: Any) -> tuple[str | None, list[str]]:
        step = Decontaminate(tasks=tasks, **settings)
        step.prepare(tmp_path)
        document = Document(text=text, id="x", metadata={})
        (result,) = pickle.loads(pickle.dumps(step)).run([document])
        return None if DROPPED in result.metadata else result.text, result.metadata.get(NOTES, [])

    return run


def test_a_document_without_overlap_is_left_as_it_is(judge):
    assert judge(FILLER) == (FILLER, [])


@pytest.mark.parametrize("disguise", [str.upper, lambda text: text.replace(" ", "\t ").replace("?", " — "), str])
def test_a_question_in_a_long_document_is_cut_out_with_its_paragraph(judge, disguise):
    text, notes = judge(f"{FILLER}See: {disguise(LONG)}\n{FILLER}")
    assert text == FILLER + FILLER
    assert notes == ["decontaminate cut rivers"]


def test_a_document_that_is_mostly_question_is_left_out(judge):
    assert judge(f"Some words. {LONG}\nMore words.") == (None, ["decontaminate dropped rivers"])
    assert judge(f"{FILLER}{LONG}", most_cut_ratio=0.0)[0] is None


def test_thirteen_words_in_a_row_are_enough_and_twelve_are_not(judge):
    words = LONG.split()
    assert judge(FILLER + " ".join(words[:13]))[1] == ["decontaminate cut rivers"]
    assert judge(FILLER + " ".join(words[:12]))[1] == []


def test_a_short_question_is_looked_for_as_a_whole(judge):
    assert judge(FILLER + SHORT)[1] == ["decontaminate cut goats"]
    assert judge(FILLER + SHORT.rpartition(" ")[0])[1] == []
    assert judge(FILLER + "too short")[1] == []


def test_a_question_that_runs_over_lines_is_found(judge):
    assert judge(LONG.replace(" ", "\n") + "\n" + FILLER) == (None, ["decontaminate dropped rivers"])


def test_the_report_counts_by_task(tmp_path, judge):
    notes = Counter(note for text in (FILLER + LONG, LONG, FILLER + SHORT, FILLER) for note in judge(text)[1])
    step = Decontaminate(tasks={"a": Exam("rivers", LONG), "b": Exam("goats", SHORT, "too short")})
    step.prepare(tmp_path)
    report = step.report(notes)
    assert "| rivers | 1 | 0 | 1 | 1 |" in report
    assert "| goats | 1 | 1 | 0 | 1 |" in report


def test_without_tasks_the_card_says_that_nothing_was_looked_for(tmp_path):
    step = Decontaminate(tasks={})
    step.prepare(tmp_path)
    assert "No task was given" in step.report({})


def test_tasks_of_the_evaluation_give_their_questions_with_the_right_answer(tmp_path):
    (tmp_path / "q.jsonl").write_text('{"question": "Who?", "choices": ["I", "you"], "label": 1}\n')
    (tmp_path / "t.txt").write_text("One line.\n\nAnother.\n")
    task = Task(name="arc_easy", reader="arc", path=f"{tmp_path}/q*.jsonl")
    assert list(task.texts()) == ["Question: Who?\nAnswer: you"]
    text = TextTask(name="wiki", path=f"{tmp_path}/t*.txt")
    assert list(text.texts()) == ["One line.", "Another."]
    before = task.settings(), text.settings()
    (tmp_path / "q.jsonl").write_text('{"question": "What?", "choices": ["I", "you"], "label": 1}\n')
    assert (task.settings() != before[0], text.settings() == before[1]) == (True, True)


@pytest.mark.parametrize(("key", "value"), [("n", 0), ("fewest", 14), ("most_cut_ratio", 1.5)])
def test_a_wrong_setting_is_named(key, value):
    with pytest.raises(ConfigError, match=rf"corpus\.steps\.decontaminate\.{key}={value}"):
        Decontaminate(**{key: value})
