"""What stands before every route: who may ask, from where, and how much may be sent, decided before anything is parsed.

An ASGI application around another, not a list of dependencies: a new route cannot forget it.
"""

import asyncio
import contextlib
import hmac
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from typing import Any

from fastapi.responses import JSONResponse

from lumi.serve.errors import ApiError
from lumi.serve.metrics import Metrics
from lumi.serve.protocol import MAX_BODY_BYTES

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_HEADER_BYTES = 16_000
_ALL_BODIES_BYTES = 64_000_000


class Guard:
    """Lets through what may pass.

    Args:
        app: what is guarded.
        api_key: must come as ``Authorization: Bearer …``; None lets everybody in.
        hosts: names under which the server may be called; None is any. A page of another site that a browser was made to
            take for this host (DNS rebinding) sends its own name.
        open_paths: what needs no key: is the server there, and the page, which holds no secret.
        metrics: count what was asked.
        body_seconds: in which a body must have come.
        max_requests: being answered at a time, besides those of open paths; further ones are told to come again before
            anything of them is read, which costs a fraction of finding out that no place is free.

    Attributes:
        n_requests: that are being answered now.
        held_bytes: of the bodies of all requests that are being answered.
    """

    def __init__(
        self,
        app: App,
        *,
        api_key: str | None,
        hosts: frozenset[str] | None,
        open_paths: tuple[str, ...],
        metrics: Metrics,
        body_seconds: float,
        max_requests: int,
    ) -> None:
        self._max_requests, self.n_requests = max_requests, 0
        self._body_seconds = body_seconds
        self.app, self._hosts, self._open, self.metrics = app, hosts, open_paths, metrics
        self._key = None if api_key is None else api_key.encode()
        self.held_bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        counted = self.metrics.counting(scope["path"], send)
        try:
            if self._admit(scope):
                await self._pass_on(scope, receive, counted)
                return
            with self._place():
                await self._pass_on(scope, receive, counted)
        except ApiError as error:
            await error.response()(scope, receive, counted)

    def refusal(self, scope: Scope) -> JSONResponse | None:
        """What a request is told that may not pass, from its path and headers."""
        try:
            self._admit(scope)
        except ApiError as error:
            return error.response()
        return None

    @contextlib.contextmanager
    def _place(self) -> Iterator[None]:
        if self.n_requests >= self._max_requests:
            raise ApiError(503, "too many requests at once", code="overloaded", retry_after_seconds=2)
        self.n_requests += 1
        try:
            yield
        finally:
            self.n_requests -= 1

    def _admit(self, scope: Scope) -> bool:
        """Whether it is for an open path; raises ApiError for what may not pass."""
        if sum(len(name) + len(value) for name, value in scope["headers"]) > _HEADER_BYTES:
            raise ApiError(431, f"the headers may have {_HEADER_BYTES:,} bytes", code="too_large")
        headers: dict[bytes, bytes] = dict(scope["headers"])
        host = headers.get(b"host", b"").decode("latin-1")
        if self._hosts is not None and _name(host) not in self._hosts:
            raise ApiError(
                403, "this server does not answer under that name (host=… and hosts=[…] decide)", code="foreign_host"
            )
        origin = headers.get(b"origin", b"").decode("latin-1")
        if origin and origin.partition("://")[2] != host:
            raise ApiError(403, "pages of other sites may not ask this server", code="foreign_origin")
        path: str = scope["path"]
        is_open = path in self._open or any(
            path.startswith(prefix) for prefix in self._open if prefix.endswith("/") and prefix != "/"
        )
        if self._key is not None and not is_open and not _is_key(headers.get(b"authorization", b""), self._key):
            raise ApiError(401, "needs the server's key: Authorization: Bearer …", code="invalid_api_key")
        return is_open

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Read the body, within its limits of size and time, then ask the application."""
        held = 0
        try:
            parts: list[bytes] = []
            async with asyncio.timeout(self._body_seconds):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return
                    part: bytes = message.get("body", b"")
                    parts.append(part)
                    held += len(part)
                    self.held_bytes += len(part)
                    self._check_size(held)
                    if not message.get("more_body", False):
                        break
        except TimeoutError:
            raise ApiError(408, f"the body did not come within {self._body_seconds:g} s", code="too_slow") from None
        else:
            body: MutableMapping[str, Any] | None = {
                "type": "http.request",
                "body": b"".join(parts),
                "more_body": False,
            }

            async def replay() -> MutableMapping[str, Any]:
                nonlocal body
                if body is None:
                    return await receive()
                message, body = body, None
                return message

            await self.app(scope, replay, send)
        finally:
            self.held_bytes -= held

    def _check_size(self, held: int) -> None:
        if held > MAX_BODY_BYTES:
            raise ApiError(413, f"the body may have {MAX_BODY_BYTES:,} bytes", code="too_large")
        if self.held_bytes > _ALL_BODIES_BYTES:
            raise ApiError(503, "too much is being sent at once", code="overloaded", retry_after_seconds=5)


def _is_key(header: bytes, key: bytes) -> bool:
    scheme, _, given = header.partition(b" ")
    return scheme.lower() == b"bearer" and hmac.compare_digest(given.strip(), key)


def _name(host: str) -> str:
    """A host without its port."""
    name, colon, port = host.rpartition(":")
    return (name if colon and (port.isdigit() or not port) else host).lower()
