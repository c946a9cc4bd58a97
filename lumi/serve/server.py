"""Runs the application: where it listens, who may come, how it stops."""

import asyncio
import functools
import logging
import resource
import socket
import sys
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import uvicorn
from starlette.responses import Response

from lumi.errors import ResourceError
from lumi.serve.api import OPEN_PATHS, Service, create_app
from lumi.serve.connection import Connection
from lumi.serve.door import Door, Headers
from lumi.serve.guard import Guard
from lumi.serve.metrics import Metrics
from lumi.serve.models import ServedModel
from lumi.serve.scheduler import Scheduler
from lumi.serve.settings import ServerSettings

log = logging.getLogger(__name__)

BACKLOG = 2048
_CONNECTED_AT_ONCE = 4
"""In one turn of the event loop, so that answers in progress need not wait for a thousand newcomers."""
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
    # A connection is an open file, and a shell's usual limit is 1,024 of them.
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
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
        self._guard, self._service = guarded(models, settings, metrics)
        super().__init__(_config(self._guard, settings))
        self.settings = settings
        self._arrived: deque[socket.socket] = deque()
        self._connecting: set[asyncio.Task[Any]] = set()
        logging.getLogger("uvicorn.error").setLevel(
            logging.CRITICAL
        )  # a client's nonsense is not the operator's concern

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Open the door; uvicorn itself listens to nothing."""
        assert sockets is not None, "listen() makes one"
        await super().startup([])
        loop = asyncio.get_running_loop()
        self.door = Door(
            sockets[0],
            health=self._health,
            hand_on=lambda connection: loop.call_soon_threadsafe(self._arrive, loop, connection) and None,
        )

    def _health(self, headers: Headers) -> Response:
        """What the door answers: as the application would, guard and counters included."""
        response = self._guard.refusal({"path": "/health", "headers": headers}) or self._service.health()
        self._guard.metrics.count("/health", response.status_code)
        return response

    def _arrive(self, loop: asyncio.AbstractEventLoop, connection: socket.socket) -> None:
        self._arrived.append(connection)
        if len(self._arrived) == 1:
            loop.call_soon(self._connect, loop)

    def _connect(self, loop: asyncio.AbstractEventLoop) -> None:
        """Let some of those in that the door has handed on."""
        for _ in range(min(_CONNECTED_AT_ONCE, len(self._arrived))):
            facts = {"config": self.config, "server_state": self.server_state, "app_state": self.lifespan.state}
            protocol = self.config.http_protocol_class(**facts, _loop=loop)  # pyright: ignore[reportCallIssue]
            task = loop.create_task(loop.connect_accepted_socket(lambda it=protocol: it, self._arrived.popleft()))
            self._connecting.add(task)
            task.add_done_callback(self._connecting.discard)
        if self._arrived:
            loop.call_soon(self._connect, loop)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take nothing new, wait, end."""
        self.door.close()
        self._service.draining = True
        schedulers = [model.scheduler for model in self._service.models.values()]
        clock = asyncio.get_running_loop().call_later(self.settings.drain_seconds, _end, schedulers)
        try:
            await super().shutdown([])
        finally:
            clock.cancel()


def _end(schedulers: Sequence[Scheduler]) -> None:
    for scheduler in schedulers:
        scheduler.end()
