"""Public tasks with a right answer among several: how their rows become questions (``tasks=[boolq]``, ``task.boolq.path=…``).

A row is read as the hub's data set has it, or in the plainer form ``question, choices, label`` that local copies often take.
Prompts are those of lm-evaluation-harness, so that figures compare.
"""

import dataclasses
import itertools
import re
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from lumi.corpus.hub import open_rows
from lumi.corpus.rows import field, rows_settings
from lumi.errors import ConfigError, DataError, did_you_mean

Row = dict[str, Any]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One question.

    Attributes:
        context: what stands before a choice.
        choices: continuations of the context, with the space that separates them.
        label: index of the right one.
        group: kind of question, for figures by kind; empty when there is one kind.
    """

    context: str
    choices: tuple[str, ...]
    label: int
    group: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """A task; one file in ``conf/task/`` each.

    Attributes:
        name: of its figures.
        reader: which kind of rows: a key of `READERS`.
        dataset, subset, split, revision: on the hub; ``subset='*'`` takes all.
        path: a local file with the same rows instead (.json, .jsonl, .parquet, also .gz .zst .xz).
        limit: the first so many rows, or the last ones when it is negative; null takes all.
    """

    name: str
    reader: str
    dataset: str | None = None
    subset: str | None = None
    split: str = "validation"
    revision: str | None = None
    path: str | None = None
    limit: int | None = None

    def __post_init__(self) -> None:
        """Raises ConfigError when a setting is out of range."""
        if self.reader not in READERS:
            raise ConfigError(
                f"task.{self.name}.reader={self.reader}", "is no kind of task", did_you_mean(self.reader, READERS)
            )
        if self.limit == 0:
            raise ConfigError(f"task.{self.name}.limit=0", "must not be 0", "null takes all")
        if self.path is None and self.dataset is None:
            raise ConfigError(f"task.{self.name}", "needs a path or a dataset")

    @property
    def source(self) -> str:
        """Where its rows come from, for the report."""
        return self.path or "/".join(filter(None, (self.dataset, self.subset, self.split)))

    def items(self) -> Iterator[Item]:
        """Its questions, in order.

        Raises:
            DataError: it cannot be read, or a row is not of the task's form.
        """
        for place, row in _limited(self._rows(), self.limit):
            if isinstance(row, str):
                raise DataError(place, row)
            try:
                item = READERS[self.reader](row)
                if len(item.choices) < 1 or not 0 <= item.label < len(item.choices):
                    raise ValueError(f"label {item.label} of {len(item.choices)} choices")
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                raise DataError(
                    place, f"is no row of {self.reader} ({error!r}); it has {', '.join(map(str, row))}"
                ) from None
            yield item

    def texts(self) -> Iterator[str]:
        """Every question with its right answer, for a corpus that must not contain them."""
        for item in self.items():
            yield item.context + item.choices[item.label]

    def settings(self) -> dict[str, Any]:
        """Everything that decides `texts`: the rows by name, or by the hash of the files."""
        return {
            "reader": self.reader,
            "limit": self.limit,
            **rows_settings(self.path, self.dataset, self.subset, self.split, self.revision),
        }

    def _rows(self) -> Iterator[tuple[str, Row | str]]:
        return open_rows(self.path, self.dataset, self.subset, self.split, self.revision, key=f"task.{self.name}")


def _limited(rows: Iterator[Any], limit: int | None) -> Iterator[Any]:
    if limit is None:
        return rows
    return itertools.islice(rows, limit) if limit > 0 else iter(deque(rows, maxlen=-limit))


def _choices(row: Row, question: str, context: str) -> Item:
    """A question with choices, in the hub's form (choices.text, answerKey) or as ``choices, label``."""
    found = row["choices"]
    if isinstance(found, dict):
        texts, label = list(found["text"]), list(found["label"]).index(row["answerKey"])
    else:
        texts, label = list(found), int(row["label"])
    return Item(context=context.format(row[question]), choices=tuple(f" {text}" for text in texts), label=label)


def boolq(row: Row) -> Item:
    """Yes or no about a passage (arXiv:1905.10044)."""
    answer = row["answer"] if "answer" in row else bool(row["label"])
    if not isinstance(answer, bool):
        raise ValueError(f"answer={answer!r}")
    context = f"{row['passage']}\nQuestion: {row['question']}?\nAnswer:"
    return Item(context=context, choices=(" no", " yes"), label=int(answer))


def arc(row: Row) -> Item:
    """A school question (arXiv:1803.05457); also CommonsenseQA's rows (arXiv:1811.00937)."""
    return _choices(row, "question", "Question: {}\nAnswer:")


def openbookqa(row: Row) -> Item:
    """A sentence to complete (arXiv:1809.02789)."""
    return _choices(row, "question_stem" if "question_stem" in row else "question", "{}")


def hellaswag(row: Row) -> Item:
    """How a text goes on (arXiv:1905.07830)."""
    if "endings" in row:
        context = f"{row['activity_label']}: {row['ctx_a']} {row['ctx_b'].capitalize()}"
        endings, label = row["endings"], int(row["label"])
    else:
        context, endings, label = row["question"], row["choices"], int(row["label"])
    return Item(context=_unwiki(context), choices=tuple(f" {_unwiki(ending)}" for ending in endings), label=label)


def _unwiki(text: str) -> str:
    """WikiHow's marks taken out, as the harness does."""
    text = text.strip().replace(" [title]", ". ")
    return re.sub(r"\[.*?\]", "", text).replace("  ", " ")


def piqa(row: Row) -> Item:
    """Which of two ways works (arXiv:1911.11641)."""
    choices = (f" {row['sol1']}", f" {row['sol2']}")
    return Item(context=f"Question: {row['goal']}\nAnswer:", choices=choices, label=int(row["label"]))


def sciq(row: Row) -> Item:
    """A science question with its passage (arXiv:1707.06209). The right answer's place is drawn from the question's hash."""
    choices = [f" {row[f'distractor{number}']}" for number in (1, 2, 3)]
    label = zlib.crc32(row["question"].encode()) % 4
    choices.insert(label, f" {row['correct_answer']}")
    context = f"{row['support'].lstrip()}\nQuestion: {row['question']}\nAnswer:"
    return Item(context=context, choices=tuple(choices), label=label)


def lambada(row: Row) -> Item:
    """The last word of a passage (arXiv:1606.06031): one choice, which greedy decoding has to give."""
    if "continuation" in row:
        context, word = row["context"], row["continuation"].strip()
    else:
        context, _, word = row["text"].rpartition(" ")
    return Item(context=context, choices=(f" {word}",), label=0)


def blimp(row: Row) -> Item:
    """A grammatical sentence and one that is not (arXiv:1912.00582), both scored whole."""
    choices = (row["sentence_good"], row["sentence_bad"])
    return Item(context="", choices=choices, label=0, group=str(field(row, "field") or ""))


READERS: dict[str, Callable[[Row], Item]] = {
    "boolq": boolq,
    "arc": arc,
    "openbookqa": openbookqa,
    "hellaswag": hellaswag,
    "piqa": piqa,
    "sciq": sciq,
    "lambada": lambada,
    "blimp": blimp,
}
