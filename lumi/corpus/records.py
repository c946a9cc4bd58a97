"""Examples on disk: rows of one source, split, counted, hashed; the common form of conversations and preference pairs.

<folder>/train.jsonl, val.jsonl, test.jsonl     one row a line
<folder>/rejected.jsonl                         rows that were left out, with where and why
<folder>/DATA_CARD.md, MANIFEST.json
"""

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

from lumi.corpus.document import Rejected
from lumi.corpus.places import places_of
from lumi.errors import DataError
from lumi.lock import folder_lock
from lumi.manifest import Manifest, atomic_folder, verify, write_manifest
from lumi.reuse import content_fingerprint, finished

log = logging.getLogger(__name__)

SPLITS = ("train", "val", "test")
_FORMAT = 2
_VAL_IN = 20
"""One row in so many is held out where a source does not say which."""

_NO_FAULT = ("filtered", "duplicate", "orphan", "no answer")
"""Reasons for which a sound row is left out."""

Row = dict[str, Any]


class Described(Protocol):
    """What every source of examples says of itself; as properties, because sources may be frozen."""

    @property
    def name(self) -> str:
        """Folder of its examples, and name of its loss."""
        ...

    @property
    def weight(self) -> float:
        """Share in a mixture."""
        ...

    @property
    def licence(self) -> str:
        """Of the text."""
        ...

    @property
    def notes(self) -> str:
        """For the data card."""
        ...

    def settings(self) -> dict[str, Any]:
        """Everything that decides the rows, as plain JSON."""
        ...


def build_records(
    kind: str,
    source: Described,
    rows: Callable[[], Iterator[Row | Rejected]],
    folder: Path,
    *,
    force: bool = False,
    describe: tuple[Callable[[dict[str, list[Row]]], Row], Callable[[Row], list[str]]] | None = None,
) -> Manifest:
    """Write the rows of a source, unless they are there already.

    Args:
        kind: of the manifest.
        rows: plain JSON; ``meta.split`` says where a row belongs, else the hash of its content does.
        describe: an audit beyond counts: its figures from the rows of each split, kept in the manifest, and its lines from the
            figures, for the data card.

    Raises:
        DataError: no row to train on, too many faulty ones, or ``folder`` was made otherwise.
    """
    settings = json.loads(json.dumps({**source.settings(), "name": source.name, "format": _FORMAT}))
    with folder_lock(folder, wait=True):
        fix = f"build it again: python prepare.py step={kind} force=true, with the same data.sources"
        if found := finished(folder, kind=kind, key=kind, settings=settings, parents={}, force=force, fix=fix):
            log.info("%s %s is up to date: %s", kind, source.name, folder)
            return found
        by_split, rejected = _collect(rows())
        _check_faults(source, by_split, rejected)
        if not by_split["train"]:
            why = ", ".join(f"{n:,} {reason}" for reason, n in Counter(r.reason for r in rejected).most_common())
            raise DataError(f"{kind}={source.name} gave no row to train on ({why or 'no row at all'})", "needs one")
        counts = {split: len(kept) for split, kept in by_split.items()}
        info = {"rows": counts, "rejected": dict(Counter(row.reason for row in rejected)), "licence": source.licence}
        with atomic_folder(folder) as work:
            for split, kept in by_split.items():
                _write(work / f"{split}.jsonl", kept)
            _write(
                work / "rejected.jsonl",
                [{"where": r.where, "reason": r.reason, "detail": _shown(r.detail)} for r in rejected],
            )
            audit = []
            if describe:
                info["audit"] = describe[0](by_split)
                audit = describe[1](info["audit"])
            (work / "DATA_CARD.md").write_text(_card(kind, source, info, audit, by_split["train"][0]))
            manifest = write_manifest(
                work,
                kind=kind,
                name=source.name,
                fingerprint=content_fingerprint(settings, {}),
                settings=settings,
                info=info,
                places=places_of([source]),
            )
    left_out = f"; left out: {info['rejected']}" if rejected else ""
    log.info("%s %s: %s%s: %s", kind, source.name, ", ".join(f"{n:,} {s}" for s, n in counts.items()), left_out, folder)
    return manifest


def read_records(folder: Path, split: str, kind: str) -> Iterator[Row]:
    """The rows of one split; every file is checked against its hash first.

    Raises:
        DataError: the folder is missing, changed or damaged.
    """
    verify(folder, kind=kind)
    with (folder / f"{split}.jsonl").open(encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)


def _collect(rows: Iterator[Row | Rejected]) -> tuple[dict[str, list[Row]], list[Rejected]]:
    """Rows by split, exact duplicates left out; a row of the test split is in no other."""
    by_split: dict[str, list[Row]] = {split: [] for split in SPLITS}
    rejected, seen = [], set[str]()
    for row in rows:
        if isinstance(row, Rejected):
            rejected.append(row)
            continue
        content = json.dumps({k: v for k, v in row.items() if k not in ("id", "meta")}, sort_keys=True)
        digest = hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()
        if digest in seen:
            rejected.append(Rejected(where=row["id"], reason="duplicate"))
            continue
        seen.add(digest)
        by_split[row["meta"].get("split") or ("val" if int(digest[:8], 16) % _VAL_IN == 0 else "train")].append(row)
    if (
        not by_split["val"] and len(by_split["train"]) > 1
    ):  # a few rows, none of them drawn: one must be there to validate on
        by_split["val"].append(by_split["train"].pop())
    return by_split, rejected


def _check_faults(source: Described, by_split: dict[str, list[Row]], rejected: list[Rejected]) -> None:
    """Many faulty rows mean that a setting is wrong, not the rows."""
    most = getattr(source, "max_rejected_ratio", None)
    reasons = Counter(row.reason for row in rejected if row.reason not in _NO_FAULT)
    share = reasons.total() / max(1, reasons.total() + sum(map(len, by_split.values())))
    if most is not None and share > most:
        why = ", ".join(f"{n:,} {reason}" for reason, n in reasons.most_common())
        raise DataError(
            f"{source.name}: {share:.1%} of its rows are faulty ({why})",
            f"is more than data.sources.{source.name}.max_rejected_ratio={most}",
            "on_error=fail shows the first of them",
        )


def _write(path: Path, rows: list[Row]) -> None:
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False, sort_keys=True) + "\n")


def _shown(text: str) -> str:
    """Text for a file, whatever stood in a bad row: half a surrogate pair by its number."""
    return text.encode("utf-8", "backslashreplace").decode()


def _card(kind: str, source: Described, info: dict[str, Any], audit: list[str], example: Row) -> str:
    lines = [
        f"# {kind} data: {source.name}",
        "",
        f"Licence: {source.licence}. {source.notes}",
        "",
        *(f"- {split}: {count:,} rows" for split, count in info["rows"].items()),
        *(f"- left out, {reason}: {count:,}" for reason, count in info["rejected"].items()),
        "",
        *(["## Audit", "", *(f"- {line}" for line in audit), ""] if audit else []),
        "## A row",
        "",
        "```json",
        json.dumps(example, ensure_ascii=False, indent=2),
        "```",
    ]
    return "\n".join(lines) + "\n"
