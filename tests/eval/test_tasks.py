"""Rows of public tasks, in the hub's form and in the plainer one, as questions."""

import gzip
import json

import pytest

from lumi.errors import ConfigError, DataError
from lumi.eval.tasks import READERS, Task

ROWS = {
    "boolq": [
        {"question": "is ice cold", "title": "Ice", "passage": "Ice is frozen water.", "answer": True},
        {"question": "is ice cold", "passage": "Ice is frozen water.", "label": 1, "idx": 0},  # as in SuperGLUE
    ],
    "arc": [
        {"id": "1", "question": "What melts?", "choices": {"text": ["rock", "ice"], "label": ["A", "B"]}, "answerKey": "B"},
        {"id": "1", "question": "What melts?", "choices": ["rock", "ice"], "label": 1},
    ],
    "openbookqa": [
        {"question_stem": "Ice is", "choices": {"text": ["hot", "cold"], "label": ["A", "B"]}, "answerKey": "B"},
        {"question": "Ice is", "choices": ["hot", "cold"], "label": 1},
    ],
    "hellaswag": [
        {"activity_label": "Skating", "ctx_a": "She skates.", "ctx_b": "she", "endings": ["sinks.", "turns [step] round."],
         "label": "1"},
        {"question": "Skating: She skates. She", "choices": ["sinks.", "turns [step] round."], "label": 1},
    ],
    "piqa": [{"goal": "Melt ice", "sol1": "cool it", "sol2": "warm it", "label": 1}],
    "sciq": [
        {"support": " Ice floats.", "question": "What floats?", "correct_answer": "ice",
         "distractor1": "iron", "distractor2": "rock", "distractor3": "lead"},
    ],
    "lambada": [{"text": "He skated on the ice"}, {"context": "He skated on the", "continuation": "ice"}],
    "blimp": [{"sentence_good": "Ice melts.", "sentence_bad": "Ice melt.", "field": "syntax", "UID": "agreement"}],
}  # fmt: skip
EXPECTED = {
    "boolq": ("Ice is frozen water.\nQuestion: is ice cold?\nAnswer:", " yes"),
    "arc": ("Question: What melts?\nAnswer:", " ice"),
    "openbookqa": ("Ice is", " cold"),
    "hellaswag": ("Skating: She skates. She", " turns round."),
    "piqa": ("Question: Melt ice\nAnswer:", " warm it"),
    "sciq": ("Ice floats.\nQuestion: What floats?\nAnswer:", " ice"),
    "lambada": ("He skated on the", " ice"),
    "blimp": ("", "Ice melts."),
}


def write(path, rows):
    path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))
    return str(path)


def test_every_reader_is_tested():
    assert ROWS.keys() == EXPECTED.keys() == READERS.keys()


@pytest.mark.parametrize("reader", READERS)
def test_rows_become_the_harness_s_prompts(tmp_path, reader):
    path = write(tmp_path / "rows.jsonl.gz", ROWS[reader])
    items = list(Task(name=reader, reader=reader, path=path).items())
    assert len(items) == len(ROWS[reader])
    for item in items:
        assert (item.context, item.choices[item.label]) == EXPECTED[reader]


def test_the_first_or_the_last_rows_can_be_taken(tmp_path):
    rows = [{"goal": str(number), "sol1": "a", "sol2": "b", "label": 0} for number in range(9)]
    path = write(tmp_path / "rows.jsonl.gz", rows)
    goals = {
        limit: [item.context[10] for item in Task(name="p", reader="piqa", path=path, limit=limit).items()]
        for limit in (2, -3)
    }
    assert goals == {2: ["0", "1"], -3: ["6", "7", "8"]}


PAIR = {"goal": "x", "sol1": "a", "sol2": "b"}


@pytest.mark.parametrize("row", [{"question": "x"}, {**PAIR, "label": 2}, {**PAIR, "label": "?"}])
def test_a_row_of_another_form_is_named(tmp_path, row):
    path = write(tmp_path / "rows.jsonl.gz", [ROWS["piqa"][0], row])
    with pytest.raises(DataError, match=r"rows.jsonl.gz:2 · is no row of piqa"):
        list(Task(name="piqa", reader="piqa", path=path).items())


def test_settings_are_checked():
    with pytest.raises(ConfigError, match="did you mean 'piqa'"):
        Task(name="x", reader="pika", path="x")
    with pytest.raises(ConfigError, match="a path or a dataset"):
        Task(name="x", reader="piqa")
    with pytest.raises(ConfigError, match="limit=0"):
        Task(name="x", reader="piqa", path="x", limit=0)
