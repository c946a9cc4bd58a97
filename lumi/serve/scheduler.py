"""An engine in a thread of its own, for callers that wait without blocking each other."""

import asyncio
import logging
import queue
import threading
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Protocol

from lumi.errors import LumiError, ResourceError
from lumi.generate import Request

log = logging.getLogger(__name__)


class Steps(Protocol):
    """What runs requests: `lumi.generate.Engine`, or a stand-in for another runtime. Used by one thread only."""

    def add(self, request: Request) -> None:
        """Have a request answered."""
        ...

    def step(self) -> list[Request]:
        """Go on a little; returns the requests that have news."""
        ...

    def abandon(self, error: LumiError) -> list[Request]:
        """Fail everything that has not ended; returns all that were there."""
        ...

    @property
    def n_rows(self) -> int:
        """Places."""
        ...

    @property
    def busy(self) -> bool:
        """Whether there is anything to do."""
        ...

    @property
    def n_active(self) -> int:
        """Requests that have a place."""
        ...

    @property
    def n_waiting(self) -> int:
        """Requests that have none yet."""
        ...


class QueueFull(Exception):
    """More requests wait than are let in."""


class Stopping(LumiError):
    """The server stops before the answer has ended."""


class Ticket:
    """One request that was handed in.

    Attributes:
        every_token: whether its reader wants each token as it comes, or the first one and the end.
    """

    def __init__(self, request: Request, on_first_token: Callable[[float], None], on_token: Callable[[float], None]):
        self.request = request
        self.every_token = True
        self._event = asyncio.Event()
        self._since = time.perf_counter()
        self._observe = (on_first_token, on_token)

    @property
    def wants_news(self) -> bool:
        """Whether its reader should be woken by what came last."""
        return self.every_token or self.request.reason is not None or len(self.request.tokens) <= 1

    def wake(self) -> None:
        """There is news."""
        self._event.set()

    async def progress(self) -> AsyncGenerator[tuple[int, int]]:
        """Ranges of new tokens, until the request has ended.

        Raises:
            LumiError: the request failed.
        """
        n_seen = 0
        while True:
            await self._event.wait()
            self._event.clear()
            reason = self.request.reason  # read before the tokens: once there is a reason, none is added
            n_now = len(self.request.tokens)
            if n_now > n_seen:
                self._note(n_seen, n_now)
                yield n_seen, n_now
                n_seen = n_now
            if reason is not None:
                if self.request.error is not None:
                    raise self.request.error
                return

    def _note(self, n_seen: int, n_now: int) -> None:
        now = time.perf_counter()
        first, further = self._observe
        if n_seen == 0:
            first(now - self._since)
        else:
            further((now - self._since) / (n_now - n_seen))
        self._since = now


class Scheduler:
    """Hands requests to an engine and tells who has news.

    Args:
        engine: nobody else may use it.
        max_waiting: requests that may wait for a place.
        on_first_token, on_token: are told the seconds to an answer's first token, and from one to the next.
    """

    def __init__(
        self,
        engine: Steps,
        *,
        max_waiting: int,
        on_first_token: Callable[[float], None] = lambda _: None,
        on_token: Callable[[float], None] = lambda _: None,
    ) -> None:
        self._engine, self._max_waiting = engine, max_waiting
        self._observe = (on_first_token, on_token)
        self._inbox: queue.SimpleQueue[Request | None] = queue.SimpleQueue()
        self._tickets: dict[int, Ticket] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._stopped = False

    def start(self) -> None:
        """Begin; call it where the event loop runs."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    def submit(self, requests: Sequence[Request]) -> list[Ticket]:
        """Hand in requests that belong together.

        Raises:
            QueueFull: they would wait behind too many.
        """
        # Counted here, where they are added: what the engine counts in its thread is a moment old.
        n_going = sum(ticket.request.reason is None for ticket in self._tickets.values())
        if n_going + len(requests) > self.capacity:
            raise QueueFull
        tickets = [Ticket(request, *self._observe) for request in requests]
        for ticket in tickets:
            self._tickets[id(ticket.request)] = ticket
            self._inbox.put(ticket.request)
        return tickets

    def release(self, tickets: Sequence[Ticket]) -> None:
        """Nobody waits for these any more: what has not ended is cancelled."""
        for ticket in tickets:
            ticket.request.cancel()
            self._tickets.pop(id(ticket.request), None)

    @property
    def capacity(self) -> int:
        """Requests that can be in the model or wait at a time."""
        return self._engine.n_rows + self._max_waiting

    @property
    def n_running(self) -> int:
        """Requests in the model."""
        return self._engine.n_active

    @property
    def n_waiting(self) -> int:
        """Requests that wait for a place."""
        return self._engine.n_waiting + self._inbox.qsize()

    @property
    def idle(self) -> bool:
        """Whether nobody waits for anything."""
        return not self._tickets

    @property
    def alive(self) -> bool:
        """Whether the engine's thread runs."""
        return self._thread.is_alive()

    def end(self) -> None:
        """Fail what runs and take nothing more; does not wait."""
        self._stopped = True
        self._inbox.put(None)

    def stop(self) -> None:
        """The same, and wait for the thread."""
        self.end()
        if self.alive:
            self._thread.join(timeout=5)

    def _run(self) -> None:
        try:
            while not self._stopped:
                self._take()
                if not self._stopped:
                    self._tell(self._step())
        finally:  # whatever it was: nobody may wait for what does not go on
            self._call(self._fail_all)

    def _take(self) -> None:
        """Hand on what came in; wait if there is nothing else to do."""
        wait = not self._engine.busy
        while True:
            try:
                request = self._inbox.get(block=wait)
            except queue.Empty:
                return
            if request is not None:
                self._engine.add(request)
            wait = False

    def _step(self) -> list[Request]:
        try:
            return self._engine.step()
        except Exception as error:  # whatever it was, the next request deserves an answer
            log.exception("a step of the engine failed; what was running is given up")
            cause = error if isinstance(error, LumiError) else ResourceError("the model could not go on", "see the log")
            return self._engine.abandon(cause)

    def _tell(self, requests: Sequence[Request]) -> None:
        """Wake those who wait for what came: the event loop has nothing to do with the other tokens."""
        tickets = [ticket for request in requests if (ticket := self._tickets.get(id(request))) is not None]
        if awaited := [ticket for ticket in tickets if ticket.wants_news]:
            self._call(lambda: self._wake(awaited))

    def _call(self, function: Callable[[], None]) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(function)

    def _fail_all(self) -> None:
        for ticket in self._tickets.values():
            if ticket.request.reason is None:
                ticket.request.fail(Stopping("the server stops", "answers in progress end", "ask again later"))
            ticket.wake()

    def _wake(self, tickets: Sequence[Ticket]) -> None:
        for ticket in tickets:
            ticket.wake()
