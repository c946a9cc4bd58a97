"""Part 1, near duplicates: speed of the signatures and of what finds pairs by them, and how many it finds."""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.contestants import THRESHOLD, Contestant, contestants, shingles
from benchmarks.measure import Table, alternate, percent, rate, speedup
from benchmarks.texts import short_documents, with_near_duplicates
from lumi.corpus.duplicates.match import groups


def measure_signatures(texts: Sequence[str], work: Path, *, documents: int, repeats: int, seed: int) -> list[Table]:
    """Speed on pieces of the text, quality on pieces of which half are near duplicates of others."""
    pieces = short_documents(texts, documents, seed)
    planted = with_near_duplicates(pieces, len(pieces), seed)
    every = contestants(work)
    return [_speed(every, planted, repeats), _quality(every, planted)]


def _speed(every: Sequence[Contestant], texts: Sequence[str], repeats: int) -> Table:
    signing = alternate({one.name: one.signatures for one in every}, repeats, prepare=lambda: texts)
    stored = {one.name: one.stored(texts) for one in every}
    finding = alternate({one.name: functools.partial(_find, one, stored[one.name]) for one in every}, repeats)
    both = {name: [a + b for a, b in zip(signing[name], finding[name], strict=True)] for name in signing}
    first = every[0].name
    rows = [
        {
            "contestant": name,
            "signatures/s": rate(len(texts), signing[name]),
            f"x {first}": speedup(signing[name], signing[first]),
            "matched/s": rate(len(texts), finding[name]),
            "both/s": rate(len(texts), both[name]),
            f"both x {first}": speedup(both[name], both[first]),
        }
        for name in signing
    ]
    notes = [
        f"documents a second: {len(texts):,} documents of 1.6 kB, one thread, from text to pairs",
        "128 minima in 16 bands of 8; Lumi 256 in 32 of 8, kept to 8 bits, compared, and written to disk",
    ]
    return Table(
        title="Near duplicates: speed", rows=rows, notes=notes, raw={"signatures": signing, "matching": finding}
    )


def _find(one: Contestant, stored: Any, _: None) -> np.ndarray:
    return one.candidates(stored)


def _quality(every: Sequence[Contestant], texts: Sequence[str]) -> Table:
    true = true_similarities(texts)
    rows = [
        {"contestant": one.name, "links": kind, **facts(pairs, true)}
        for one in every
        for kind, pairs in _links(one, texts).items()
    ]
    upper = true[np.triu_indices(len(texts), 1)]
    spread = {f">= {low:.2f}": int((upper >= low).sum()) for low in (0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)}
    notes = [
        f"{len(texts):,} documents, half of them with planted changes; true similarities of all pairs by counting",
        f"pairs by true similarity: {', '.join(f'{key}: {count:,}' for key, count in spread.items())}",
        "missed: of the pairs from that similarity on (recall is 100 % less that); wrong: of the linked pairs, those below it",
        "verified: estimated similarity of 0.8 or more, as Lumi's links are; grouped: what is linked to one that is linked",
    ]
    return Table(title="Near duplicates: quality", rows=rows, notes=notes, raw={"pairs": spread})


def _links(one: Contestant, texts: Sequence[str]) -> dict[str, np.ndarray]:
    """Pairs that a contestant links, (documents, documents) bool each, by the kind of link."""
    stored = one.stored(texts)
    pairs, digests = one.candidates(stored), one.digests(stored)
    if digests is None:
        return {"verified": _matrix(pairs, len(texts)), "grouped": _grouped(pairs, len(texts))}
    verified = pairs[(digests[pairs[:, 0]] == digests[pairs[:, 1]]).mean(axis=1) >= THRESHOLD]
    return {
        "candidates": _matrix(pairs, len(texts)),
        "verified": _matrix(verified, len(texts)),
        "grouped": _grouped(verified, len(texts)),
    }


def _matrix(pairs: np.ndarray, n_documents: int) -> np.ndarray:
    linked = np.zeros((n_documents, n_documents), dtype=bool)
    linked[pairs[:, 0], pairs[:, 1]] = linked[pairs[:, 1], pairs[:, 0]] = True
    return linked


def _grouped(pairs: np.ndarray, n_documents: int) -> np.ndarray:
    label = np.arange(n_documents)
    members, firsts = groups(pairs)
    label[members] = firsts
    return label[:, None] == label


def facts(linked: np.ndarray, true: np.ndarray) -> Mapping[str, Any]:
    """How well links fit the true similarities, (documents, documents) both."""
    upper = np.triu_indices(len(true), 1)
    is_linked, similarity = linked[upper], true[upper]
    n_linked = int(is_linked.sum())

    def missed(low: float) -> int:
        return int((~is_linked & (similarity >= low)).sum())

    def wrong(low: float) -> int:
        return int((is_linked & (similarity < low)).sum())

    return {
        "pairs": n_linked,
        "missed >= 0.8 %": percent(missed(0.8), int((similarity >= 0.8).sum())),
        "missed >= 0.85 %": percent(missed(0.85), int((similarity >= 0.85).sum())),
        "wrong < 0.8 %": percent(wrong(0.8), n_linked),
        "wrong < 0.75 %": percent(wrong(0.75), n_linked),
    }


def true_similarities(texts: Sequence[str]) -> np.ndarray:
    """Jaccard similarities of all pairs, (documents, documents) float64, by counting every shingle in every document."""
    numbers: dict[bytes, int] = {}
    sets = [
        np.array(sorted({numbers.setdefault(s, len(numbers)) for s in shingles(text)}), dtype=np.int64)
        for text in texts
    ]
    sizes = np.array(list(map(len, sets)))
    owners = np.repeat(np.arange(len(sets)), sizes)
    order = np.argsort(np.concatenate(sets), kind="stable")
    places = np.cumsum(np.bincount(np.concatenate(sets), minlength=len(numbers)))[:-1]
    shared = np.zeros((len(sets), len(sets)), dtype=np.int64)
    for having in np.split(owners[order], places):
        if len(having) > 1:
            shared[having[:, None], having] += 1
    return shared / np.maximum(sizes[:, None] + sizes - shared, 1)
