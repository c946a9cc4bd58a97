"""R2, C3: memory is bounded whatever a file unpacks to, and what checking large packed data costs."""

import gzip
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lumi.data.packed import PackedStream
from lumi.errors import DataError
from lumi.manifest import write_manifest

LIMIT_MIB = 512


COUNT = """
import json, pathlib, re, sys
from lumi.corpus import Document, Files
kinds = [isinstance(item, Document) for item in Files(path=sys.argv[1], on_error="skip", max_rejected_ratio=1.0).documents()]
peak = int(re.search(r"VmHWM:\\s+(\\d+)", pathlib.Path("/proc/self/status").read_text())[1]) / 1024
print(json.dumps([sum(kinds), len(kinds) - sum(kinds), peak]))
"""


def counted(path: Path) -> tuple[int, int, float]:
    """In a fresh process: documents, rows that were left out, and how much memory it took at most, in MiB."""
    done = subprocess.run([sys.executable, "-c", COUNT, f"{path}"], capture_output=True, check=True, text=True)
    return tuple(json.loads(done.stdout))


def one_line(path: Path, megabytes: int) -> Path:
    path = path / "long.jsonl"
    path.write_text(json.dumps({"text": "word " * (200_000 * megabytes)}) + '\n{"text": "good"}\n')
    return path


def many_rows(path: Path, thousands: int) -> Path:
    path = path / "many.txt"
    path.write_bytes(b"x\n" * (1000 * thousands))
    return path


def bomb(path: Path, megabytes: int) -> Path:
    """Zeros without an end; gzip makes a thousandth of them, again and again the same piece."""
    path = path / "bomb.txt.gz"
    piece = gzip.compress(bytes(50_000_000))
    with path.open("wb") as file:
        for _ in range(megabytes // 50):
            file.write(piece)
    return path


@pytest.mark.matrix("R2")
@pytest.mark.parametrize(
    ("make", "size", "expected"),
    [
        (one_line, 50, (1, 1)),
        (many_rows, 100, (1, 0)),
        (bomb, 200, (0, 1)),
        pytest.param(many_rows, 1000, (1, 0), marks=pytest.mark.faults),
        pytest.param(bomb, 10_000, (0, 1), marks=pytest.mark.faults),
    ],
)  # fmt: skip
def test_memory_is_bounded_whatever_a_file_unpacks_to(row, tmp_path, make: Callable[[Path, int], Path], size, expected):
    *found, peak = counted(make(tmp_path, size))
    assert tuple(found) == expected
    assert peak < LIMIT_MIB
    row(trials=1, note=f"{make.__name__} {size}: {peak:.0f} MiB at most")


@pytest.fixture
def large(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """Packed data of so many megabytes, in one shard."""
    n_tokens = request.param * 500_000
    folder = tmp_path / "packed"
    folder.mkdir()
    for split, n in (("train", n_tokens), ("val", 100)):
        (np.arange(n, dtype=np.uint32) % 1000).astype(np.uint16).tofile(folder / f"{split}-00000.bin")
        np.save(folder / f"{split}.offsets.npy", np.arange(0, n + 1, 100, dtype=np.int64))
    splits = {
        s: {"documents": n // 100, "tokens": n, "bytes": n, "bits": None, "shards": [n]}
        for s, n in (("train", n_tokens), ("val", 100))
    }
    info = {"dtype": "uint16", "vocab_size": 1000, "splits": splits}
    write_manifest(folder, kind="packed", name="t", fingerprint="f", info=info)
    return folder


@pytest.mark.matrix("C3")
@pytest.mark.alone
@pytest.mark.parametrize("large", [100, pytest.param(2000, marks=pytest.mark.faults)], indirect=True)
def test_what_is_not_hashed_at_the_start_is_checked_when_it_is_read(row, large):
    size = (large / "train-00000.bin").stat().st_size / 1e9
    began = time.monotonic()
    PackedStream(large, "train", 1024)
    full = time.monotonic() - began
    began = time.monotonic()
    stream = PackedStream(large, "train", 1024, full_check=False)
    quick = time.monotonic() - began
    with (large / "train-00000.bin").open("r+b") as file:
        file.seek(2 * 5000)
        file.write(b"\xff\xff")
    with pytest.raises(DataError, match="holds the id 65535"):
        stream.windows(np.arange(8))
    with pytest.raises(DataError, match=r"train-00000\.bin has sha256"):
        PackedStream(large, "train", 1024)
    row(trials=2, note=f"{full / size:.2f} s/GB with full_check, {1000 * quick:.0f} ms without")
