"""Taking out of a corpus what the evaluation will ask (``corpus.steps.decontaminate``).

A model that has read its exam has no score. Every run of ``n`` words of every question, with its right answer, is looked
for in every document; where one is found, the paragraphs that hold it are cut out, or the whole document is left out when
they are much of it. Which task caused how much is counted and stands in the data card.
"""

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from datatrove.data import Document

from lumi.corpus.document import broken_rules, is_count
from lumi.corpus.engine.blocks import read_array, read_json, write_array, write_json
from lumi.corpus.engine.card import table
from lumi.corpus.steps.step import NOTES, Step
from lumi.corpus.steps.words import WordBatch, ngram_hashes
from lumi.errors import join_violations

_MOST_BITS = 24
"""Of a table that most n-grams of a document do not pass: 16 MB."""
_SECOND = np.uint64(24)
"""Bits of a hash that its second place in the table does not use."""


class Benchmark(Protocol):
    """What is to be kept out of a corpus.

    Attributes:
        name: of the task.
    """

    name: str

    def texts(self) -> Iterator[str]:
        """Question and right answer of every item."""
        ...

    def settings(self) -> dict[str, Any]:
        """Everything that decides the texts, as plain JSON."""
        ...


@dataclasses.dataclass(kw_only=True, repr=False, eq=False)
class Decontaminate(Step):
    """Cuts out, or leaves out, what overlaps with an evaluation task.

    Args:
        tasks: key → task; null is left out.
        n: words of an n-gram that is looked for (13 as in GPT-3, arXiv:2005.14165).
        fewest: a text with fewer words than ``n`` is looked for as a whole, unless it has fewer words than this.
        most_cut_ratio: share of a document, by characters, that is cut at most; the document is left out beyond.

    Raises:
        ConfigError: a value is out of range.
    """

    name = "decontaminate"
    hashes_words = True

    tasks: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    n: int = 13
    fewest: int = 8
    most_cut_ratio: float = 0.1
    _folder: Path | None = dataclasses.field(default=None, init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        rules = {
            "n": (is_count(self.n), "must be a whole number of at least 1"),
            "fewest": (is_count(self.fewest) and self.fewest <= self.n, "must be a whole number from 1 to n"),
            "most_cut_ratio": (0 <= self.most_cut_ratio <= 1, "must be a number from 0 to 1"),
        }
        if violations := broken_rules("corpus.steps.decontaminate", self, rules):
            raise join_violations(violations)

    @property
    def present(self) -> list[Benchmark]:
        """The tasks that are not left out."""
        return [task for task in self.tasks.values() if task is not None]

    def __getstate__(self) -> dict[str, Any]:
        # A worker needs the hashes, which lie in a file; the tasks would make it import the evaluation, and torch with it.
        return {**vars(self), "tasks": {}}

    def settings(self) -> dict[str, Any]:
        """The tasks take part by what names their texts."""
        return {
            "n": self.n,
            "fewest": self.fewest,
            "most_cut_ratio": self.most_cut_ratio,
            "tasks": {task.name: task.settings() for task in self.present},
            "version": self.version,
        }

    def prepare(self, folder: Path) -> None:
        """Read all tasks and write the hashes of their n-grams.

        Raises:
            DataError: a task cannot be read.
        """
        self._folder = folder / "benchmarks"
        if (self._folder / "index.json").is_file():
            return
        by_length: dict[int, list[tuple[np.ndarray, int]]] = {}
        facts = []
        for number, task in enumerate(self.present):
            words = WordBatch.of_texts(list(task.texts()))
            lengths = np.minimum(words.n_words, self.n)
            facts.append([task.name, int((lengths >= self.fewest).sum()), int((lengths < self.fewest).sum())])
            for length in range(self.fewest, self.n + 1):
                hashes, texts = words.ngrams(length)
                chosen = hashes[lengths[texts] == length]
                if len(chosen):
                    by_length.setdefault(length, []).append((np.unique(chosen), number))
        for length, parts in by_length.items():
            hashes = np.concatenate([part for part, _ in parts])
            owners = np.repeat(
                np.array([number for _, number in parts], dtype=np.int16), [len(part) for part, _ in parts]
            )
            hashes, first = np.unique(hashes, return_index=True)  # an n-gram of two tasks counts for the first of them
            write_array(self._folder / f"{length}.hashes.npy", hashes)
            write_array(self._folder / f"{length}.owners.npy", owners[first])
        write_json(self._folder / "index.json", {"tasks": facts, "lengths": sorted(by_length)})

    def apply(self, document: Document) -> str | None:
        """Cut the paragraphs that overlap, or say which task they belong to."""
        assert self._folder is not None, "prepare() comes first"
        index = _index(self._folder)
        if not (hits := index.hits(document.text)):
            return None
        kept, cut_chars, tasks = [], 0, set(hits)
        for paragraph in document.text.split("\n"):
            found = index.hits(paragraph)
            tasks |= found
            if found:
                cut_chars += len(paragraph) + 1
            else:
                kept.append(paragraph)
        rest = "\n".join(kept)
        # An n-gram may reach over a line's end, and then no paragraph holds it alone.
        is_clean = cut_chars and rest.strip() and not index.hits(rest)
        drops = not is_clean or cut_chars > self.most_cut_ratio * len(document.text)
        names = [index.names[number] for number in sorted(tasks)]
        document.metadata[NOTES] = [f"{self.name} {'dropped' if drops else 'cut'} {name}" for name in names]
        if drops:
            return "overlaps with an evaluation task"
        document.text = rest
        return None

    def report(self, notes: Mapping[str, int]) -> str:
        """What was taken out for each task."""
        assert self._folder is not None, "prepare() comes first"
        rows = [
            (
                name,
                f"{looked_for:,}",
                f"{too_short:,}",
                f"{notes.get(f'{self.name} dropped {name}', 0):,}",
                f"{notes.get(f'{self.name} cut {name}', 0):,}",
            )
            for name, looked_for, too_short in read_json(self._folder / "index.json")["tasks"]
        ]
        head = ("task", "texts looked for", "too short", "documents left out", "documents cut")
        said = (
            f"Documents that share {self.n} words in a row with a question and its right answer (texts of {self.fewest} to "
            f"{self.n - 1} words: all of them) lose those paragraphs, or are left out where that is more than "
            f"{self.most_cut_ratio:.0%} of them. A document that overlaps with two tasks counts for both."
        )
        body = table(head, rows) if rows else "**No task was given: nothing was looked for.**"
        return f"## Overlap with evaluation tasks\n\n{said}\n\n{body}"


class _Index:
    """The n-grams of all tasks, and which task each belongs to."""

    def __init__(self, folder: Path) -> None:
        facts = read_json(folder / "index.json")
        self.names = [name for name, *_ in facts["tasks"]]
        self._parts = []
        for length in facts["lengths"]:
            hashes = read_array(folder / f"{length}.hashes.npy")
            # A Bloom filter of two hashes: with 16 places for each n-gram one in sixty of a document's gets through.
            shift = np.uint64(64 - min(_MOST_BITS, max(10, 4 + len(hashes).bit_length())))
            known = np.zeros(1 << (64 - int(shift)), dtype=bool)
            known[hashes >> shift] = True
            known[(hashes << _SECOND) >> shift] = True
            self._parts.append((length, shift, known, hashes, read_array(folder / f"{length}.owners.npy")))

    def hits(self, text: str) -> set[int]:
        """Numbers of the tasks that share an n-gram with ``text``."""
        found: set[int] = set()
        for length, shift, known, hashes, owners in self._parts:
            grams = ngram_hashes(text, length)
            perhaps = grams[known[grams >> shift]]
            perhaps = perhaps[known[(perhaps << _SECOND) >> shift]]
            if len(perhaps):
                places = np.minimum(np.searchsorted(hashes, perhaps), len(hashes) - 1)
                found.update(owners[places[hashes[places] == perhaps]].tolist())
        return found


@functools.lru_cache(maxsize=1)  # a worker takes many blocks
def _index(folder: Path) -> _Index:
    return _Index(folder)
