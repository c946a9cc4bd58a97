"""Answers in OpenAI's forms, whole and as streams of events."""

import abc
import json
import logging
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from typing import Any

from lumi.errors import ConfigError, LumiError
from lumi.generate.request import TokenLogprobs
from lumi.serve.answers import Answers, Piece
from lumi.serve.errors import ApiError
from lumi.serve.protocol import (
    AssistantMessage,
    ChatChoice,
    ChatChunk,
    ChatChunkChoice,
    ChatLogprobs,
    ChatRequest,
    ChatResponse,
    CompletionChoice,
    CompletionLogprobs,
    CompletionRequest,
    CompletionResponse,
    Delta,
    Generation,
    TokenLogprob,
    TopLogprob,
    Usage,
)
from lumi.serve.scheduler import Stopping
from lumi.tokenizer import Tokenizer

log = logging.getLogger(__name__)

_Thoughts = Sequence[tuple[int, TokenLogprobs]]
_PLACE = "a text that stands nowhere else"


class _Reply(abc.ABC):
    """What both kinds share."""

    def __init__(self, body: Generation, answers: Answers, prefix: str, *, logprobs: bool) -> None:
        self._logprobs = logprobs
        self._answers, self._n_choices = answers, body.n or 1
        self._usage = bool(body.stream_options and body.stream_options.include_usage)
        self._head: dict[str, Any] = {
            "id": f"{prefix}-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": answers.model.name,
            "system_fingerprint": answers.model.fingerprint_name,
        }
        self._frames: dict[int, tuple[str, str]] = {}

    def _plain(self, piece: Piece) -> str | None:
        """The event of a piece that is text and nothing else; a stream has thousands, which differ in the text alone."""
        if piece.finish is not None or self._logprobs:
            return None
        if piece.index not in self._frames:
            before, _, after = self._text_event(piece.index, _PLACE).partition(json.dumps(_PLACE))
            self._frames[piece.index] = (before, after)
        before, after = self._frames[piece.index]
        return f"{before}{json.dumps(piece.text, ensure_ascii=False)}{after}"

    @abc.abstractmethod
    def _text_event(self, index: int, text: str) -> str:
        """The event of such a piece."""


class Chat(_Reply):
    """Replies to ``/v1/chat/completions``."""

    def __init__(self, body: ChatRequest, answers: Answers) -> None:
        super().__init__(body, answers, "chatcmpl", logprobs=bool(body.logprobs))

    async def whole(self) -> ChatResponse:
        """Everything at once."""
        choices = []
        for index, pieces in enumerate(await _collect(self._answers)):
            thoughts = [thought for piece in pieces for thought in piece.logprobs]
            text = "".join(piece.text for piece in pieces)
            finish = pieces[-1].finish
            assert finish is not None, "the last piece says why"
            choices.append(
                ChatChoice(
                    index=index,
                    message=AssistantMessage(content=text),
                    logprobs=self._thoughts(thoughts),
                    finish_reason=finish,
                )
            )
        return ChatResponse(**self._head, choices=choices, usage=self._answers.usage(self._n_choices))

    async def events(self) -> AsyncIterator[str]:
        """Server-sent events."""
        for index in range(self._n_choices):
            yield self._event([ChatChunkChoice(index=index, delta=Delta(role="assistant", content=""))])
        async for piece in self._answers.pieces():
            if (plain := self._plain(piece)) is not None:
                yield plain
                continue
            choice = ChatChunkChoice(
                index=piece.index,
                delta=Delta(content=piece.text) if piece.text or not piece.finish else Delta(),
                logprobs=self._thoughts(piece.logprobs) if piece.logprobs else None,
                finish_reason=piece.finish,
            )
            yield self._event([choice])
        if self._usage:
            yield self._event([], self._answers.usage(self._n_choices))
        yield "data: [DONE]\n\n"

    def _text_event(self, index: int, text: str) -> str:
        return self._event([ChatChunkChoice(index=index, delta=Delta(content=text))])

    def _event(self, choices: list[ChatChunkChoice], usage: Usage | None = None) -> str:
        chunk = ChatChunk(**self._head, choices=choices, usage=usage)
        body = chunk.model_dump(exclude={"usage"} if not self._usage else None)
        for choice in body["choices"]:  # what is not new is left out, but the reason is always there
            choice["delta"] = {name: value for name, value in choice["delta"].items() if value is not None}
        return f"data: {json.dumps(body, ensure_ascii=False)}\n\n"

    def _thoughts(self, thoughts: _Thoughts) -> ChatLogprobs | None:
        if not self._logprobs:
            return None
        tokenizer = self._answers.model.tokenizer
        content = [
            TokenLogprob(
                **_named(tokenizer, token, found.chosen),
                top_logprobs=[TopLogprob(**_named(tokenizer, other, value)) for other, value in found.top],
            )
            for token, found in thoughts
        ]
        return ChatLogprobs(content=content)


class Completions(_Reply):
    """Replies to ``/v1/completions``."""

    def __init__(self, body: CompletionRequest, answers: Answers) -> None:
        super().__init__(body, answers, "cmpl", logprobs=body.logprobs is not None)
        self._echo = bool(body.echo)
        self._offsets = [0] * len(answers.tickets)

    async def whole(self) -> CompletionResponse:
        """Everything at once."""
        choices = [
            CompletionChoice(
                index=index,
                text=self._before(index) + "".join(piece.text for piece in pieces),
                logprobs=self._thoughts(index, [thought for piece in pieces for thought in piece.logprobs]),
                finish_reason=pieces[-1].finish,
            )
            for index, pieces in enumerate(await _collect(self._answers))
        ]
        return CompletionResponse(**self._head, choices=choices, usage=self._answers.usage(self._n_choices))

    async def events(self) -> AsyncIterator[str]:
        """Server-sent events."""
        if self._echo:
            for index in range(len(self._answers.tickets)):
                yield self._event([CompletionChoice(index=index, text=self._before(index))])
        async for piece in self._answers.pieces():
            if (plain := self._plain(piece)) is not None:
                yield plain
                continue
            logprobs = self._thoughts(piece.index, piece.logprobs)
            choice = CompletionChoice(index=piece.index, text=piece.text, logprobs=logprobs, finish_reason=piece.finish)
            yield self._event([choice])
        if self._usage:
            yield self._event([], self._answers.usage(self._n_choices))
        yield "data: [DONE]\n\n"

    def _text_event(self, index: int, text: str) -> str:
        return self._event([CompletionChoice(index=index, text=text)])

    def _event(self, choices: list[CompletionChoice], usage: Usage | None = None) -> str:
        chunk = CompletionResponse(**self._head, choices=choices, usage=usage)
        body = chunk.model_dump(exclude={"usage"} if not self._usage else None)
        return f"data: {json.dumps(body, ensure_ascii=False)}\n\n"

    def _before(self, index: int) -> str:
        """The prompt, if it is to be repeated."""
        return self._answers.model.tokenizer.decode(self._answers.tickets[index].request.prompt) if self._echo else ""

    def _thoughts(self, index: int, thoughts: _Thoughts) -> CompletionLogprobs | None:
        if not self._logprobs:
            return None
        tokenizer = self._answers.model.tokenizer
        texts = [_key(tokenizer, token) for token, _ in thoughts]
        offsets = []
        for text in texts:
            offsets.append(self._offsets[index])
            self._offsets[index] += len(text)
        return CompletionLogprobs(
            tokens=texts,
            token_logprobs=[found.chosen for _, found in thoughts],
            top_logprobs=[
                {_key(tokenizer, other): value for other, value in (*found.top, (token, found.chosen))}
                for token, found in thoughts
            ],
            text_offset=offsets,
        )


def reply_to(body: ChatRequest | CompletionRequest, answers: Answers) -> Chat | Completions:
    """In the form that the request asks for."""
    return Chat(body, answers) if isinstance(body, ChatRequest) else Completions(body, answers)


async def told(events: AsyncIterator[str]) -> AsyncIterator[str]:
    """The events; what goes wrong on the way is an event too, because the status has been sent."""
    try:
        async for event in events:
            yield event
    except LumiError as error:
        yield f"data: {json.dumps(failure(error).body)}\n\n"
    except Exception as error:
        log.exception("a stream failed")
        yield f"data: {json.dumps(failure(error).body)}\n\n"


def failure(error: Exception) -> ApiError:
    """An answer that could not be made: the client learns that, and nothing of the inside."""
    if isinstance(error, Stopping):
        return ApiError(503, error.found, code="draining", retry_after_seconds=5)
    if isinstance(error, ConfigError):  # what runs the model does not have that setting
        return ApiError(400, str(error), code="unsupported")
    number = uuid.uuid4().hex[:12]
    log.error("answer %s failed: %s", number, error)
    return ApiError(
        500, f"this answer could not be made; the server's log knows it as {number}", code="generation_failed"
    )


async def _collect(answers: Answers) -> list[list[Piece]]:
    found: list[list[Piece]] = [[] for _ in answers.tickets]
    async for piece in answers.whole():
        found[piece.index].append(piece)
    return found


def _named(tokenizer: Tokenizer, token: int, logprob: float) -> dict[str, Any]:
    return {"token": _text(tokenizer, token), "logprob": logprob, "bytes": list(tokenizer.decode_bytes([token]))}


def _text(tokenizer: Tokenizer, token: int) -> str:
    """A control token by name, part of a character as U+FFFD."""
    return tokenizer.decode([token], skip_control=False)


def _key(tokenizer: Tokenizer, token: int) -> str:
    """The same for a form in which tokens are keys: part of a character by its bytes, as OpenAI writes it."""
    text = _text(tokenizer, token)
    return text if "\ufffd" not in text else "bytes:" + "".join(f"\\x{b:02x}" for b in tokenizer.decode_bytes([token]))
