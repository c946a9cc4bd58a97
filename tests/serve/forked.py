"""Servers as forks of a process that has imported everything: fifty of them start in the time of five of `serve.py`."""

import contextlib
import multiprocessing
import signal
import time
from pathlib import Path
from typing import Any

from lumi import cli
from lumi.arch.fused import FusedDecoder
from lumi.generate import Engine, SamplingParams
from lumi.serve.metrics import Metrics
from lumi.serve.models import ServedModel
from lumi.serve.scheduler import Scheduler
from lumi.serve.server import ROUTES, Server, listen
from lumi.serve.settings import ServerSettings
from lumi.trained import load_trained

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload([__name__])


class Fork:
    """A server of one model named ``tiny``, as `serve.py` runs it, with its signals and exit codes.

    Args:
        model: folder of a checkpoint.
        drain_seconds: as ``server.drain_seconds``.
    """

    def __init__(self, model: Path, drain_seconds: float) -> None:
        self._ports, ports = _FORKS.Pipe(duplex=False)
        self.process = _FORKS.Process(target=_serve, args=(model, drain_seconds, ports))
        self.process.start()
        self.port: int = 0

    def wait_until_it_listens(self) -> None:
        self.port = self._ports.recv()

    def stop(self, number: int) -> float:
        """Send a signal; returns when that was."""
        self.process._popen._send_signal(number)  # pyright: ignore[reportAttributeAccessIssue]
        return time.monotonic()

    def ended(self, seconds: float) -> int | None:
        """The exit code, once it has ended."""
        self.process.join(seconds)
        return self.process.exitcode

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        self.process.join()


def _serve(model: Path, drain_seconds: float, ports: Any) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    trained, metrics = load_trained(model), Metrics(ROUTES)
    scheduler = Scheduler(Engine(FusedDecoder(trained.decoder), n_rows=2), max_waiting=64)
    served = ServedModel(
        name="tiny", config=trained.decoder.config, tokenizer=trained.tokenizer, template=trained.template,
        sampling=SamplingParams(max_new_tokens=trained.decoder.config.max_seq_len), fingerprint="0" * 64, scheduler=scheduler,
    )  # fmt: skip
    settings = ServerSettings(port=0, drain_seconds=drain_seconds)
    listener = listen(settings)
    ports.send(listener.getsockname()[1])
    cli.run(lambda: Server([served], settings, metrics).run(sockets=[listener]))
