"""Starts the ranks of a run on this machine, and watches over them (``trainer=ddp trainer.devices=2``).

The first rank has the terminal. A signal goes to all ranks once, wherever it came from; they finish the step and save together.
When one rank ends badly the others end by themselves, or are ended: a run has all of its ranks or none. Several machines are
torchrun's or srun's matter (docs/cluster.md); then this module does nothing.

    python -m lumi.launch < settings.json      one rank, as started here
"""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any

from lumi.errors import Interrupted, RankError

GRACE_SECONDS = 30.0
"""What the other ranks have to end by themselves when one has failed."""

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


def launch(settings: dict[str, Any], n_ranks: int) -> None:
    """Run all ranks to their end.

    Raises:
        Interrupted: a signal ended them, and what was done is saved.
        RankError: a rank ended badly; its own message stands above.
    """
    with contextlib.ExitStack() as stack:
        errors = [stack.enter_context(tempfile.TemporaryFile()) for _ in range(n_ranks - 1)]
        # Every process in a session of its own: Ctrl-C then reaches this one only, which passes it on once.
        port = _free_port()
        ranks = [_start(settings, rank, n_ranks, port, [None, *errors][rank]) for rank in range(n_ranks)]
        with _passing_on(ranks) as received:
            rank, code = _watch(ranks)
        if code == 0:
            return
        if rank and code != ranks[0].returncode:  # the first one's messages were seen
            errors[rank - 1].seek(0)
            shutil.copyfileobj(errors[rank - 1], sys.stderr.buffer)
            sys.stderr.flush()
    number = code - 128 if code > 128 else -code
    if number in received or code in (130, 143):
        name = signal.Signals(received[0]).name if received else "a signal to one of them"
        raise Interrupted(
            f"all {n_ranks} ranks ended by {name}", "what the last line says is saved", signal_number=number
        )
    how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}, see its message above"
    raise RankError(
        f"rank {rank} of {n_ranks} {how}",
        "a run goes on with all of its ranks or not at all",
        "run the same command again to continue from the last checkpoint",
        exit_code=128 - code if code < 0 else code,
    )


def _start(settings: dict[str, Any], rank: int, n_ranks: int, port: int, errors: Any) -> "subprocess.Popen[bytes]":
    threads = max(1, (os.cpu_count() or 1) // n_ranks)
    environment = {
        "OMP_NUM_THREADS": str(threads),  # or each would take all cores
        **os.environ,
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(n_ranks),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "LUMI_LAUNCHER": str(os.getpid()),
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "lumi.launch"],
        stdin=subprocess.PIPE,
        stderr=errors,
        env=environment,
        start_new_session=True,
    )
    assert process.stdin is not None, "a pipe was asked for"
    with process.stdin as pipe:
        pipe.write(json.dumps(settings).encode())
    return process


@contextlib.contextmanager
def _passing_on(ranks: "list[subprocess.Popen[bytes]]") -> Iterator[list[int]]:
    """Signals to this process go to every rank; nothing of them outlives it."""
    received: list[int] = []

    def pass_on(number: int, _: Any) -> None:
        received.append(number)
        for process in ranks:
            if process.poll() is None:
                process.send_signal(number)

    before = {number: signal.signal(number, pass_on) for number in _SIGNALS}
    try:
        yield received
    finally:
        for process in ranks:
            if process.poll() is None:
                process.kill()
                process.wait()
        for number, handler in before.items():
            signal.signal(number, handler)


def _watch(ranks: "list[subprocess.Popen[bytes]]") -> tuple[int, int]:
    """Wait for all; returns the first that ended badly and its exit code, or (0, 0)."""
    failed, deadline = None, 0.0
    while True:
        codes = [process.poll() for process in ranks]
        if failed is None:
            failed = next(((rank, code) for rank, code in enumerate(codes) if code), None)
            deadline = time.monotonic() + GRACE_SECONDS
        if None not in codes or (failed is not None and time.monotonic() > deadline):
            return failed or (0, 0)
        time.sleep(0.05)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _end_with_launcher() -> None:
    """Have the kernel end this process when the one that started it has ended, however it did (Linux)."""
    import ctypes

    libc = ctypes.CDLL(None)
    if hasattr(libc, "prctl"):
        libc.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if os.getppid() != int(os.environ["LUMI_LAUNCHER"]):
        sys.exit(1)  # it was gone before that


def main() -> None:
    """One rank."""
    from lumi import cli  # here, because a run imports this module, and needs no command line

    _end_with_launcher()
    settings = json.load(sys.stdin)
    with cli.importing():
        from lumi.run import train_rank

    train_rank(settings)


if __name__ == "__main__":
    from lumi import cli

    cli.run(main)
