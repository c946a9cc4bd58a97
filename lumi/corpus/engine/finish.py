"""From the last stage to the folder that stays: shards, what was left out, figures, data card and manifest."""

import hashlib
import math
import os
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lumi.corpus.corpus import Corpus
from lumi.corpus.document import Source
from lumi.corpus.engine.blocks import COMPRESSIONS, BlockId, read_array, read_documents, read_json
from lumi.corpus.engine.card import data_card
from lumi.corpus.engine.picture import draw_lengths
from lumi.corpus.places import places_of
from lumi.errors import DataError
from lumi.manifest import Manifest, write_manifest

_QUANTILES = {"shortest": 0.0, "10 %": 0.1, "25 %": 0.25, "median": 0.5, "75 %": 0.75, "90 %": 0.9, "longest": 1.0}
_EXCERPT_CHARS = 400
PICTURE = "lengths.png"
_NOT_COMPARED = """## Overlap with evaluation tasks

**Not looked for**: a score on a public task may be that of a model which has read its questions here. `corpus=clean` looks."""


def finish(
    corpus: Corpus,
    blocks: Sequence[BlockId],
    folders: Mapping[str, Path],
    target: Path,
    settings: dict[str, Any],
    fingerprint: str,
) -> Manifest:
    """Fill ``target`` with the corpus.

    Args:
        blocks: all of them, in their order.
        folders: of the stages ``read``, ``process`` and ``write``.
        target: an empty folder.
        settings: for the manifest.
        fingerprint: of the settings.

    Raises:
        DataError: nothing is left of any source.
    """
    figures, lengths, excerpts = {}, {}, {}
    for source in corpus.present:
        own = [block for block in blocks if block.source == source.name]
        figures[source.name] = _figures(corpus, source, own, folders)
        arrays = [read_array(block.path(folders["write"], ".lengths.npy")) for block in own]
        lengths[source.name] = np.sort(np.concatenate(arrays))
        figures[source.name]["length_quantiles"] = quantiles(lengths[source.name])
        _place_shards(corpus, own, folders["write"], target, figures[source.name])
        _place_left_out(source, own, folders, target)
        excerpts[source.name] = _excerpt(target, figures[source.name]["shards"])
    info = _info(corpus, figures, lengths)
    _check_any(corpus, info)
    draw_lengths(lengths, target / PICTURE)
    notes = _sum(facts["step_notes"] for facts in figures.values())
    reports = [report for step in corpus.active_steps if (report := step.report(notes))] or [_NOT_COMPARED]
    (target / "DATA_CARD.md").write_text(data_card(info, settings, excerpts, reports, PICTURE), encoding="utf-8")
    return write_manifest(
        target,
        kind="corpus",
        name=corpus.name,
        fingerprint=fingerprint,
        settings=settings,
        info=info,
        places=places_of(corpus.present),
    )


def _figures(corpus: Corpus, source: Source, blocks: Sequence[BlockId], folders: Mapping[str, Path]) -> dict[str, Any]:
    """Counts of one source over its blocks; every row is accounted for."""
    read, processed, written = (
        [read_json(block.path(folders[stage], ".json")) for block in blocks] for stage in ("read", "process", "write")
    )
    bits = [record["bits"] for record in written]
    rejected = _sum(record["rejected"] for record in read)
    dropped = _sum([*(record["dropped"] for record in processed), *(record["dropped"] for record in written)])
    n_rows, n_documents = sum(record["rows"] for record in read), sum(record["documents"] for record in written)
    accounted = sum(rejected.values()) + sum(dropped.values()) + n_documents
    assert n_rows == accounted, f"{source.name}: {n_rows} rows were read and {accounted} are accounted for"
    return {
        "documents": n_documents,
        **{key: sum(record[key] for record in written) for key in ("chars", "bytes", "tokens")},
        "bits": None if None in bits else math.fsum(bits),
        "rows": n_rows,
        "rejected": rejected,
        "dropped": dropped,
        "dropped_bytes": _sum(
            [*(record["dropped_bytes"] for record in processed), *(record["dropped_bytes"] for record in written)]
        ),
        "step_notes": _sum(record["notes"] for record in processed),
        "budget": corpus.budgets()[source.name],
        "read_whole": bool(read[-1]["last"]),
        "content_sha256": hashlib.sha256("".join(record["sha256"] for record in written).encode()).hexdigest(),
        **{key: getattr(source, key) for key in ("category", "language", "licence", "notes")},
    }


def _sum(counts: Any) -> dict[str, int]:
    total: Counter[str] = Counter()
    for count in counts:
        total.update(count)
    return {key: value for key, value in sorted(total.items()) if value}


def _place_shards(
    corpus: Corpus, blocks: Sequence[BlockId], written: Path, target: Path, figures: dict[str, Any]
) -> None:
    """Shards under their final names, without copying them; a block of which nothing is left gives none."""
    figures["shards"] = []
    for block in blocks:
        if read_json(block.path(written, ".json"))["documents"]:
            name = f"{block.source}-{len(figures['shards']):05d}{COMPRESSIONS[corpus.compression]}"
            os.link(block.path(written, COMPRESSIONS[corpus.compression]), target / name)
            figures["shards"].append(name)


def _place_left_out(source: Source, blocks: Sequence[BlockId], folders: Mapping[str, Path], target: Path) -> None:
    """``rejected/<source>.jsonl`` names every row; ``dropped/<source>.jsonl`` has examples for each reason."""
    parts = {
        "rejected": [block.path(folders["read"], ".rejected.jsonl") for block in blocks],
        "dropped": [
            block.path(folders[stage], f".{kind}.jsonl")
            for stage, kind in (("process", "dropped"), ("write", "duplicates"))
            for block in blocks
        ],
    }
    for kind, paths in parts.items():
        if any(path.stat().st_size for path in paths):
            (target / kind).mkdir(exist_ok=True)
            with (target / kind / f"{source.name}.jsonl").open("wb") as file:
                for path in paths:
                    with path.open("rb") as part:
                        shutil.copyfileobj(part, file)


def _excerpt(target: Path, shards: Sequence[str]) -> str:
    """How the first document of a source begins."""
    first = next(read_documents(target / shards[0]), None) if shards else None
    return first.text[:_EXCERPT_CHARS] if first else ""


def _info(corpus: Corpus, figures: dict[str, dict[str, Any]], lengths: Mapping[str, np.ndarray]) -> dict[str, Any]:
    bits = [facts["bits"] for facts in figures.values() if facts["documents"]]
    content = "".join(f"{name} {facts['content_sha256']} " for name, facts in figures.items())
    return {
        "name": corpus.name,
        **{
            key: sum(facts[key] for facts in figures.values())
            for key in ("documents", "chars", "bytes", "tokens", "rows")
        },
        "bits": None if None in bits else math.fsum(bits),
        "rejected": _sum(facts["rejected"] for facts in figures.values()),
        "dropped": _sum(facts["dropped"] for facts in figures.values()),
        "dropped_bytes": _sum(facts["dropped_bytes"] for facts in figures.values()),
        "length_quantiles": quantiles(np.sort(np.concatenate(list(lengths.values())))),
        "content_sha256": hashlib.sha256(content.encode()).hexdigest(),
        "sources": figures,
    }


def quantiles(lengths: np.ndarray) -> dict[str, int]:
    """Characters of the document at some places of the order by length (nearest rank)."""
    if not len(lengths):
        return {}
    return {name: int(lengths[round(share * (len(lengths) - 1))]) for name, share in _QUANTILES.items()}


def _check_any(corpus: Corpus, info: dict[str, Any]) -> None:
    if not info["documents"]:
        reasons = sorted({**info["rejected"], **info["dropped"]}.items(), key=lambda item: -item[1])
        why = ", ".join(f"{count:,} {reason}" for reason, count in reasons) or "no row at all"
        raise DataError(f"corpus={corpus.name} gave no document ({why})", "a corpus needs at least one")
