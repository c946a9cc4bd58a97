"""The documents in a window: their number, their id in the corpus, how many of their tokens, and the text."""

import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lumi.corpus import read_corpus
from lumi.corpus.engine.pack import split_fraction
from lumi.data import MixedWindows, PackedStream, RowStream
from lumi.data.chat import spelled
from lumi.errors import DataError
from lumi.lineage.artefacts import links_of
from lumi.manifest import read_manifest
from lumi.tokenizer.frozen import utf8

log = logging.getLogger(__name__)

_LARGEST_CORPUS_BYTES = 2_000_000_000
"""Ids are found by reading the corpus from its beginning: a minute for so much text, more would surprise."""


@dataclasses.dataclass(kw_only=True)
class ReadDocument:
    """A document, or the part of one that stands in a window.

    Attributes:
        number: in its split, from 0; of a conversation or pair its place among those that fit a window.
        id: in the corpus, or in its source; None where that is not known.
        role: chosen or rejected, of an answer of a pair.
        tokens: in this window.
        of_tokens: of the whole document.
        first: of its tokens that stands here.
        supervised: tokens that are learnt from.
        text: of the part that stands here; of conversations with control symbols by their names.
    """

    number: int
    id: str | None = None
    role: str | None = None
    tokens: int
    of_tokens: int
    first: int
    supervised: int
    text: str


@dataclasses.dataclass(kw_only=True)
class ReadWindow:
    """A row of a batch.

    Attributes:
        micro_batch: of the step. rank: that read it. row: of the batch.
        source: its name.
        window: of the source. piece: of the window, where windows are cut.
        folder: of the prepared data.
        split_tokens: first token, and the one after the last, in the stream of a packed source; None for conversations.
        tokens: of the row, as they were read.
        documents: in the row.
    """

    micro_batch: int
    rank: int
    row: int
    source: str
    window: int
    piece: int
    folder: Path
    split_tokens: tuple[int, int] | None
    tokens: list[int]
    documents: list[ReadDocument]

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return {**dataclasses.asdict(self), "folder": str(self.folder)}


class Documents:
    """Finds them.

    Args:
        data: of the run, set up.
        seq_len: tokens of a window in the phase of the step.
    """

    def __init__(self, data: MixedWindows, seq_len: int) -> None:
        self.data, self.seq_len = data, seq_len

    def of_window(self, part: int, rank: int, row: int, batch: Any, piece: int) -> ReadWindow:
        """One row of a batch."""
        number, window = int(batch["source"][row]), int(batch["sample"][row])
        stream = self.data.train_streams[number]
        tokens, mask = batch["tokens"][row].numpy(), batch["loss_mask"][row].numpy()
        name = self.data.source_names[number]
        read = ReadWindow(
            micro_batch=part,
            rank=rank,
            row=row,
            source=name,
            window=window,
            piece=piece,
            folder=stream.folder if isinstance(stream, PackedStream) else self.data.folder(name),  # pyright: ignore[reportAttributeAccessIssue]
            split_tokens=None,
            tokens=tokens.tolist(),
            documents=[],
        )
        if isinstance(stream, PackedStream):
            self._of_text(read, stream, tokens, mask)
        else:
            self._of_rows(read, stream, tokens, mask)
        return read

    def name(self, windows: Sequence[ReadWindow]) -> None:
        """Give the documents of packed text their ids, by reading the corpus they came from as packing did."""
        by_folder: dict[Path, list[ReadWindow]] = {}
        for window in windows:
            if window.split_tokens is not None:
                by_folder.setdefault(window.folder, []).append(window)
        for folder, read in by_folder.items():
            numbers = {document.number for window in read for document in window.documents}
            ids = _ids(folder, numbers)
            for document in (document for window in read for document in window.documents):
                document.id = ids.get(document.number)

    def _of_text(self, read: ReadWindow, stream: PackedStream, tokens: np.ndarray, mask: np.ndarray) -> None:
        start = read.window * (stream.seq_len - 1) + read.piece * (self.seq_len - 1)
        stop = min(start + len(tokens), stream.n_tokens)
        read.split_tokens = (start, stop)
        offsets = stream.offsets
        first = int(np.searchsorted(offsets, start, side="right")) - 1
        last = int(np.searchsorted(offsets, stop - 1, side="right")) - 1
        for number in range(first, last + 1):
            begin, end = int(offsets[number]), int(offsets[number + 1])
            here = slice(max(begin, start) - start, min(end, stop) - start)
            read.documents.append(
                ReadDocument(
                    number=number,
                    tokens=here.stop - here.start,
                    of_tokens=end - begin,
                    first=max(start - begin, 0),
                    supervised=int(mask[here].sum()),
                    text=self.data.tokenizer.decode(tokens[here]),
                )
            )

    def _of_rows(self, read: ReadWindow, stream: RowStream, tokens: np.ndarray, mask: np.ndarray) -> None:
        at = 0
        for example in stream.rows[read.window]:
            documents = stream.examples[example]
            for place, (ids, _) in enumerate(documents):
                here = slice(at, at + len(ids))
                read.documents.append(
                    ReadDocument(
                        number=example,
                        id=stream.ids[example] if stream.ids else None,
                        role=("chosen", "rejected")[place] if len(documents) == 2 else None,
                        tokens=len(ids),
                        of_tokens=len(ids),
                        first=0,
                        supervised=int(mask[here].sum()),
                        text=spelled(self.data.tokenizer, tokens[here]),
                    )
                )
                at += len(ids)


def _ids(folder: Path, numbers: set[int]) -> dict[int, str]:
    """Number in the training split → id in the corpus; empty where the corpus is not here, or too large to read for this."""
    manifest = read_manifest(folder, kind="packed")
    link = links_of(folder, manifest)[0]
    for corpus in link.places:
        try:
            said = read_manifest(corpus, kind="corpus")
        except DataError:
            continue
        if link.differs(said):
            continue
        if said.info["bytes"] > _LARGEST_CORPUS_BYTES:
            log.info("%s: ids are left out, as they are found by reading %.1f GB", corpus, said.info["bytes"] / 1e9)
            return {}
        return _walk(corpus, manifest.name, manifest.settings, numbers)
    log.info("the corpus of %s is not here: documents are named by their number alone", folder)
    return {}


def _walk(corpus: Path, source: str, settings: dict[str, Any], numbers: set[int]) -> dict[int, str]:
    sources = read_manifest(corpus).info["sources"]
    found, number, last = dict[int, str](), 0, max(numbers, default=-1)
    for document in read_corpus(corpus, source if source in sources else None):
        if split_fraction(utf8(document.text), settings["seed"]) < settings["val_ratio"]:
            continue
        if number in numbers:
            found[number] = document.id
        number += 1
        if number > last:
            break
    return found
