"""Blocks: the unit of work. A source is read into blocks of some megabytes, and every later step takes one block at a time.

What a block is depends on the source and the block size only, so any number of workers gives the same bytes, and a run that
was killed goes on with the blocks that are not there yet. A block is JSON lines, compressed. Every file appears whole or not
at all, and its record, which is written last, says that it is there.
"""

import contextlib
import dataclasses
import gzip
import hashlib
import io
import json
import logging
import os
import shutil
import tokenize
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import zstandard

from lumi.corpus.document import Document
from lumi.corpus.streams import open_stream, read_errors
from lumi.errors import DataError

log = logging.getLogger(__name__)

COMPRESSIONS = {"zst": ".jsonl.zst", "gz": ".jsonl.gz", "none": ".jsonl"}
_PIECE_BYTES = 1 << 12
"""Of a packed shard, unpacked at a time: a few of a hostile one become at most 32,000 times as much, so 128 MB."""
_LONGEST_LINE_BYTES = 1 << 27
"""No document of ours comes near it."""
_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False)


class BlockId(NamedTuple):
    """Which block: of which source, counted from 0."""

    source: str
    number: int

    def path(self, folder: Path, suffix: str) -> Path:
        """The file of this block in the folder of a stage."""
        return folder / self.source / f"{self.number:05d}{suffix}"


def json_line(fields: dict[str, Any]) -> bytes:
    """One line of JSON; equal fields give equal bytes."""
    return _ENCODER.encode(fields).encode("utf-8") + b"\n"


def document_line(document: Document) -> bytes:
    """A document as it stands in a shard."""
    fields: dict[str, Any] = {"text": document.text, "id": document.id}
    if document.bits is not None:
        fields["bits"] = document.bits
    if document.meta:
        fields["meta"] = dict(sorted(document.meta.items()))
    return json_line(fields)


def read_documents(path: Path) -> Iterator[Document]:
    """The documents of a block or shard.

    Raises:
        DataError: the file is missing or damaged.
    """
    with read_errors(path), open_stream(path, zstd_piece_bytes=_PIECE_BYTES) as stream:
        while line := stream.readline(_LONGEST_LINE_BYTES):
            try:
                document = Document(**json.loads(line))
                if not isinstance(document.text, str) or not isinstance(document.id, str):
                    raise TypeError("its text or its id is no string")
                yield document
            except (ValueError, TypeError, RecursionError) as error:
                raise DataError(f"{path}", f"holds a line that is no document ({error})", "make it again") from None


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write that appears under its name when the block ends well.

    It is not forced to the disk: it outlives the death of the process, and what outlives the loss of power is the finished
    artefact. After that, a file that was cut short is found when it is read, and ``force=true`` begins anew.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    work = path.parent / f".{path.name}.tmp-{os.getpid()}-{os.urandom(4).hex()}"
    try:
        with work.open("wb") as file:
            yield file
        work.rename(path)
    finally:
        work.unlink(missing_ok=True)


def write_json(path: Path, fields: Any) -> None:
    """Write a record, whole or not at all."""
    with new_file(path) as file:
        file.write(json.dumps(fields, ensure_ascii=False, allow_nan=False, sort_keys=True).encode())


def read_json(path: Path) -> Any:
    """Read a record.

    Raises:
        DataError: it is missing or damaged.
    """
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        rule = f"cannot be read, though its step had finished ({error})"
        raise DataError(f"{path}", rule, "force=true begins anew") from None


def write_array(path: Path, array: np.ndarray) -> None:
    """Write a NumPy file, whole or not at all."""
    with new_file(path) as file:
        np.save(file, array, allow_pickle=False)


def read_array(path: Path, *, mapped: bool = False) -> np.ndarray:
    """Read a NumPy file, or map it where only some of its rows are wanted.

    Raises:
        DataError: it is missing or damaged.
    """
    try:
        return np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False)
    except (
        OSError,
        ValueError,
        EOFError,
        SyntaxError,
        tokenize.TokenError,
    ) as error:  # NumPy's headers are Python's words
        rule = f"cannot be read, though its step had finished ({error})"
        raise DataError(f"{path}", rule, "force=true begins anew") from None


@dataclasses.dataclass
class LineWriter:
    """Lines into one compressed file, with their number, their bytes and their hash before compression."""

    file: BinaryIO
    n_lines: int = 0
    n_bytes: int = 0
    sha256: Any = dataclasses.field(default_factory=hashlib.sha256)

    def write(self, line: bytes) -> None:
        """Append one line."""
        self.file.write(line)
        self.sha256.update(line)
        self.n_lines += 1
        self.n_bytes += len(line)


@contextlib.contextmanager
def line_writer(path: Path, compression: str, level: int = 3) -> Iterator[LineWriter]:
    """Write a block or shard; it appears when the block ends well.

    Args:
        path: of the file.
        compression: a key of `COMPRESSIONS`.
        level: of zstd.
    """
    with new_file(path) as file:
        match compression:
            case "zst":
                packer: Any = zstandard.ZstdCompressor(level=level, write_checksum=True).stream_writer(
                    file, closefd=False
                )
            case "gz":  # neither name nor time, so that equal lines give equal bytes
                packer = gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0, compresslevel=6)
            case _:
                packer = contextlib.nullcontext(file)
        with packer as stream:
            buffered = io.BufferedWriter(stream, 1 << 18) if compression == "gz" else stream
            yield LineWriter(buffered)
            if buffered is not stream:
                buffered.flush()
                buffered.detach()


def complete_blocks(folder: Path, source: str) -> Iterator[dict[str, Any]]:
    """The records of the blocks of a source that are there, in order, up to the first that is not."""
    number = 0
    while all((block := BlockId(source, number)).path(folder, end).is_file() for end in (COMPRESSIONS["zst"], ".json")):
        yield read_json(block.path(folder, ".json"))
        number += 1


def lines(rows: Iterable[dict[str, Any]]) -> bytes:
    """Rows as JSON lines."""
    return b"".join(map(json_line, rows))


def begin_work(work: Path, fingerprint: str, *, force: bool) -> None:
    """The folder for what outlives a kill: kept if an earlier attempt had the same fingerprint, else begun anew."""
    mark = work / "fingerprint.json"
    if work.exists():
        if not force and mark.is_file() and read_json(mark) == fingerprint:
            log.info("going on with what is in %s", work)
            return
        shutil.rmtree(work)
    work.mkdir(parents=True)
    write_json(mark, fingerprint)
