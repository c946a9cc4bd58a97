"""What can happen to the bytes of an artefact, each from a seed, and each undone afterwards."""

import contextlib
import random
from collections.abc import Callable, Iterator
from pathlib import Path

from lumi.errors import LumiError


def flip(data: bytearray, rng: random.Random) -> bytearray:
    """One bit, anywhere."""
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return data


def truncate(data: bytearray, rng: random.Random) -> bytearray:
    """At any length, of nothing up to all but a byte."""
    return data[: rng.randrange(len(data))]


def append(data: bytearray, rng: random.Random) -> bytearray:
    """Up to 64 bytes of anything."""
    return data + rng.randbytes(rng.randint(1, 64))


def zero(data: bytearray, rng: random.Random) -> bytearray:
    """4 KiB, as a lost sector reads; around a byte that was none before."""
    place = rng.choice([place for place in rng.sample(range(len(data)), min(len(data), 200)) if data[place]])
    start = place // 4096 * 4096
    stop = min(start + 4096, len(data))
    data[start:stop] = bytes(stop - start)
    return data


FAULTS: dict[str, Callable[[bytearray, random.Random], bytearray]] = {
    "flip": flip,
    "truncate": truncate,
    "append": append,
    "zero": zero,
}


@contextlib.contextmanager
def damaged(path: Path, fault: str, rng: random.Random) -> Iterator[None]:
    """The file with this fault, and afterwards as it was."""
    sound = path.read_bytes()
    path.write_bytes(FAULTS[fault](bytearray(sound), rng))
    assert path.read_bytes() != sound, "the fault must change something"
    try:
        yield
    finally:
        path.write_bytes(sound)


@contextlib.contextmanager
def swapped(path: Path, other: Path) -> Iterator[None]:
    """Two files with each other's bytes, and afterwards with their own."""
    one, two = path.read_bytes(), other.read_bytes()
    assert one != two, "the fault must change something"
    path.write_bytes(two)
    other.write_bytes(one)
    try:
        yield
    finally:
        path.write_bytes(one)
        other.write_bytes(two)


def refusal(read: Callable[[], object]) -> str:
    """The message with which ``read`` refuses what it was given, or what else became of it, after a ``!``."""
    try:
        read()
    except LumiError as error:
        return f"{error}" if error.exit_code == 3 else f"!exit code {error.exit_code}: {error}"
    except Exception as error:  # noqa: BLE001  # a bare traceback is what is looked for
        return f"!{type(error).__name__}: {error}"
    return "!accepted"
