"""A tokenizer and a packed split small enough to count by hand."""

from typing import Any

import numpy as np
import pytest

from lumi.manifest import Manifest

BOS, EOS, FIRST_BYTE = 0, 1, 2


class ByteCodec:
    """One token a byte, after bos and eos: token counts are byte counts."""

    vocab_size, bos_id, eos_id = 258, BOS, EOS

    def encode(self, text: str, /) -> list[int]:
        return [byte + FIRST_BYTE for byte in text.encode()]

    def decode(self, ids: list[int], /) -> str:
        return bytes(token - FIRST_BYTE for token in ids if token >= FIRST_BYTE).decode(errors="replace")

    def piece(self, token: int, /) -> str:
        """Letters are pieces; any other byte is there for lack of one."""
        if token < FIRST_BYTE:
            return ("<s>", "</s>")[token]
        byte = bytes([token - FIRST_BYTE])
        return byte.decode() if byte.isalpha() else f"<0x{byte.hex().upper()}>"

    def token_bytes(self) -> np.ndarray:
        return np.array([0, 0] + [1] * 256, dtype=np.int32)


class Split:
    """Documents as one split of packed data, a window a document."""

    def __init__(self, texts: list[str]) -> None:
        documents = [[BOS, *ByteCodec().encode(text), EOS] for text in texts]
        self.stream = np.array([token for document in documents for token in document], dtype=np.uint16)
        self.offsets = np.cumsum([0, *map(len, documents)])
        self.n_tokens = len(self.stream)
        self.manifest = Manifest(
            kind="packed", name="t", fingerprint=str(texts), parents={}, settings={}, info={}, files={}
        )

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def tokens(self, start: int, stop: int) -> np.ndarray:
        return self.stream[start:stop]

    def windows(self, indices: np.ndarray) -> Any:
        width = int(np.diff(self.offsets).max())
        rows = [self.stream[self.offsets[i] : self.offsets[i + 1]] for i in indices]
        inside = np.array([[at < len(row) for at in range(width)] for row in rows])
        tokens = np.array([np.pad(row, (0, width - len(row))) for row in rows], dtype=np.int64)
        mask = inside & (np.arange(width) > 0)
        return {"tokens": tokens, "doc_ids": np.where(inside, 0, -1).astype(np.int32), "loss_mask": mask}


@pytest.fixture
def codec() -> ByteCodec:
    return ByteCodec()


@pytest.fixture
def make_split() -> type[Split]:
    return Split
