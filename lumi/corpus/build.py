"""A corpus on disk: the documents of one source, written once, counted, hashed, and read back exactly.

``data/corpus/<name>/`` holds the documents as JSON lines in shards, a data card, the rows that were rejected, and the
manifest. It is made by ``python prepare.py step=corpus source=…``.
"""

import contextlib
import hashlib
import json
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from tqdm import tqdm

from lumi.corpus.card import Tally, data_card
from lumi.corpus.document import Document, Rejected, Source
from lumi.corpus.text import text_fault
from lumi.errors import DataError
from lumi.lock import folder_lock
from lumi.manifest import MANIFEST, Manifest, atomic_folder, fingerprint, read_manifest, verify, write_manifest
from lumi.reuse import setting_changes

log = logging.getLogger(__name__)

FORMAT_VERSION = 1
SHARD_BYTES = 64_000_000
_MOST_DIFFERENCES = 5
_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def build_corpus(source: Source, folder: Path, *, force: bool = False) -> Manifest:
    """Write the documents of ``source`` to ``folder``, unless they are there already.

    Documents whose text was there before are dropped and counted. Memory is that of the largest document, and some 100
    bytes a document for the hashes that find duplicates.

    Args:
        force: build again whatever an earlier corpus in ``folder`` was made from.

    Raises:
        DataError: ``folder`` holds a corpus of other settings, a damaged one, or something else; the source has no
            document, has one that breaks the rules of `lumi.corpus.text`, or changed meanwhile.
        ResourceError: the disk is full.
    """
    with folder_lock(folder, wait=True):
        settings = _settings(source)
        if (done := _finished(folder, settings, force)) is not None:
            log.info("corpus %s is up to date: %s documents in %s", source.name, f"{done.info['documents']:,}", folder)
            return done
        start = time.monotonic()
        with atomic_folder(folder) as work:
            tally, content_sha256 = _write(source, work)
            if _settings(source) != settings:
                raise DataError(f"source={source.name}", "changed while it was read", "run the same command again")
            about = {"name": source.name, "licence": source.licence, "notes": source.notes}
            info = {**about, **tally.info(), "content_sha256": content_sha256}
            (work / "DATA_CARD.md").write_text(data_card(info, settings, tally.excerpt), encoding="utf-8")
            manifest = write_manifest(
                work,
                kind="corpus",
                name=source.name,
                fingerprint=fingerprint(settings),
                settings=settings,
                info=info,
            )
    _report(source, folder, tally, time.monotonic() - start)
    return manifest


def read_corpus(folder: Path) -> Iterator[Document]:
    """The documents of a corpus in their order; every file is checked against its hash before the first is given.

    Raises:
        DataError: ``folder`` is not a finished corpus, or was changed or damaged.
    """
    manifest = verify(folder, kind="corpus")
    for name in sorted(manifest.files):
        if name.startswith("docs-"):
            with (folder / name).open("rb") as file:
                for line in file:
                    yield Document(**json.loads(line))


def _settings(source: Source) -> dict[str, Any]:
    """All that decides the bytes of the folder, the data card included."""
    about = {"name": source.name, "licence": source.licence, "notes": source.notes}
    settings = {**source.settings(), **about, "corpus_format": FORMAT_VERSION}
    return json.loads(json.dumps(settings))  # as the manifest will give it back: lists for tuples, strings for keys


def _finished(folder: Path, settings: dict[str, Any], force: bool) -> Manifest | None:
    """The manifest of what is in ``folder`` already, or None when there is something to do."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return None
    if not (folder / MANIFEST).is_file():
        rule = f"exists and is no artefact of Lumi (it has no {MANIFEST}), so it is left alone"
        raise DataError(f"{folder}", rule, "use another source.name, or remove it")
    if force:
        return None
    found = read_manifest(folder, kind="corpus")
    if found.fingerprint == fingerprint(settings):
        return verify(folder, kind="corpus")
    changes = list(setting_changes("source", found.settings, settings))
    more = f" and {len(changes) - _MOST_DIFFERENCES} more" if len(changes) > _MOST_DIFFERENCES else ""
    raise DataError(
        f"{folder} was made with other settings",
        f"{', '.join(changes[:_MOST_DIFFERENCES])}{more}",
        "force=true builds it again, source.name=… makes another beside it",
    )


def _write(source: Source, work: Path) -> tuple[Tally, str]:
    """Write shards and rejected rows; returns the counts and the SHA-256 of all shards in their order."""
    tally, seen = Tally(), set[bytes]()
    with contextlib.ExitStack() as stack:
        shards = stack.enter_context(contextlib.closing(_Shards(work)))
        rejected_file: BinaryIO | None = None
        bar = stack.enter_context(tqdm(desc=source.name, unit=" docs", unit_scale=True, delay=2, disable=None))
        for item in source.documents():
            if isinstance(item, Rejected):
                rejected_file = rejected_file or stack.enter_context((work / "rejected.jsonl").open("wb"))
                row = {"where": item.where, "reason": item.reason, "detail": item.detail[:500]}
                rejected_file.write(_json_line(row))
                tally.rejected[item.reason] += 1
                continue
            data = _checked(source, item)
            digest = hashlib.blake2b(data, digest_size=16).digest()
            if digest in seen:
                tally.n_duplicates += 1
                continue
            seen.add(digest)
            shards.write(_document_line(item))
            tally.add(item, len(data))
            if bar.update():
                bar.set_postfix_str(f"{tally.n_bytes / 1e6:,.0f} MB", refresh=False)
    if not tally.n_documents:
        why = ", ".join(f"{count:,} {reason}" for reason, count in tally.rejected.most_common()) or "no row at all"
        raise DataError(f"source={source.name} gave no document ({why})", "a corpus needs at least one")
    return tally, shards.sha256.hexdigest()


def _checked(source: Source, document: Document) -> bytes:
    if fault := text_fault(document.text):
        raise DataError(f"source={source.name}: document {document.id}", fault.rule, "its source has to reject it")
    return document.text.encode("utf-8")


def _document_line(document: Document) -> bytes:
    fields: dict[str, Any] = {"text": document.text, "id": document.id}
    if document.bits is not None:
        fields["bits"] = document.bits
    if document.meta:
        fields["meta"] = dict(sorted(document.meta.items()))
    return _json_line(fields)


def _json_line(fields: dict[str, Any]) -> bytes:
    return _ENCODER.encode(fields).encode("utf-8") + b"\n"


class _Shards:
    """Lines spread over docs-00000.jsonl, docs-00001.jsonl, …, each of at most `SHARD_BYTES` unless one line is larger."""

    def __init__(self, folder: Path) -> None:
        self.sha256 = hashlib.sha256()
        self._folder = folder
        self._file: BinaryIO | None = None
        self._n_shards = self._shard_bytes = 0

    def write(self, line: bytes) -> None:
        """Append one line, to a new shard if it does not fit the open one."""
        if self._file is None or self._shard_bytes + len(line) > SHARD_BYTES:
            self.close()
            self._file = (self._folder / f"docs-{self._n_shards:05d}.jsonl").open("wb")
            self._n_shards, self._shard_bytes = self._n_shards + 1, 0
        self._file.write(line)
        self._shard_bytes += len(line)
        self.sha256.update(line)

    def close(self) -> None:
        """Close the open shard."""
        if self._file is not None:
            self._file.close()
            self._file = None


def _report(source: Source, folder: Path, tally: Tally, seconds: float) -> None:
    size = f"{tally.n_documents:,} documents, {tally.n_bytes / 1e6:,.2f} MB"
    log.info("corpus %s: %s in %.1f s: %s", source.name, size, seconds, folder)
    if tally.n_duplicates:
        log.info("corpus %s: %s exact duplicates left out", source.name, f"{tally.n_duplicates:,}")
    if tally.rejected:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in tally.rejected.most_common())
        log.warning("corpus %s: rows left out: %s; named in %s", source.name, reasons, folder / "rejected.jsonl")
