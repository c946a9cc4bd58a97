"""How fast Lumi trains, beside others and beside what is possible: ``make bench``, ``make bench-gpu``.

    python -m benchmarks.training --arch nano,tiny            pretraining beside transformers, litgpt and a plain loop
    python -m benchmarks.training --arch tiny --documents short    what it costs to keep documents apart
    python -m benchmarks.training --part overhead             Lumi's loop beside a bare one
    python -m benchmarks.training --part startup sft dpo --arch nano    the start, packing, adapters, stored references
    python -m benchmarks.training --device cuda --arch tiny,small,base

Everything is measured in one run on one machine, in turns (A B A B …), each contestant in a process of its own with equally
many threads. Prints tables and writes them as Markdown, with all raw timings as JSON, and as pictures.
"""

import argparse
import json
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.measure import Table, machine, n_cores, versions
from benchmarks.training.driver import ROOT, Failed
from benchmarks.training.options import Options, composed

_OUT = ROOT / "benchmarks" / "results"


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.training", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--part", nargs="+", choices=list(PARTS), default=["pretrain"], help="what to measure")
    parser.add_argument("--arch", default="nano,tiny", help="names in conf/arch/, with commas")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument(
        "--precision",
        choices=("auto", "float32", "bf16"),
        default="auto",
        help="of everyone; auto is what Lumi chooses",
    )
    parser.add_argument(
        "--documents", choices=("long", "short"), default="long", help="short: what isolation costs Lumi"
    )
    parser.add_argument("--rounds", type=int, default=7, help="turns of every contestant")
    parser.add_argument("--turn-seconds", type=float, default=4.0, help="of Lumi's turn; the others do as many steps")
    parser.add_argument("--warmup", type=int, default=4, help="steps before, compilation included")
    parser.add_argument("--threads", type=int, default=n_cores())
    parser.add_argument("--batch", type=int, help="windows of a step; default is what suits")
    parser.add_argument("--only", nargs="*", default=[], help="peers: plain transformers litgpt; default all")
    parser.add_argument("--data", type=Path, default=ROOT / "data" / "bench", help="prepared data, made once")
    parser.add_argument("--peers", type=Path, default=ROOT / ".venv-bench", help="virtual environment of the peers")
    parser.add_argument("--out", type=Path, default=_OUT, help="folder of the results")
    return parser.parse_args(arguments)


def _half(precision: str, device: str) -> bool:
    from lumi.trainer import TrainerConfig

    return (
        TrainerConfig(accelerator=device).resolved_precision() != "32-true"
        if precision == "auto"
        else precision == "bf16"
    )


def _pretrain(options: Options, archs: Sequence[str], out: Path) -> Iterator[Table]:
    from benchmarks.training.pretrain import contest
    from benchmarks.training.report import draw, pretrain_table

    for arch in archs:
        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            found = contest(options, arch, Path(folder))
        draw(found, options.device, out / f"pretrain-{arch}-{_suffix(options)}.png")
        yield pretrain_table(found, options.device, half=options.half)


def _suffix(options: Options) -> str:
    words = [options.device, "bf16" if options.half else "float32"]
    return "-".join(words + ([] if options.documents == "long" else [options.documents]))


def _overhead(options: Options, archs: Sequence[str], out: Path) -> Iterator[Table]:
    from benchmarks.training.overhead import measure_overhead

    return _in_folder(lambda folder: measure_overhead(options, archs, folder))


def _startup(options: Options, archs: Sequence[str], out: Path) -> Iterator[Table]:
    from benchmarks.training.startup import measure_startup

    return _in_folder(lambda folder: measure_startup(options, archs[0], folder))


def _sft(options: Options, archs: Sequence[str], out: Path) -> Iterator[Table]:
    from benchmarks.training.stages import measure_sft

    return _in_folder(lambda folder: measure_sft(options, archs[0], folder))


def _dpo(options: Options, archs: Sequence[str], out: Path) -> Iterator[Table]:
    from benchmarks.training.stages import measure_dpo

    return _in_folder(lambda folder: measure_dpo(options, archs[0], folder))


def _in_folder(measure: Callable[[Path], Table]) -> Iterator[Table]:
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        yield measure(Path(folder))


PARTS: dict[str, Callable[[Options, Sequence[str], Path], Iterator[Table]]] = {
    "pretrain": _pretrain,
    "overhead": _overhead,
    "startup": _startup,
    "sft": _sft,
    "dpo": _dpo,
}


def main(arguments: Sequence[str]) -> None:
    """Measure, print and write."""
    given = parse(arguments)
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # workers are ended on the way out
    options = Options(
        device=given.device,
        half=_half(given.precision, given.device),
        rounds=given.rounds,
        turn_seconds=given.turn_seconds,
        warmup=given.warmup,
        threads=given.threads,
        documents=given.documents,
        batch=given.batch,
        only=tuple(given.only),
        compile_default=composed().trainer.compile,
        data=given.data.resolve(),
        peers=given.peers.absolute(),
    )
    given.out.mkdir(parents=True, exist_ok=True)
    facts = {"machine": machine(), "versions": versions(), "options": options.described()}
    head = f"{facts['machine']['cpu']}, {facts['machine']['cores']} cores, commit {facts['versions']['commit']}"
    failed = []
    for part in given.part:
        tables = []
        name = f"{part}-{_suffix(options)}"
        try:
            for table in PARTS[part](options, given.arch.split(","), given.out):
                print(table.markdown(), flush=True)
                tables.append(table)
                _write(given.out / name, f"# Training speed: {part}\n\n{head}\n", tables, facts)
        except Failed as error:
            options.say(f"{part}: {error}")
            failed.append(part)
    if failed:
        sys.exit(f"not measured: {', '.join(failed)}")


def _write(path: Path, head: str, tables: Sequence[Table], facts: dict[str, Any]) -> None:
    """After every table, because a later one may take long."""
    text = "\n".join([head, *(table.markdown() for table in tables)])
    path.with_name(f"{path.name}.md").write_text(text, encoding="utf-8")
    written = json.dumps({**facts, "tables": [vars(table) for table in tables]}, indent=1)
    path.with_name(f"{path.name}.json").write_text(written + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
