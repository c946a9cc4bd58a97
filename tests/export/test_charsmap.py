"""The double array, read as SentencePiece and llama.cpp read it, holds what was put into it and nothing else."""

import random
import struct

from lumi.export.charsmap import charsmap


def longest(table: bytes, text: bytes) -> tuple[int, bytes] | None:
    """The longest key that ``text`` begins with: its length and its replacement; after SentencePiece's description."""
    (size,) = struct.unpack_from("<I", table)
    units = struct.unpack_from(f"<{size // 4}I", table, 4)
    strings = table[4 + size :]
    at, found = units[0] >> 10, None
    for length, byte in enumerate(text, start=1):
        at ^= byte
        if byte == 0 or units[at] & 0x8000_00FF != byte:
            break
        ends = units[at] >> 8 & 1
        at ^= units[at] >> 10
        if ends:
            start = units[at] & 0x7FFF_FFFF
            found = length, strings[start : strings.index(0, start)]
    return found


def test_it_finds_the_longest_key_and_no_other():
    rng = random.Random(0)
    for _ in range(20):
        keys = {bytes(rng.choices(range(1, 256), k=rng.randint(1, 4))) for _ in range(rng.choice([1, 40, 300]))}
        keys |= {key[:1] for key in list(keys)[:9]}
        table = charsmap({key: key[::-1] for key in keys})
        tried = [*keys, *(key + b"x" for key in keys), *(bytes(rng.choices(range(256), k=4)) for _ in range(2000))]
        for text in tried:
            best = max((key for key in keys if text.startswith(key)), key=len, default=None)
            assert longest(table, text) == (None if best is None else (len(best), best[::-1]))
