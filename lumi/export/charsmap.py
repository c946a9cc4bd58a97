"""SentencePiece's table of replacements, which llama.cpp reads for its ``t5`` tokenizers.

It is a double array: a trie over bytes whose nodes lie in one array of 32-bit units. From a node at index ``i`` with offset
``b``, the child for byte ``c`` lies at ``i ^ b ^ c`` and names ``c``; a node that ends an entry has a child for byte 0,
which holds where in the text after the array its replacement begins.
"""

import struct
from collections.abc import Mapping
from typing import Any

_ENDS = 1 << 8
_FREE = 1 << 31  # a name that no byte equals
_VALUE = 1 << 31
_LARGEST_OFFSET = 1 << 21


def charsmap(replacements: Mapping[bytes, bytes]) -> bytes:
    """The table that replaces each key (no NUL in it) by its value, the longest key first."""
    text, places = bytearray(b"\0"), {}  # so that no place is 0, which would look like a free unit
    for value in sorted(set(replacements.values())):
        places[value] = len(text)
        text += value + b"\0"
    trie: dict[int, Any] = {}
    for key, value in replacements.items():
        node = trie
        for byte in key:
            node = node.setdefault(byte, {})
        node[0] = places[value]
    units = _double_array(trie)
    return struct.pack(f"<I{len(units)}I", 4 * len(units), *units) + bytes(text)


def _double_array(trie: dict[int, Any]) -> list[int]:
    """The units of the array; its length is a multiple of 256, so that no look-up leaves it."""
    units = [_FREE] * 256
    units[0] = 0
    targets: set[int] = set()  # two nodes with one target would find each other's children
    lowest, todo = 1, [(0, trie)]
    while todo:
        index, node = todo.pop()
        target = lowest
        while target in targets or any(_taken(units, target ^ byte) for byte in node):
            target += 1
        targets.add(target)
        offset = index ^ target
        assert offset < _LARGEST_OFFSET, "a vocabulary has fewer characters than this"
        units[index] |= offset << 10 | (_ENDS if 0 in node else 0)
        for byte, child in node.items():
            while target ^ byte >= len(units):
                units += [_FREE] * 256
            if byte == 0:
                units[target] = _VALUE | child
            else:
                units[target ^ byte] = byte
                todo.append((target ^ byte, child))
        while lowest < len(units) and units[lowest] != _FREE:
            lowest += 1
    return units


def _taken(units: list[int], index: int) -> bool:
    return index < len(units) and units[index] != _FREE
