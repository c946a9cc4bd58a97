"""The door: takes connections in, answers `/health` in its own thread, and hands everything else on unread.

Whoever watches a server asks whether it lives just when it is busiest. In the event loop that question stands behind a
thousand others: behind so many connections at once, `/health` came after 0.6 seconds. Here nothing stands before it but other
connections that have just come. What is not plainly `GET /health` in one piece is not for the door to judge: the
application reads it from its first byte.
"""

import contextlib
import dataclasses
import logging
import selectors
import socket
import threading
import time
from collections.abc import Callable, Sequence
from email.utils import formatdate

import h11
from starlette.responses import Response

log = logging.getLogger(__name__)

Headers = Sequence[tuple[bytes, bytes]]

_START = b"GET /health HTTP/1."
_HEAD_BYTES = 4096
_ACCEPTED_AT_ONCE = 64
_SILENT_SECONDS = 0.05
"""A connection that has said nothing for so long waits on in the event loop, which has a clock for it."""
_KEPT_SECONDS = 5.0
"""A connection that has been answered may ask again within this time."""
_FULL_SECONDS = 0.05
"""Between two attempts to take a connection when the process may have no more open files."""


@dataclasses.dataclass
class _Guest:
    """A connection at the door; ``until`` is when it has been silent for too long."""

    connection: socket.socket
    until: float
    answered: bool = False


class Door:
    """Takes connections in.

    Args:
        listener: listens already; the door closes it.
        health: what to answer to `/health` with these headers.
        hand_on: takes a connection from which nothing unanswered has been read. Called in the door's thread.
    """

    def __init__(
        self,
        listener: socket.socket,
        *,
        health: Callable[[Headers], Response],
        hand_on: Callable[[socket.socket], None],
    ) -> None:
        self.listener, self._health, self._hand_on = listener, health, hand_on
        listener.setblocking(False)
        self._woken, self._bell = socket.socketpair()
        self._selector = selectors.DefaultSelector()
        self._selector.register(listener, selectors.EVENT_READ)
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._guests: dict[socket.socket, _Guest] = {}
        self._thread = threading.Thread(target=self._run, name="door", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Take nothing more; who still stands at the door is turned away."""
        self._bell.send(b"!")
        self._thread.join()

    def _run(self) -> None:
        try:
            while True:
                for key, _ in self._selector.select(self._patience()):
                    if key.fileobj is self._woken:
                        return
                    if key.fileobj is self.listener:
                        self._open()
                    else:
                        self._read(key.data)
                self._dismiss_silent()
        finally:
            for each in (self.listener, self._woken, self._bell, *self._guests):
                each.close()
            self._selector.close()

    def _patience(self) -> float | None:
        """Seconds until the first guest has been silent for too long."""
        return (
            max(0.0, min(guest.until for guest in self._guests.values()) - time.monotonic()) if self._guests else None
        )

    def _open(self) -> None:
        for _ in range(_ACCEPTED_AT_ONCE):
            try:
                connection, _ = self.listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:  # no more open files: those who wait are taken when others have gone
                log.error("a connection could not be taken: %s", error.strerror)
                time.sleep(_FULL_SECONDS)
                return
            connection.setblocking(False)
            guest = _Guest(connection, time.monotonic() + _SILENT_SECONDS)
            self._guests[connection] = guest
            self._selector.register(connection, selectors.EVENT_READ, guest)
            self._read(guest)  # nearly always it has spoken already

    def _read(self, guest: _Guest) -> None:
        try:
            self._judge(guest)
        except Exception:  # whatever it was, the next guest deserves an answer
            log.exception("a connection failed at the door")
            if guest.connection in self._guests:
                self._forget(guest).close()

    def _judge(self, guest: _Guest) -> None:
        """Answer, hand on, or let it go on waiting."""
        try:
            data = guest.connection.recv(_HEAD_BYTES, socket.MSG_PEEK)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self._forget(guest).close()
            return
        if not data:
            self._forget(guest).close()
        elif not data.startswith(_START) or not self._answered(guest, data):
            self._hand_on(self._forget(guest))

    def _answered(self, guest: _Guest, data: bytes) -> bool:
        """Whether it was a whole request without a body, and has its answer."""
        head, end, _ = data.partition(b"\r\n\r\n")
        http = h11.Connection(h11.SERVER)
        http.receive_data(head + end)
        try:
            request, rest = http.next_event(), http.next_event()
        except h11.RemoteProtocolError:
            return False
        if not isinstance(request, h11.Request) or not isinstance(rest, h11.EndOfMessage):
            return False
        guest.connection.recv(len(head + end))
        reply = self._reply(http, list(request.headers))
        with contextlib.suppress(OSError):
            if guest.connection.send(reply) == len(reply) and http.our_state is h11.DONE:
                guest.answered, guest.until = True, time.monotonic() + _KEPT_SECONDS
                return True
        self._forget(guest).close()
        return True

    def _reply(self, http: h11.Connection, headers: Headers) -> bytes:
        response = self._health(headers)
        date = (b"date", formatdate(usegmt=True).encode())
        events = (
            h11.Response(status_code=response.status_code, headers=[date, *response.raw_headers]),
            h11.Data(data=bytes(response.body)),
            h11.EndOfMessage(),
        )
        return b"".join(http.send(event) or b"" for event in events)

    def _forget(self, guest: _Guest) -> socket.socket:
        self._selector.unregister(guest.connection)
        return self._guests.pop(guest.connection).connection

    def _dismiss_silent(self) -> None:
        now = time.monotonic()
        for guest in [guest for guest in self._guests.values() if guest.until <= now]:
            connection = self._forget(guest)
            connection.close() if guest.answered else self._hand_on(connection)
