"""What the corpus engine costs beside other ways to do it, on real text: ``make bench-corpus TEXT=folder``.

Every figure is measured in one run on one machine, contestants in turns, medians of some repeats, one thread unless said
otherwise. Prints tables and writes them with all raw timings as JSON. Without ``--text`` it takes the documentation that
Python carries and the generated world, so that anybody can run it; templates are not prose, so give it real text for figures
that mean something.
"""

import argparse
import json
import logging
import shlex
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.measure import Table, machine, n_bytes, n_cores, single_threaded, versions
from benchmarks.texts import read_texts, sources_of

_OUT = Path("docs/bench-corpus.json")


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.corpus", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--text", nargs="+", default=[], help="files, folders or globs, as source=files reads them")
    parser.add_argument(
        "--data", type=Path, help="folder for corpus=demo_real, with corpus/ and eval/: what pipeline reads"
    )
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS), help="parts to measure")
    parser.add_argument("--megabytes", type=float, help="take so much of the text, random documents; default all")
    parser.add_argument("--documents", type=int, default=3000, help="of signatures: short documents")
    parser.add_argument("--sample-megabytes", type=float, default=4.0, help="of steps, and of the steps of pipeline")
    parser.add_argument("--tokenizer", type=Path, help="folder of a tokenizer; default trains one")
    parser.add_argument("--vocab-size", type=int, default=32768, help="of the tokenizer that is trained")
    parser.add_argument("--model-type", choices=("unigram", "bpe"), default="unigram", help="of that tokenizer")
    parser.add_argument("--gigabytes", type=float, default=1.0, help="of memory: text that is made of the text")
    parser.add_argument(
        "--cores", type=int, default=n_cores(), help="of pack and memory; 1 leaves out what uses several"
    )
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2], help="of pipeline")
    parser.add_argument("--repeats", type=int, default=5, help="turns of every contestant")
    parser.add_argument("--seed", type=int, default=0, help="of samples and planted changes")
    parser.add_argument("--work", type=Path, help="where temporary files go; memory needs twice its gigabytes")
    parser.add_argument("--out", type=Path, default=_OUT, help=f"JSON file; default {_OUT}")
    return parser.parse_args(arguments)


def _signatures(options: argparse.Namespace, texts: list[str], work: Path) -> list[Table]:
    from benchmarks.signatures import measure_signatures

    return measure_signatures(texts, work, documents=options.documents, repeats=options.repeats, seed=options.seed)


def _steps(options: argparse.Namespace, texts: list[str], work: Path) -> list[Table]:
    from benchmarks.steps import measure_steps

    return measure_steps(texts, megabytes=options.sample_megabytes, repeats=options.repeats, seed=options.seed)


def _pack(options: argparse.Namespace, texts: list[str], work: Path) -> list[Table]:
    from benchmarks.packing import measure_packing

    return measure_packing(
        texts,
        work,
        tokenizer=options.tokenizer,
        vocab_size=options.vocab_size,
        model_type=options.model_type,
        cores=options.cores,
        repeats=options.repeats,
    )


def _pipeline(options: argparse.Namespace, texts: list[str], work: Path) -> list[Table]:
    from benchmarks.pipeline import measure_pipeline

    return measure_pipeline(
        texts,
        work,
        data=options.data,
        tokenizer=options.tokenizer,
        vocab_size=options.vocab_size,
        model_type=options.model_type,
        workers=options.workers,
        megabytes=options.sample_megabytes,
        repeats=options.repeats,
        seed=options.seed,
    )


def _memory(options: argparse.Namespace, texts: list[str], work: Path) -> list[Table]:
    from benchmarks.memory import measure_memory

    return measure_memory(
        texts,
        work,
        gigabytes=options.gigabytes,
        workers=options.cores,
        vocab_size=options.vocab_size,
        seed=options.seed,
    )


PARTS: dict[str, Callable[[argparse.Namespace, list[str], Path], list[Table]]] = {
    "signatures": _signatures,
    "steps": _steps,
    "pack": _pack,
    "pipeline": _pipeline,
    "memory": _memory,
}


def main(arguments: Sequence[str]) -> None:
    """Measure, print and write."""
    options = parse(arguments)
    texts = read_texts(sources_of(options.text), options.megabytes, options.seed)
    about = f"{len(texts):,} documents, {n_bytes(texts) / 1e6:.1f} MB: {' '.join(options.text) or 'pydocs and world'}"
    facts = {"machine": machine(), "versions": versions(), "command": shlex.join(["benchmarks.corpus", *arguments])}
    print(f"# Corpus engine\n\n{about}; {facts['machine']['cpu']}, {facts['machine']['cores']} cores\n", flush=True)
    measured: dict[str, list[dict[str, object]]] = {}
    for name in options.only:
        with tempfile.TemporaryDirectory(dir=options.work, prefix="bench-") as folder:
            tables = PARTS[name](options, texts, Path(folder))
        print("\n".join(table.markdown() for table in tables), flush=True)
        measured[name] = [vars(table) for table in tables]
        options.out.parent.mkdir(parents=True, exist_ok=True)  # after every part: a later one may take hours
        options.out.write_text(json.dumps({**facts, "text": about, "parts": measured}, indent=1), encoding="utf-8")


if __name__ == "__main__":
    single_threaded()
    logging.getLogger("lumi").setLevel(logging.ERROR)
    main(sys.argv[1:])
