"""Part ``pretrain``: Lumi beside transformers, litgpt and a plain loop, all beside the limit.

All contestants train the same weights on the same batches with the same optimizer, so that even their losses agree. A window of
the default text lies within one document; ``--documents short`` instead shows what it costs Lumi to keep documents apart.
"""

import dataclasses
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.training.driver import ROOT, Contestant, Failed, Result, environment, groups, race
from benchmarks.training.material import data_overrides
from benchmarks.training.options import Options
from benchmarks.training.work import Work, load_work

LIMIT = "limit: products alone"
_N_BATCHES = 512
_MANY = 1_000_000  # steps: the driver ends a run, not the budget
_MODULES = "benchmarks.training"


@dataclasses.dataclass(frozen=True)
class Contest:
    """What came of one architecture.

    Attributes:
        work: that all did.
        groups: results of those that took turns with each other.
        lumi: names of Lumi's contestants, the one as configured by default first.
    """

    work: Work
    groups: list[list[Result]]
    lumi: list[str]


def contest(options: Options, arch: str, folder: Path) -> Contest:
    """Write the work of an architecture, then let all do it.

    Args:
        folder: for temporary files.
    """
    work = write_work(options, arch, folder)
    lumi = lumi_contestants(options, work, folder)
    others = [] if options.documents == "short" else peer_contestants(options, work, folder)
    limit = Contestant(LIMIT, _module("limit", folder, options), _limit_bytes(options, work))
    everyone = [*lumi, *others, limit]
    always = [one.name for one in (*lumi, limit)]
    results = []
    for number, group in enumerate(found := groups(everyone, always, room_bytes(options))):
        options.say(f"{arch}, group {number + 1} of {len(found)}: {', '.join(one.name for one in group)}")
        shutil.rmtree(folder / "runs", ignore_errors=True)  # Lumi's contestants begin anew in every group
        results.append(take_turns(group, options))
    return Contest(work, results, [one.name for one in lumi])


def take_turns(contestants: Sequence[Contestant], options: Options) -> list[Result]:
    """As the command line says."""
    return race(
        contestants, rounds=options.rounds, steps=options.steps_of_a_turn, threads=options.threads, say=options.say
    )


def write_work(options: Options, arch: str, folder: Path) -> Work:
    """Text and tokenizer where they are missing, then the work; by processes that end before anything is measured.

    Raises:
        Failed: Lumi cannot even do that.
    """
    make_text(options, arch)
    documents = ["long", "short"] if options.documents == "short" else ["long"]
    for one in reversed(documents):  # the last one, that of the long document, stays
        head = ["--write", str(folder), "--arch", arch, "--batches", str(_N_BATCHES), "--"]
        run([*lumi_command(head), *run_overrides(options, arch, folder, f"write-{one}", one)], options)
    return load_work(folder)


def make_text(options: Options, arch: str) -> None:
    """Text and tokenizer for an architecture, where they are missing."""
    run([sys.executable, "-m", f"{_MODULES}.material", str(options.data), str(options.vocab_size(arch))], options)


def run(command: Sequence[str], options: Options) -> None:
    """Raises Failed when it does not end well."""
    done = subprocess.run(
        command, cwd=ROOT, env=environment(options.threads), check=False, capture_output=True, text=True
    )
    if done.returncode:
        raise Failed(f"{' '.join(command[1:3])} ended with {done.returncode}:\n{done.stderr[-2000:]}")


def run_overrides(options: Options, arch: str, folder: Path, name: str, documents: str = "long") -> list[str]:
    """A run of Lumi that is as configured by default, but for its text, its batch, a constant rate and its end."""
    return [
        f"arch={arch}",
        f"data.batch_size={options.batch_size(arch)}",
        "optim/schedule=constant",
        "optim.schedule.warmup_steps=0",
        "optim.lr=3e-4",
        f"budget.steps={_MANY}",
        f"trainer.val_every_steps={_MANY}",
        f"trainer={'cpu' if options.device == 'cpu' else 'auto'}",
        options.precision,
        f"paths.runs='{folder / 'runs'}'",
        f"name={name}",
        "resume=never",
        *data_overrides(options.data, options.vocab_size(arch), documents),
    ]


def lumi_contestants(options: Options, work: Work, folder: Path) -> list[Contestant]:
    """As configured by default, and with compilation the other way."""
    found = []
    documents = ("long", "short") if options.documents == "short" else ("long",)
    for kind in documents:
        for suffix, override in _compile_ways(options.compile_default):
            name = f"Lumi{suffix}" + (", short documents" if kind == "short" else "")
            overrides = run_overrides(options, work.arch, folder, name.replace(" ", "-").replace(",", ""), kind)
            command = lumi_command(["--warmup", str(options.warmup), "--", *overrides, *override])
            found.append(Contestant(name, command, needed_bytes(options, work, whole_logits=False)))
    return found


def _compile_ways(default: object) -> list[tuple[str, list[str]]]:
    """Lumi decides by itself where its default is neither true nor false; for a run this long that is to compile."""
    other = (
        (", compiled", ["trainer.compile=true"]) if default is False else (", not compiled", ["trainer.compile=false"])
    )
    return [("", []), other]


def peer_contestants(options: Options, work: Work, folder: Path) -> list[Contestant]:
    """Each eager and compiled."""
    found = []
    for name, peer in (("plain loop", "plain"), ("transformers", "transformers"), ("litgpt", "litgpt")):
        if options.only and peer not in options.only:
            continue
        python = sys.executable if peer == "plain" else str(options.peers / "bin" / "python")
        for suffix, flags in (("", []), (", compiled", ["--compiled"])):
            command = [python, "-m", f"{_MODULES}.peers", peer, "--work", str(folder), *_where(options)]
            memory = needed_bytes(options, work, whole_logits=True)
            found.append(Contestant(f"{name}{suffix}", [*command, "--warmup", str(options.warmup), *flags], memory))
    return found


def needed_bytes(options: Options, work: Work, *, whole_logits: bool) -> float:
    """What a contestant is expected to hold at most: libraries, weights with gradients and moments, activations, logits."""
    half = options.half
    activations = work.n_tokens * work.n_layers * (12 * work.d_model + 4 * work.d_ff) * (2 if half else 4)
    logits = work.n_tokens * work.vocab_size * (10 if half else 12) if whole_logits else 0
    return 0.7e9 + 16 * work.n_params + activations + logits


def _limit_bytes(options: Options, work: Work) -> float:
    # One product of the head with its operands, a matrix of scores, and what stays of the other products.
    return 0.7e9 + min(2 * 2**31, 2 * 4 * work.n_tokens * work.vocab_size) + 8 * work.n_tokens * work.d_model


def room_bytes(options: Options) -> float:
    """Memory that the contestants of a group may take together."""
    if options.device == "cpu":
        lines = Path("/proc/meminfo").read_text().splitlines() if Path("/proc/meminfo").is_file() else []
        available = next((1024.0 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable")), 8e9)
        return 0.8 * available
    script = "import torch; print(torch.cuda.mem_get_info()[0])"
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return 0.85 * float(answer.stdout)


def lumi_command(arguments: Sequence[str]) -> list[str]:
    """Lumi's real loop as a worker."""
    return [sys.executable, "-m", f"{_MODULES}.lumi_loop", *arguments]


def _module(name: str, folder: Path, options: Options) -> list[str]:
    return [sys.executable, "-m", f"{_MODULES}.{name}", "--work", str(folder), *_where(options)]


def _where(options: Options) -> list[str]:
    return ["--device", options.device, *(["--half"] if options.half else [])]
