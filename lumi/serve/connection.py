"""One connection, with a limit to everything that a client can be slow at.

uvicorn waits forever for the rest of a request's headers and for a reader that does not read. Bodies have their limit in
`lumi.serve.guard`.
"""

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol


class Connection(H11Protocol):
    """HTTP/1.1, by uvicorn and h11, with two clocks.

    Args:
        header_seconds: in which the headers of a request must have come.
        write_seconds: a client that takes nothing of what was written for so long is left.
    """

    def __init__(self, *args: Any, header_seconds: float, write_seconds: float, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._header_seconds, self._write_seconds = header_seconds, write_seconds
        self._header_clock: asyncio.TimerHandle | None = None
        self._write_clock: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The headers of the first request are awaited."""
        super().connection_made(transport)  # pyright: ignore[reportArgumentType]
        # Everything that the system does not take counts as paused: a short answer too can meet a client that never reads.
        self.transport.set_write_buffer_limits(high=0)
        self._await_headers()

    def data_received(self, data: bytes) -> None:
        """Headers that are complete stop the clock; the beginning of a further request starts it."""
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop(self._header_clock)
            self._header_clock = None
        elif self._header_clock is None and not self.transport.is_closing():
            self._await_headers()

    def send_400_response(self, msg: str) -> None:
        """What is not HTTP is told so, unless an answer has begun: then only the end of the connection can tell."""
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            super().send_400_response(msg)
        else:
            self.transport.close()

    def pause_writing(self) -> None:
        """The client does not read."""
        super().pause_writing()
        self._stop(self._write_clock)
        self._write_clock = self.loop.call_later(self._write_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        """It has read everything."""
        super().resume_writing()
        self._stop(self._write_clock)

    def connection_lost(self, exc: Exception | None) -> None:
        """Over."""
        self._stop(self._header_clock)
        self._stop(self._write_clock)
        super().connection_lost(exc)

    def _await_headers(self) -> None:
        self._header_clock = self.loop.call_later(self._header_seconds, self._give_up)

    def _give_up(self) -> None:
        self._header_clock = None
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()

    def _stop(self, clock: asyncio.TimerHandle | None) -> None:
        if clock is not None:
            clock.cancel()
