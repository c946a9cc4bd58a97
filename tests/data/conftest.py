"""Packed folders written by hand, byte by byte as DESIGN describes them, without the code that packs."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lumi.manifest import write_manifest

Documents = Sequence[Sequence[int]]


def _write_split(folder: Path, split: str, documents: Documents, shard_tokens: int, dtype: str) -> dict[str, Any]:
    stream = np.array([token for document in documents for token in document], dtype=dtype)
    shards = [stream[start : start + shard_tokens] for start in range(0, len(stream), shard_tokens)]
    for number, shard in enumerate(shards):
        (folder / f"{split}-{number:05d}.bin").write_bytes(shard.tobytes())
    offsets = np.cumsum([0, *map(len, documents)], dtype=np.int64)
    np.save(folder / f"{split}.offsets.npy", offsets)
    return {
        "documents": len(documents),
        "tokens": len(stream),
        "bytes": 3 * len(stream),
        "bits": None,
        "shards": [len(shard) for shard in shards],
    }


@pytest.fixture
def write_packed(tmp_path: Path) -> Callable[..., Path]:
    """``write_packed(train, val=…, name=…, shard_tokens=…, dtype=…, tokenizer=…)``: a folder; documents bring bos and eos."""

    def write(
        train: Documents,
        val: Documents = ((1, 9, 2),),
        *,
        name: str = "fake",
        shard_tokens: int = 10**6,
        dtype: str = "uint16",
        tokenizer: str = "a" * 64,
        vocab_size: int = 2**32,
    ) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        splits = {
            "train": _write_split(folder, "train", train, shard_tokens, dtype),
            "val": _write_split(folder, "val", val, shard_tokens, dtype),
        }
        write_manifest(
            folder,
            kind="packed",
            name=name,
            fingerprint=f"fingerprint of {name}",
            parents={"corpus": "c" * 64, "tokenizer": tokenizer},
            info={"dtype": dtype, "vocab_size": vocab_size, "bos_id": 1, "eos_id": 2, "splits": splits},
        )
        return folder

    return write
