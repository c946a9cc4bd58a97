"""Part 5, memory: the highest resident size of every process while a large corpus is cleaned, matched and packed.

Run by itself (``python -m benchmarks.memory FOLDER …``) it is the program that is watched: it builds and packs, and holds none
of the text that it is measured on.
"""

import argparse
import dataclasses
import itertools
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.measure import Table
from lumi.corpus import Local, build_corpus, corpus_of, read_corpus
from lumi.manifest import read_manifest

_LIMIT_BYTES = 2e9
_POLL_SECONDS = 0.05


@dataclasses.dataclass(frozen=True)
class Peak:
    """The highest resident size of a process, in bytes, and what it was."""

    bytes: int
    command: str


def measure_memory(
    texts: Sequence[str], work: Path, *, gigabytes: float, workers: int, vocab_size: int, seed: int
) -> list[Table]:
    """Peak of the driver and of its largest descendant."""
    from benchmarks.packing import Places, train
    from benchmarks.texts import write_jsonl

    corpus = corpus_of(write_jsonl(texts, work / "text.jsonl"))
    places = Places(work / "base", work / "tokenizer", work / "packed")
    build_corpus(corpus, places.corpus)
    train(places, vocab_size, "unigram")
    command = [sys.executable, "-m", "benchmarks.memory", str(work), str(gigabytes), str(workers), str(seed)]
    start = time.perf_counter()
    peaks = watch(command)
    seconds = time.perf_counter() - start
    info = read_manifest(work / "corpus", kind="corpus").info
    driver, *others = peaks
    largest = max(others, key=lambda peak: peak.bytes)
    rows = [
        {"process": name, "peak MB": peak.bytes / 1e6, "below 2 GB": "yes" if peak.bytes < _LIMIT_BYTES else "NO"}
        for name, peak in (("driver", driver), (f"largest of {len(others)} others", largest))
    ]
    left_out = {**info["rejected"], **info["dropped"]}
    notes = [
        f"{gigabytes:g} GB of text through all steps of corpus=clean and packed, {workers} workers, {seconds:.0f} s",
        f"{info['rows']:,} documents: {info['documents']:,} kept; "
        + ", ".join(f"{count:,} {reason}" for reason, count in left_out.items()),
    ]
    raw = {"peaks": [dataclasses.asdict(peak) for peak in peaks], "seconds": seconds, "left_out": left_out}
    return [Table(title="Memory", rows=rows, notes=notes, raw=raw)]


def watch(command: Sequence[str]) -> list[Peak]:
    """Run a program and look at it and all its descendants until it ends; the peaks, its own first.

    Raises:
        RuntimeError: it failed.
    """
    found: dict[int, Peak] = {}
    with subprocess.Popen(command) as program:
        while program.poll() is None:
            for pid in _family(program.pid):
                if (peak := _peak(pid)) and peak.bytes >= found.get(pid, peak).bytes:
                    found[pid] = peak
            time.sleep(_POLL_SECONDS)
    if program.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {program.returncode}")
    return [found.pop(program.pid), *found.values()]


def _family(pid: int) -> Iterator[int]:
    """A process and its descendants."""
    yield pid
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = task.read_text().split()
        except OSError:  # it has ended
            continue
        for child in children:
            yield from _family(int(child))


def _peak(pid: int) -> Peak | None:
    """What the kernel noted as the highest size; None when the process has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
        command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
    except OSError:
        return None
    kilobytes = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")]
    return Peak(int(kilobytes[0]) * 1024, command[:200]) if kilobytes else None


def build_noisy(work: Path, gigabytes: float, workers: int, seed: int) -> None:
    """The program that is watched."""
    from benchmarks.packing import Places, pack_all
    from benchmarks.pipeline import cleaned
    from benchmarks.texts import Noisy

    source = Noisy(name="noisy", corpus=work / "base", gigabytes=gigabytes, seed=seed, language="en")
    some = [document.text for document in itertools.islice(read_corpus(work / "base"), 100)]
    corpus = dataclasses.replace(cleaned(source, some), block_megabytes=16.0)
    executor = Local(workers=workers)
    build_corpus(corpus, work / "corpus", executor=executor)
    pack_all(Places(work / "corpus", work / "tokenizer", work / "packed"), executor, num_threads=None)


def main() -> None:
    """What `watch` runs."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, kind in (("work", Path), ("gigabytes", float), ("workers", int), ("seed", int)):
        parser.add_argument(name, type=kind)
    build_noisy(**vars(parser.parse_args()))


if __name__ == "__main__":
    main()
