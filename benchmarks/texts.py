"""The text that is measured on: read once, cut into short documents, and with near duplicates of known similarity."""

import dataclasses
import itertools
import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lumi.corpus import Document, Files, PyDocs, Rejected, Source, SourceSettings, World, read_corpus

SHORT_CHARS = 1600
_DEMO_MEGABYTES = 4.0


def sources_of(paths: Sequence[str]) -> list[Source]:
    """Files, or what every machine has: the documentation of Python and the generated world."""
    if paths:
        return [Files(path=list(paths), name="text", on_error="skip", max_doc_bytes=100_000_000)]
    return [PyDocs(name="pydocs", packages=[]), World(name="world", megabytes=_DEMO_MEGABYTES)]


def read_texts(sources: Sequence[Source], megabytes: float | None, seed: int) -> list[str]:
    """All texts of the sources, or a random part of so many megabytes, in the order of the sources."""
    documents = itertools.chain.from_iterable(source.documents() for source in sources)
    texts = [document.text for document in documents if isinstance(document, Document)]
    return texts if megabytes is None else sample(texts, megabytes, seed)


def sample(texts: Sequence[str], megabytes: float, seed: int) -> list[str]:
    """Random ones of ``texts``, in their order, until there are so many megabytes."""
    order = list(range(len(texts)))
    random.Random(seed).shuffle(order)
    chosen, size = list[int](), 0
    for index in order:
        if size >= megabytes * 1e6:
            break
        chosen.append(index)
        size += len(texts[index].encode())
    return [texts[index] for index in sorted(chosen)]


def short_documents(texts: Sequence[str], count: int, seed: int) -> list[str]:
    """At most ``count`` pieces of `SHORT_CHARS`, from random places, none of which overlap."""
    places = [
        (number, start)
        for number, text in enumerate(texts)
        for start in range(0, len(text) - SHORT_CHARS + 1, SHORT_CHARS)
    ]
    random.Random(seed).shuffle(places)
    return [texts[number][start : start + SHORT_CHARS] for number, start in places[:count]]


def with_near_duplicates(originals: Sequence[str], count: int, seed: int) -> list[str]:
    """``count`` documents in random order: half of them are others of them with random words changed.

    The rate of the changes is such that the Jaccard similarity of 3-word shingles is about uniform from 0.5 to 1: all three
    words of a shingle stay with probability ``s = (1 - rate)**3``, and two documents that share ``s`` of their shingles have
    similarity ``s / (2 - s)``.
    """
    rng = random.Random(seed)
    kept = list(originals[: count - count // 2])
    words = [word for text in kept for word in text.split(" ") if word]
    changed = []
    for _ in range(count // 2):
        similarity = rng.uniform(0.5, 1.0)
        changed.append(edited(rng.choice(kept), 1 - (2 * similarity / (1 + similarity)) ** (1 / 3), words, rng))
    documents = kept + changed
    rng.shuffle(documents)
    return documents


def edited(text: str, change_ratio: float, words: Sequence[str], rng: random.Random) -> str:
    """``text`` with this share of its words replaced, taken out, or preceded by another one."""
    parts = text.split(" ")
    for index in range(len(parts)):
        if rng.random() < change_ratio:
            other = rng.choice(words)
            parts[index] = rng.choice((other, "", f"{other} {parts[index]}"))
    return " ".join(parts)


def write_jsonl(texts: Sequence[str], path: Path) -> Files:
    """The texts as a file of JSON lines, and the source that reads it."""
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts)
    return Files(path=str(path), name="text", max_doc_bytes=200_000_000, language="en")


@dataclasses.dataclass(frozen=True)
class Invented:
    """A task for `lumi.corpus.steps.Decontaminate` where there is none: words of the text in an order that it never has.

    Args:
        words: to draw from.
        count: of its texts, 20 words each.
    """

    words: Sequence[str]
    count: int = 10_000
    name: str = "invented"

    def texts(self) -> Iterator[str]:
        """Random words."""
        rng = random.Random(0)
        for _ in range(self.count):
            yield " ".join(rng.choices(self.words, k=20))

    def settings(self) -> dict[str, Any]:
        """Enough for a corpus that nobody keeps."""
        return {"count": self.count}


@dataclasses.dataclass(kw_only=True)
class Noisy(SourceSettings):
    """A corpus again and again, each time with other words replaced, until there are so many gigabytes.

    Reads the corpus anew each time, so that what it needs of memory is one document.

    Args:
        corpus: folder of a corpus.
        gigabytes: of text.
        most_change_ratio: words are replaced at a rate that is drawn for each document between 0 and this.
        seed: of the words.
    """

    corpus: Path
    gigabytes: float
    most_change_ratio: float = 0.1
    seed: int = 0

    def settings(self) -> dict[str, Any]:
        """Enough for a corpus that nobody keeps."""
        return {"gigabytes": self.gigabytes, "seed": self.seed}

    def documents(self) -> Iterator[Document | Rejected]:
        """Whole documents in one round, short ones in the next."""
        rng = random.Random(self.seed)
        size = 0
        for number in itertools.count():
            for document in self._round(number):
                if size >= self.gigabytes * 1e9:
                    return
                text = self._noisy(document.text, rng)
                if not text.strip():  # a piece of nothing but blank lines
                    continue
                size += len(text.encode())
                yield Document(text=text, id=f"{number}:{document.id}")

    def _round(self, number: int) -> Iterator[Document]:
        for document in read_corpus(self.corpus):
            if number % 2 == 0:
                yield document
                continue
            for start in range(0, len(document.text), SHORT_CHARS):
                yield Document(text=document.text[start : start + SHORT_CHARS], id=f"{document.id}:{start}")

    def _noisy(self, text: str, rng: random.Random) -> str:
        words = text.split(" ")
        for index in rng.choices(range(len(words)), k=round(len(words) * rng.uniform(0, self.most_change_ratio))):
            words[index] = f"x{rng.randrange(100_000)}"
        return " ".join(words)
