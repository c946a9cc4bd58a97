"""Part 2, the steps that look at one document at a time, against datatrove's own with the same words and settings."""

import dataclasses
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

import xxhash
from datatrove.data import Document
from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupSignature
from datatrove.pipeline.filters import (
    C4QualityFilter,
    FineWebQualityFilter,
    GopherQualityFilter,
    GopherRepetitionFilter,
)

from benchmarks.measure import Table, alternate, n_bytes, percent, rate, speedup
from benchmarks.texts import sample, short_documents
from lumi.corpus import Duplicates
from lumi.corpus.steps import C4Quality, FineWebQuality, GopherQuality, GopherRepetition
from lumi.corpus.steps.word_tokenizer import SpacedWords
from lumi.corpus.steps.words import split_words

Verdict = tuple[bool, str]
"""Whether a document stays, and its text then."""


class LumiWords(SpacedWords):
    """The words of `GopherRepetition` and of signatures, for datatrove."""

    def word_tokenize(self, text: str) -> list[str]:
        return [word.decode("utf-8", "replace") for word in split_words(text)]


@dataclasses.dataclass(frozen=True)
class Rival:
    """A step of Lumi and the one of datatrove that does the same; each decides about one document."""

    name: str
    ours: Callable[[Document], Any]
    theirs: Callable[[Document], Any]
    decides: bool = True


def rivals() -> list[Rival]:
    """All steps that have a rival."""
    spaced: Any = SpacedWords()
    words: Any = LumiWords()
    return [
        Rival("gopher_repetition", GopherRepetition().apply, GopherRepetitionFilter(language=words).filter),
        Rival("gopher_quality", GopherQuality().apply, GopherQualityFilter(language=spaced).filter),
        Rival("c4_quality", C4Quality().apply, C4QualityFilter(language=spaced).filter),
        Rival("fineweb_quality", FineWebQuality().apply, FineWebQualityFilter(language=spaced).filter),
        Rival("signature", *_signatures(words), decides=False),
    ]


def _signatures(words: Any) -> tuple[Callable[[Document], Any], Callable[[Document], Any]]:
    """Lumi's 32 bands of 8 minima, and datatrove's 14 of 8, which is its default, of shingles of three words."""
    ours = Duplicates(near=True).signature()
    assert ours is not None, "near=True has one"
    config = MinhashConfig(n_grams=ours.shingle_words)
    theirs = MinhashDedupSignature(tempfile.gettempdir(), config, language=words)
    theirs._hash_func = lambda text: xxhash.xxh64_intdigest(
        text.encode()
    )  # its own gives xxhash 4 a string, which raises
    waiting: list[str] = []

    def batched(document: Document) -> None:
        """As in the engine: the signatures of about a megabyte at once; the last part of a megabyte is not computed."""
        waiting.append(document.text)
        if (len(waiting) % 50 == 0 and sum(map(len, waiting)) >= 1_000_000) or len(document.text) >= 1_000_000:
            ours.of(waiting)
            waiting.clear()

    return (
        batched,
        lambda document: theirs.get_signature(theirs.get_shingles(document.text)),
    )


def measure_steps(texts: Sequence[str], *, megabytes: float, repeats: int, seed: int) -> list[Table]:
    """On pieces of 1.6 kB and on whole documents, so many megabytes each."""
    whole = sample(texts, megabytes, seed)
    short = short_documents(whole, int(megabytes * 1e6), seed)
    return [_measure("1.6 kB", short, repeats), _measure("whole", whole, repeats)]


def _measure(kind: str, texts: Sequence[str], repeats: int) -> Table:
    rows, raw = [], {}
    for rival in rivals():
        seconds = alternate(
            {"lumi": _over(rival.ours), "datatrove": _over(rival.theirs)}, repeats, prepare=lambda: _documents(texts)
        )
        raw[rival.name] = seconds
        rows.append(
            {
                "step": rival.name,
                "Lumi MB/s": rate(n_bytes(texts) / 1e6, seconds["lumi"]),
                "datatrove MB/s": rate(n_bytes(texts) / 1e6, seconds["datatrove"]),
                "x datatrove": speedup(seconds["lumi"], seconds["datatrove"]),
                **(_agreement(rival, texts) if rival.decides else {"kept %": None, "agree %": None}),
            }
        )
    notes = [
        f"{len(texts):,} documents, {n_bytes(texts) / 1e6:.1f} MB, one thread; each step by itself, so it finds the words anew",
        "agree: documents that both keep, with the same text, or both leave out",
    ]
    return Table(title=f"Steps against datatrove: {kind} documents", rows=rows, notes=notes, raw=raw)


def _documents(texts: Sequence[str]) -> list[Document]:
    return [Document(text=text, id="") for text in texts]


def _over(decide: Callable[[Document], Any]) -> Callable[[list[Document]], None]:
    def run(documents: list[Document]) -> None:
        for document in documents:
            decide(document)

    return run


def _agreement(rival: Rival, texts: Sequence[str]) -> dict[str, float | None]:
    ours = [_verdict(rival.ours, text) for text in texts]
    theirs = [_verdict(rival.theirs, text) for text in texts]
    same = sum(one == other for one, other in zip(ours, theirs, strict=True))
    return {"kept %": percent(sum(kept for kept, _ in ours), len(texts)), "agree %": percent(same, len(texts))}


def _verdict(decide: Callable[[Document], Any], text: str) -> Verdict:
    """What became of a document; Lumi's steps give a reason or None, datatrove's true or false and a reason."""
    document = Document(text=text, id="")
    result = decide(document)
    left_out = isinstance(result, str | tuple) or result is False or not document.text
    return (False, "") if left_out else (True, document.text)
