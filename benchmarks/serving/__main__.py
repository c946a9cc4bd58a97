"""How fast Lumi answers, beside others and beside what memory allows: ``make bench-serve``.

    python -m benchmarks.serving --arch tiny                  one answer at a time, and eight together
    python -m benchmarks.serving --part http --clients 16     the server under load, beside the same answers one by one

Contestants take turns, each in a process of its own with equally many threads, on the same weights. Prints tables and writes
them as Markdown, with all raw timings as JSON.
"""

import argparse
import asyncio
import json
import random
import signal
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.measure import Table, machine, n_cores, versions
from benchmarks.serving.http import Load, ask_all, percentile, server
from benchmarks.serving.material import export, make_model
from benchmarks.training.driver import ROOT, Contestant, Failed, Result, Worker, environment, race, worker_pool
from benchmarks.training.options import vocab_size_of

_MODULE = "benchmarks.serving.contestants"
_SPIN = ["env", "GOMP_SPINCOUNT=10000"]
"""As serve.py has it."""
_DEFAULTS = ["env", "-u", "OMP_WAIT_POLICY"]
"""Threads that wait as PyTorch's users have them wait."""
_TRANSFORMERS = "transformers"


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.serving", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--part", nargs="+", choices=("engine", "http"), default=["engine", "http"])
    parser.add_argument("--arch", default="tiny", help="a name in conf/arch/")
    parser.add_argument("--batch", default="1,8", help="requests at a time, with commas")
    parser.add_argument("--prompt", type=int, default=128, help="tokens before")
    parser.add_argument("--new", type=int, default=256, help="tokens after")
    parser.add_argument("--clients", type=int, default=16, help="of the server at once")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=n_cores())
    parser.add_argument("--only", nargs="*", default=[], help="contestants; default all")
    parser.add_argument("--data", type=Path, default=ROOT / "data" / "bench")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results")
    return parser.parse_args(arguments)


def contestants(given: argparse.Namespace, run: Path, batch: int) -> list[Contestant]:
    """Everybody whose files can be made here."""
    sizes = ["--prompt", str(given.prompt), "--new", str(given.new), "--vocab", str(vocab_size_of(given.arch))]

    def one(name: str, label: str, files: Path, prefix: Sequence[str]) -> Contestant:
        words = [sys.executable, "-m", _MODULE, label, str(files), "--batch", str(batch), *sizes]
        return Contestant(name, [*prefix, *words], 1e9)

    found = [one("Lumi", "lumi", run, _SPIN), one("limit: weights alone", "limit", run, _SPIN)]
    hub = export(run, "hf")
    found.append(one(_TRANSFORMERS, "transformers", hub, _DEFAULTS))
    found.append(one("transformers, static cache", "static-transformers", hub, _DEFAULTS))
    for dtype in ("f32", "q8_0"):
        try:
            found.append(one(f"llama.cpp {dtype}", "llamacpp", export(run, "gguf", dtype), []))
        except Failed as error:
            sys.stderr.write(f"  llama.cpp is left out: {error}\n")
    return [each for each in found if not given.only or each.name in given.only]


def engine_table(given: argparse.Namespace, run: Path, batch: int) -> Table:
    """Tokens a second of everybody."""
    results = race(
        contestants(given, run, batch), rounds=given.rounds, steps=lambda _: 1, threads=given.threads, say=_say
    )
    ran = sorted((one for one in results if one.turns), key=lambda one: -one.rate)
    by_name = {one.name: one for one in ran}
    rows = [
        {
            "contestant": one.name,
            "tokens/s": one.rate,
            "from": min(one.rates),
            "to": max(one.rates),
            "Lumi is … times as fast": _ratio(by_name.get("Lumi"), one),
            "peak GiB": one.facts["peaks"]["rss"] / 2**30,
        }
        for one in ran
    ]
    left_out = [f"left out: {one.name}: {one.error}" for one in results if not one.turns]
    share = max(one.facts.get("others_share", 0.0) for one in ran)
    notes = [
        f"greedy, {given.prompt} tokens of prompt, {given.new} new ones, {given.threads} threads, reading the prompt included",
        f"medians of {given.rounds} turns, in turns, a process each; ratios are medians over turns that followed each other",
        "llama.cpp q8_0 has weights of 8 bits, all others of 32",
        f"what else ran on the machine took {100 * share:.0f} % of it meanwhile",
        *left_out,
    ]
    title = f"{given.arch}: {batch} {'answer at a time' if batch == 1 else 'answers together'}"
    return Table(title=title, rows=rows, notes=notes, raw={"results": [vars(one) for one in results]})


def http_table(given: argparse.Namespace, run: Path) -> Table:
    """The server under load, beside the same answers one after the other in transformers."""
    rng = random.Random(0)
    vocab_size = vocab_size_of(given.arch)
    prompts = [[rng.randrange(300, vocab_size) for _ in range(given.prompt)] for _ in range(given.clients)]
    given.batch, loads, streams, rates = "1", [], [], []
    (peer,) = (one for one in contestants(given, run, 1) if one.name == _TRANSFORMERS)
    with (given.out / "worker.log").open("wb") as log, worker_pool() as running:
        worker = running[peer.name] = Worker(peer, environment(given.threads), log)
        worker.ready()
        with server(run, given.threads, [f"slots={given.clients}"]) as (address, _):
            asyncio.run(ask_all(address, prompts, given.new, stream=False))  # warm
            for number in range(given.rounds):
                _say(f"  round {number + 1} of {given.rounds}")
                loads.append(asyncio.run(ask_all(address, prompts, given.new, stream=False)))
                streams.append(asyncio.run(ask_all(address, prompts, given.new, stream=True)))
                turn = worker.go(given.clients)
                rates.append(turn["amount"] / turn["seconds"])
    (given.out / "worker.log").unlink()
    return _http_summary(given, loads, streams, rates)


def _http_summary(
    given: argparse.Namespace, loads: Sequence[Load], streams: Sequence[Load], rates: Sequence[float]
) -> Table:
    ours = [load.tokens / load.seconds for load in loads]
    streamed = [load.tokens / load.seconds for load in streams]
    first = [value for load in streams for value in load.first]
    between = [value for load in streams for value in load.between]
    health = [value for load in (*loads, *streams) for value in load.health]
    rows = [
        {"figure": f"{given.clients} clients at once, tokens/s", "value": statistics.median(ours)},
        {"figure": "the same as streams, tokens/s", "value": statistics.median(streamed)},
        {"figure": "the same one by one in transformers, tokens/s", "value": statistics.median(rates)},
        {
            "figure": "times as fast",
            "value": statistics.median(a / b for a, b in zip(ours, rates, strict=True)),
        },
        *(
            {"figure": f"{name}, milliseconds, p{percent}", "value": 1000 * percentile(values, percent)}
            for name, values in (
                ("to the first token", first),
                ("between tokens", between),
                ("/health meanwhile", health),
            )
            for percent in (50, 99)
        ),
    ]
    notes = [
        f"/v1/completions, {given.prompt} tokens of prompt, {given.new} new ones; {given.rounds} rounds in turns",
        "the clients run on the same machine and take their share of its cores",
    ]
    return Table(
        title=f"{given.arch}: the server under load",
        rows=rows,
        notes=notes,
        raw={"rates": ours, "streamed": streamed, "peer": list(rates)},
    )


def _ratio(ours: Result | None, theirs: Result) -> float | None:
    if ours is None:
        return None
    return statistics.median(a / b for a, b in zip(ours.rates, theirs.rates, strict=False))


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def main(arguments: Sequence[str]) -> None:
    """Measure, print and write."""
    given = parse(arguments)
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # workers are ended on the way out
    given.data, given.out = given.data.resolve(), given.out.resolve()
    given.out.mkdir(parents=True, exist_ok=True)
    run = make_model(given.data, given.arch)
    tables = []
    if "engine" in given.part:
        tables += [_shown(engine_table(given, run, int(batch))) for batch in given.batch.split(",")]
    if "http" in given.part:
        tables.append(_shown(http_table(given, run)))
    facts: dict[str, Any] = {"machine": machine(), "versions": versions()}
    where = f"{facts['machine']['cpu']}, {facts['machine']['cores']} cores"
    head = f"# Serving speed\n\n{where}, commit {facts['versions']['commit']}\n"
    path = given.out / f"serving-{given.arch}"
    path.with_suffix(".md").write_text("\n".join([head, *(table.markdown() for table in tables)]), encoding="utf-8")
    written = json.dumps({**facts, "tables": [vars(table) for table in tables]}, indent=1)
    path.with_suffix(".json").write_text(written + "\n", encoding="utf-8")


def _shown(table: Table) -> Table:
    print(table.markdown(), flush=True)
    return table


if __name__ == "__main__":
    main(sys.argv[1:])
