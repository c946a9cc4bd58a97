"""From tokens to what a client reads: text that is final, logarithms, the reason of the end; many answers at once."""

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator, Sequence
from typing import Literal

from lumi.generate.request import TokenLogprobs
from lumi.serve.models import ServedModel
from lumi.serve.protocol import Usage
from lumi.serve.scheduler import Ticket
from lumi.serve.text import TextStream

Finish = Literal["stop", "length"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Piece:
    """What is new in one answer.

    Attributes:
        index: which answer.
        text: never taken back.
        logprobs: (token, what the model thought) of the tokens that came, if they were asked for.
        finish: why it ended, in the last piece.
    """

    index: int
    text: str
    logprobs: list[tuple[int, TokenLogprobs]]
    finish: Finish | None


class Answers:
    """The answers to one call.

    Args:
        model: who answers.
        tickets: one for each answer.
        stop: strings that end an answer.
        chat: whether the template's lead is taken off.
    """

    def __init__(self, model: ServedModel, tickets: Sequence[Ticket], stop: Sequence[str], *, chat: bool) -> None:
        self.model, self.tickets = model, tickets
        self._stop = stop
        self._n_read = [0] * len(tickets)
        self._lead = model.template.lead if chat and model.template else ""

    async def pieces(self) -> AsyncIterator[Piece]:
        """Pieces of all answers as they come.

        Raises:
            LumiError: one of them failed.
        """
        if len(self.tickets) == 1:
            async for piece in self._one(0):
                yield piece
            return
        found: asyncio.Queue[Piece | int] = asyncio.Queue()
        tasks = [asyncio.create_task(self._pump(index, found)) for index in range(len(self.tickets))]
        try:
            n_going = len(tasks)
            while n_going:
                piece = await found.get()
                if isinstance(piece, int):
                    await tasks[piece]  # raises what ended it
                    n_going -= 1
                else:
                    yield piece
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def whole(self) -> AsyncIterator[Piece]:
        """The same for who waits for the end: one piece an answer, unless its text has to be searched for a stop.

        Raises:
            LumiError: one of them failed.
        """
        for ticket in self.tickets:
            ticket.every_token = bool(self._stop)
        return self.pieces()

    def release(self) -> None:
        """Nobody reads any more: what has not ended gives up its place."""
        self.model.scheduler.release(self.tickets)

    def usage(self, n_choices: int) -> Usage:
        """Tokens so far; a prompt counts once, however many answers it has."""
        requests = [ticket.request for ticket in self.tickets]
        n_prompt = sum(len(request.prompt) for request in requests[::n_choices])
        n_written = sum(self._n_read)  # what was made beyond a stop string, before that was found, is nobody's
        return Usage(prompt_tokens=n_prompt, completion_tokens=n_written, total_tokens=n_prompt + n_written)

    async def _pump(self, index: int, found: asyncio.Queue[Piece | int]) -> None:
        """Pieces, and the number of the answer when it has ended, however."""
        try:
            async for piece in self._one(index):
                found.put_nowait(piece)
        finally:
            found.put_nowait(index)

    async def _one(self, index: int) -> AsyncIterator[Piece]:
        ticket = self.tickets[index]
        request = ticket.request
        text = TextStream(self.model.tokenizer, lead=self._lead, stop=self._stop)
        progress = ticket.progress()
        async with contextlib.aclosing(progress):
            async for first, stop in progress:
                new, n_read = "", first
                while n_read < stop and text.stopped is None:
                    new += text.push(request.tokens[n_read])
                    n_read += 1
                self._n_read[index] = n_read
                thoughts = list(zip(request.tokens[first:n_read], request.logprobs[first:n_read], strict=False))
                if text.stopped is not None:
                    request.cancel()
                    yield Piece(index=index, text=new, logprobs=thoughts, finish="stop")
                    return
                if new or thoughts:
                    yield Piece(index=index, text=new, logprobs=thoughts, finish=None)
        rest = text.finish()
        stopped = text.stopped is not None or request.reason == "stop"
        yield Piece(index=index, text=rest, logprobs=[], finish="stop" if stopped else "length")
