"""Runs the application: where it listens, who may come, how it stops."""

import asyncio
import functools
import logging
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

import uvicorn

from lumi.errors import ResourceError
from lumi.serve.api import OPEN_PATHS, Service, create_app
from lumi.serve.connection import Connection
from lumi.serve.guard import Guard
from lumi.serve.metrics import Metrics
from lumi.serve.models import ServedModel
from lumi.serve.scheduler import Scheduler
from lumi.serve.settings import ServerSettings

log = logging.getLogger(__name__)

BACKLOG = 2048
SWITCH_SECONDS = 2e-4

_MORE_REQUESTS = 64
"""At a time, than the models can hold: those that ask for something else, or are refused."""

ROUTES = (
    "/", "/health", "/metrics", "/openapi.json", "/v1/models", "/v1/chat/completions", "/v1/completions", "/v1/preferences",
)  # fmt: skip


def guarded(models: Sequence[ServedModel], settings: ServerSettings, metrics: Metrics) -> tuple[Guard, Service]:
    """The whole application, and what its routes share."""
    service = Service(models, metrics, Path(settings.preferences) if settings.preferences else None)
    guard = Guard(
        create_app(service),
        api_key=settings.api_key,
        hosts=settings.names,
        open_paths=OPEN_PATHS,
        metrics=metrics,
        body_seconds=settings.body_seconds,
        max_requests=sum(model.scheduler.capacity for model in models) + _MORE_REQUESTS,
    )
    return guard, service


def serve(models: Sequence[ServedModel], settings: ServerSettings, metrics: Metrics) -> None:
    """Answer until a signal asks to stop: running answers then have some seconds to end.

    Raises:
        ResourceError: the port is taken.
    """
    # The engine's thread lets go of the interpreter hundreds of times a step; each time it would wait up to 5 ms for the loop.
    sys.setswitchinterval(SWITCH_SECONDS)
    listener = listen(settings)
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    log.info("serving %s at http://%s:%d (Ctrl-C stops)", ", ".join(model.name for model in models), shown, port)
    Server(models, settings, metrics).run(sockets=[listener])


def _config(app: Guard, settings: ServerSettings) -> uvicorn.Config:
    connection = functools.partial(
        Connection, header_seconds=settings.header_seconds, write_seconds=settings.write_seconds
    )
    return uvicorn.Config(
        app,
        http=connection,  # pyright: ignore[reportArgumentType]  # whatever makes a protocol
        ws="none",
        loop="asyncio",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=5,
        timeout_graceful_shutdown=int(settings.drain_seconds) + 2,
        backlog=BACKLOG,
    )


def listen(settings: ServerSettings) -> socket.socket:
    """The socket.

    Raises:
        ResourceError: the port is taken.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    # The protocol by number: without it asyncio leaves Nagle's algorithm on, and every answer waits 40 ms for a confirmation.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
        listener.listen(BACKLOG)  # before the address is shown: who comes a moment early waits
    except OSError as error:
        listener.close()
        raise ResourceError(
            f"server.host={settings.host} server.port={settings.port}",
            f"cannot be used ({error.strerror})",
            "try server.port=0",
        ) from None
    listener.set_inheritable(False)
    return listener


class Server(uvicorn.Server):
    """Answers until it is stopped; then gives running answers time, and ends them with an error that clients can read."""

    def __init__(self, models: Sequence[ServedModel], settings: ServerSettings, metrics: Metrics) -> None:
        guard, self._service = guarded(models, settings, metrics)
        super().__init__(_config(guard, settings))
        self.settings = settings
        logging.getLogger("uvicorn.error").setLevel(
            logging.CRITICAL
        )  # a client's nonsense is not the operator's concern

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take nothing new, wait, end."""
        self._service.draining = True
        schedulers = [model.scheduler for model in self._service.models.values()]
        clock = asyncio.get_running_loop().call_later(self.settings.drain_seconds, _end, schedulers)
        try:
            await super().shutdown(sockets)
        finally:
            clock.cancel()


def _end(schedulers: Sequence[Scheduler]) -> None:
    for scheduler in schedulers:
        scheduler.end()
