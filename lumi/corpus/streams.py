r"""The bytes of a file as a stream of UTF-8 with ``\n``, in bounded memory, whatever packing and encoding it has.

Small generators over pieces of bytes, one after the other: decompress, re-encode, normalise newlines. A compressed file
that ends early is an error always, never a shorter file: a half download must not become half a corpus.
"""

import codecs
import contextlib
import contextvars
import dataclasses
import gzip
import io
import lzma
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from lumi.errors import DataError

PACKINGS = (".gz", ".zst", ".xz")
BOM = "\ufeff"
_PIECE_BYTES = 1 << 20
# zstandard's decompressor cannot bound what it returns: up to 32 KB for a byte in a hostile file, so 16 MB for these.
_ZSTD_PIECE_BYTES = 512
_METERED_BYTES = 1 << 14


class Oversized(NamedTuple):
    """Stands for a line or a file that was too large to be kept in memory; it was read to its end and dropped."""

    n_bytes: int


class _Damaged(Exception):
    pass


@dataclasses.dataclass
class Meter:
    """How many bytes, as they lie on the disk, streams have read so far."""

    n_bytes: int = 0


_METER: contextvars.ContextVar[Meter | None] = contextvars.ContextVar("meter", default=None)


@contextlib.contextmanager
def metered() -> Iterator[Meter]:
    """Count what the streams read that are opened meanwhile, whoever opens them: sources do not know that they are watched.

    The count changes a piece at a time, a megabyte of text at most; what is packed is read ahead by 16 KB at most.
    """
    meter = Meter()
    token = _METER.set(meter)
    try:
        yield meter
    finally:
        _METER.reset(token)


def open_stream(path: Path, encoding: str = "utf-8", *, zstd_piece_bytes: int = _ZSTD_PIECE_BYTES) -> io.BufferedReader:
    r"""Open ``path`` for reading as UTF-8 bytes with ``\n`` newlines; a suffix of `PACKINGS` decides how it is unpacked.

    UTF-8 input is passed on unchecked, so that one bad byte costs one row and not the file. Use within `read_errors`.

    Args:
        path: of the file.
        encoding: of its text.
        zstd_piece_bytes: unpacked at a time, which in a hostile file may become 32,000 times as much.
    """
    pieces = _unpacked(path, zstd_piece_bytes)
    if codecs.lookup(encoding).name not in ("utf-8", "utf-8-sig"):
        pieces = _reencoded(pieces, encoding)
    return io.BufferedReader(_Pieces(_with_newlines(pieces)), _PIECE_BYTES)


@contextlib.contextmanager
def read_errors(path: Path) -> Iterator[None]:
    """Turn what goes wrong while a file is read into one message that names the file.

    Raises:
        DataError: the file is missing, unreadable, cut short, damaged, or not in the encoding asked for.
    """
    try:
        yield
    except EOFError:
        raise DataError(f"{path}", "is cut short: its compressed data has no end", "fetch or pack it again") from None
    except (gzip.BadGzipFile, zlib.error, lzma.LZMAError, _Damaged) as error:
        raise DataError(
            f"{path}", f"is damaged or not a {path.suffix} file ({error})", "fetch or pack it again"
        ) from None
    except UnicodeDecodeError as error:
        rule = f"is not {error.encoding} at byte {error.start + 1:,} ({error.reason})"
        raise DataError(f"{path}", rule, "set source.encoding to what it was written in") from None
    except UnicodeError as error:  # no byte order mark where the encoding wants one
        raise DataError(f"{path}", f"is not in source.encoding ({error})", "name its byte order: utf-16-le") from None
    except OSError as error:
        raise DataError(f"{path}", f"cannot be read ({error.strerror or error})") from None


def read_lines(stream: io.BufferedReader, max_bytes: int) -> Iterator[tuple[int, bytes | Oversized]]:
    """Lines with their numbers from 1, without their newline; one of more than ``max_bytes`` bytes as `Oversized`."""
    number = 0
    while line := stream.readline(max_bytes + 1):
        number += 1
        if line.endswith(b"\n"):
            yield number, line[:-1]
        elif len(line) <= max_bytes:  # the last line of a file that does not end in a newline
            yield number, line
        else:
            yield number, _skip_line(stream, len(line))


def read_whole(stream: io.BufferedReader, max_bytes: int) -> bytes | Oversized:
    """All the bytes, or `Oversized` when there are more than ``max_bytes``."""
    pieces, size = [], 0
    while piece := stream.read(_PIECE_BYTES):
        size += len(piece)
        if size > max_bytes:
            pieces.clear()
        else:
            pieces.append(piece)
    return b"".join(pieces) if size <= max_bytes else Oversized(size)


def _skip_line(stream: io.BufferedReader, size: int) -> Oversized:
    while piece := stream.readline(_PIECE_BYTES):
        size += len(piece)
        if piece.endswith(b"\n"):
            return Oversized(size - 1)
    return Oversized(size)


class _Pieces(io.RawIOBase):
    """Bytes objects of any length, as the raw stream that BufferedReader wants."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:  # a WriteableBuffer, which only typeshed can name
        while not self._rest:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._rest = memoryview(piece)
        size = min(len(buffer), len(self._rest))
        buffer[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size


def _unpacked(path: Path, zstd_piece_bytes: int) -> Iterator[bytes]:
    packing = path.suffix.lower()
    meter = _METER.get()
    with path.open("rb") if meter is None else _Metered(path, meter) as file:
        if packing in PACKINGS and not file.peek(1):
            raise EOFError  # gzip takes a file of no bytes for an empty archive; it is a failed download
        if packing == ".zst":
            yield from _unzstd(file, zstd_piece_bytes)
            return
        with _unpacker(file, packing) as unpacked:
            while piece := unpacked.read(_PIECE_BYTES):
                yield piece


class _Metered(io.BufferedReader):
    """A file that is read in small pieces, so that its meter is not far ahead of what was unpacked from them."""

    def __init__(self, path: Path, meter: Meter) -> None:
        super().__init__(io.FileIO(path))
        self._meter = meter

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size if size is None or size < 0 else min(size, _METERED_BYTES))
        self._meter.n_bytes += len(data)
        return data


def _unpacker(file: io.BufferedReader, packing: str) -> gzip.GzipFile | lzma.LZMAFile | io.BufferedReader:
    if packing == ".gz":
        return gzip.GzipFile(fileobj=file)
    return lzma.LZMAFile(file) if packing == ".xz" else file


def _unzstd(file: io.BufferedReader, piece_bytes: int) -> Iterator[bytes]:
    import zstandard  # only here: most corpora do without

    # zstandard's own stream reader takes a truncated frame for the end of the file, so the frames are followed by hand.
    frame, data = None, file.read(piece_bytes)
    while data:
        frame = frame or zstandard.ZstdDecompressor().decompressobj()
        try:
            yield frame.decompress(data)
        except zstandard.ZstdError as error:
            raise _Damaged(str(error)) from None
        data = frame.unused_data
        if frame.eof:
            frame = None
        data = data or file.read(piece_bytes)
    if frame is not None:
        raise EOFError


def _reencoded(pieces: Iterator[bytes], encoding: str) -> Iterator[bytes]:
    decoder = codecs.getincrementaldecoder(encoding)("strict")
    consumed = 0
    try:
        for piece in pieces:
            consumed += len(piece)
            yield decoder.decode(piece).encode("utf-8")
        yield decoder.decode(b"", final=True).encode("utf-8")
    except UnicodeDecodeError as error:
        # error.object is what was left over from the piece before, then the piece.
        start = consumed - len(error.object) + error.start
        raise UnicodeDecodeError(error.encoding, b"", start, start + 1, error.reason) from None


def _with_newlines(pieces: Iterator[bytes]) -> Iterator[bytes]:
    held = b""
    for piece in pieces:
        data = held + piece
        held = b"\r" if data.endswith(b"\r") else b""  # perhaps the first half of a CRLF
        data = data.removesuffix(b"\r")
        yield data.replace(b"\r\n", b"\n").replace(b"\r", b"\n") if b"\r" in data else data
    if held:
        yield b"\n"
