"""One connection, with a limit to everything that a client can be slow at.

uvicorn waits forever for the rest of a request's headers and for a reader that does not read. Bodies have their limit in
`lumi.serve.guard`.
"""

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

HEADER_SECONDS = 10.0
WRITE_SECONDS = 30.0


class Connection(H11Protocol):
    """HTTP/1.1, by uvicorn and h11, with two clocks."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._header_clock: asyncio.TimerHandle | None = None
        self._write_clock: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The headers of the first request are awaited."""
        super().connection_made(transport)  # pyright: ignore[reportArgumentType]
        self._await_headers()

    def data_received(self, data: bytes) -> None:
        """Headers that are complete stop the clock; the beginning of a further request starts it."""
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop(self._header_clock)
            self._header_clock = None
        elif self._header_clock is None:
            self._await_headers()

    def pause_writing(self) -> None:
        """The client does not read."""
        super().pause_writing()
        self._stop(self._write_clock)
        self._write_clock = self.loop.call_later(WRITE_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        """It reads again."""
        super().resume_writing()
        self._stop(self._write_clock)

    def connection_lost(self, exc: Exception | None) -> None:
        """Over."""
        self._stop(self._header_clock)
        self._stop(self._write_clock)
        super().connection_lost(exc)

    def _await_headers(self) -> None:
        self._header_clock = self.loop.call_later(HEADER_SECONDS, self._give_up)

    def _give_up(self) -> None:
        self._header_clock = None
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()

    def _stop(self, clock: asyncio.TimerHandle | None) -> None:
        if clock is not None:
            clock.cancel()
