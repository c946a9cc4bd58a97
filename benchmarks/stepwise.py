"""Where the time of a document goes: every step in the order of the pipeline, in one process, a clock around each."""

import hashlib
import json
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import zstandard
from datatrove.data import Document as Flowing

from benchmarks.measure import Seconds, Table, n_bytes, percent, rate
from benchmarks.packing import Places
from lumi.corpus import Corpus, Document
from lumi.corpus.engine.blocks import document_line
from lumi.corpus.steps.step import LANGUAGE
from lumi.tokenizer import Tokenizer

_READING, _SIGNATURE, _TOKENISING, _WRITING = "read JSON", "near-duplicate signature", "tokenise", "write JSON"
_BATCH = 100


def measure_stepwise(corpus: Corpus, texts: Sequence[str], places: Places, repeats: int, limit: float) -> Table:
    """Shares of the time, and each step's rate against ``limit``, MB/s of reading and writing alone."""
    seconds: Seconds = defaultdict(list)
    lines = [document_line(Document(text=text, id="")) for text in texts]
    tokenizer = Tokenizer.load(places.tokenizer)
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        for step in corpus.active_steps:
            step.prepare(Path(folder))
        preparing = time.perf_counter() - start
        for _ in range(repeats):
            for name, spent in _pass(corpus, lines, tokenizer).items():
                seconds[name].append(spent)
            for name, spent in _floors(lines).items():
                seconds[name].append(spent)
    return _table(seconds, texts, limit, preparing)


def _pass(corpus: Corpus, lines: Sequence[bytes], tokenizer: Tokenizer) -> dict[str, float]:
    """Seconds of every step over all documents; what one leaves out the later ones do not see."""
    spent: dict[str, float] = defaultdict(float)
    signature = corpus.duplicates.signature()
    kept: list[str] = []
    packer = zstandard.ZstdCompressor(level=3).compressobj()

    def timed(name: str, call: Callable[..., Any], *given: Any) -> Any:
        start = time.perf_counter()
        result = call(*given)
        spent[name] += time.perf_counter() - start
        return result

    for line in lines:
        fields = timed(_READING, json.loads, line)
        document = Flowing(text=fields["text"], id="", metadata={LANGUAGE: "en"})
        if any(timed(step.name, step.apply, document) is not None for step in corpus.active_steps):
            continue
        if signature is not None:
            timed(_SIGNATURE, signature.of, [document.text])
        written = timed(_WRITING, document_line, Document(text=document.text, id=""))
        timed("zstd level 3, in a stream", packer.compress, written)
        kept.append(document.text)
    for start in range(0, len(kept), _BATCH):
        timed(_TOKENISING, tokenizer.encode_batch, kept[start : start + _BATCH])
    return spent


def _floors(lines: Sequence[bytes]) -> dict[str, float]:
    """Seconds of what cannot be left out, over the same bytes."""
    data = b"".join(lines)
    packed = zstandard.ZstdCompressor(level=1).compress(data)
    floors: dict[str, Callable[[], object]] = {
        "floor: sha256": lambda: hashlib.sha256(data).digest(),
        "floor: blake2b": lambda: hashlib.blake2b(data).digest(),
        "floor: zstd level 1": lambda: zstandard.ZstdCompressor(level=1).compress(data),
        "floor: zstd level 3": lambda: zstandard.ZstdCompressor(level=3).compress(data),
        "floor: zstd reading": lambda: zstandard.ZstdDecompressor().decompress(packed),
    }
    spent = {}
    for name, run in floors.items():
        start = time.perf_counter()
        run()
        spent[name] = time.perf_counter() - start
    return spent


def _table(seconds: Seconds, texts: Sequence[str], limit: float, preparing: float) -> Table:
    megabytes = n_bytes(texts) / 1e6
    whole = sum(statistics.median(spent) for name, spent in seconds.items() if not name.startswith("floor"))
    rows = [
        {
            "step": name,
            "MB/s": rate(megabytes, spent),
            "% of the time": None if name.startswith("floor") else percent(statistics.median(spent), whole),
            "time / reading and writing": limit / rate(megabytes, spent),
        }
        for name, spent in seconds.items()
    ]
    notes = [
        f"{len(texts):,} documents, {megabytes:.1f} MB of raw text, one process, in the order of the pipeline",
        f"{limit:.1f} MB/s: reading and writing alone, 1 worker; the last column is what a step adds to that time",
        "all MB/s are of the raw text, also where a step before left some of it out",
        f"preparing the steps took {preparing:.2f} s, once for a corpus; among the stages it is in the rest",
    ]
    return Table(
        title="Where the time of a document goes",
        rows=rows,
        notes=notes,
        raw={"seconds": seconds, "preparing": preparing},
    )
