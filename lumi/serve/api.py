"""The HTTP API: OpenAI's routes over the models that are served, and the page."""

import asyncio
import contextlib
import functools
import json
import logging
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from lumi.errors import LumiError
from lumi.generate import Request as Prompt
from lumi.provenance import made_by
from lumi.serve import protocol
from lumi.serve.answers import Answers
from lumi.serve.errors import ApiError, from_validation
from lumi.serve.metrics import Metrics
from lumi.serve.models import ServedModel, turns_of
from lumi.serve.openapi import described
from lumi.serve.protocol import ChatRequest, CompletionRequest, ErrorResponse, Generation, Health, ModelCard, ModelList
from lumi.serve.replies import failure, reply_to, told
from lumi.serve.scheduler import QueueFull
from lumi.tokenizer.template import check_roles

log = logging.getLogger(__name__)

PAGE = Path(__file__).parent / "page"
OPEN_PATHS = ("/", "/page/", "/health")
_PAGE_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
_KINDS = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorResponse} for status in (400, 401, 403, 404, 405, 408, 413, 415, 429, 431, 500, 503)
}
_EVENT = {
    "type": "object",
    "properties": {"data": {"type": "string", "description": "A chunk as JSON, at last [DONE]; or an error as JSON."}},
    "required": ["data"],
}
_STREAM: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/event-stream": {"schema": _EVENT}}, "description": "The answer, or its events."}
}
_CODES = {400: "invalid_json", 404: "not_found", 405: "method_not_allowed"}
"""What the framework itself refuses."""
FIELDS = {
    name
    for model in (
        ChatRequest, CompletionRequest, protocol.Preference, protocol.ChatMessage, protocol.TextPart,
        protocol.StreamOptions, protocol.ResponseFormat,
    )
    for name in model.model_fields
}  # fmt: skip

_SHORT_BYTES = 2000

T = TypeVar("T")


class Service:
    """What the routes share.

    Args:
        models: at least one; the first answers who names none.
        metrics: of the server.
        preferences: file that pairs are appended to, or None.
    """

    def __init__(self, models: Sequence[ServedModel], metrics: Metrics, preferences: Path | None) -> None:
        self.models = {model.name: model for model in models}
        self.metrics, self.preferences = metrics, preferences
        self.draining = False
        self._file = threading.Lock()
        for model in models:
            metrics.watch(model.name, lambda m=model: m.scheduler.n_running, lambda m=model: m.scheduler.n_waiting)

    def find(self, name: str | None) -> ServedModel:
        """The model of that name.

        Raises:
            ApiError: there is none.
        """
        if name is None:
            return next(iter(self.models.values()))
        if name not in self.models:
            known = ", ".join(self.models)
            raise ApiError(404, f"there is no such model; served: {known}", param="model", code="model_not_found")
        return self.models[name]

    def submit(self, model: ServedModel, requests: list[Prompt], body: Generation) -> Answers:
        """Have requests answered.

        Raises:
            ApiError: the server stops, or too many wait.
        """
        if self.draining:
            raise ApiError(503, "the server is about to stop", code="draining", retry_after_seconds=10)
        if len(requests) > model.scheduler.capacity:
            raise ApiError(
                400,
                f"{len(requests)} answers at once: this server holds {model.scheduler.capacity} (prompts times n)",
                param="n",
                code="too_many_answers",
            )
        if not model.scheduler.alive:
            raise ApiError(503, "the model has stopped; the server's log says why", code="unavailable")
        try:
            tickets = model.scheduler.submit(requests)
        except QueueFull:
            raise ApiError(429, "too many requests wait", code="queue_full", retry_after_seconds=2) from None
        self.metrics.prompt_tokens.labels(model.name).inc(sum(len(request.prompt) for request in requests))
        return Answers(model, tickets, body.stops, chat=isinstance(body, ChatRequest))

    def health(self) -> JSONResponse:
        """Whether requests are taken; any thread may ask."""
        schedulers = [model.scheduler for model in self.models.values()]
        state = Health(
            status="draining" if self.draining else "ok",
            running=sum(scheduler.n_running for scheduler in schedulers),
            waiting=sum(scheduler.n_waiting for scheduler in schedulers),
        )
        well = not self.draining and all(scheduler.alive for scheduler in schedulers)
        return JSONResponse(state.model_dump(), status_code=200 if well else 503)

    def save(self, pair: protocol.Preference) -> int:
        """Append a pair, as a row that ``stage=dpo`` reads; returns how many the file holds.

        Raises:
            ApiError: pairs are not kept here, or are none.
        """
        if self.preferences is None:
            raise ApiError(404, "pairs are not kept: start the server with preferences=PATH", code="no_preferences")
        turns = turns_of(pair.messages)
        try:
            check_roles(turns)
        except LumiError as error:
            raise ApiError(400, str(error), param="messages", code="roles") from None
        if turns[-1].role != "user":
            raise ApiError(400, "must end with a user's turn", param="messages", code="roles")
        if pair.chosen == pair.rejected:
            raise ApiError(400, "both answers are the same", param="rejected", code="same_answers")
        row = {
            "prompt": [{"role": turn.role, "content": turn.content} for turn in turns],
            "chosen": pair.chosen,
            "rejected": pair.rejected,
            **pair.model_dump(include={"models", "seed", "sampling"}, exclude_none=True),
            "made_from": self._weights(pair.models),
            "made_by": made_by(),
        }
        with self._file:
            self.preferences.parent.mkdir(parents=True, exist_ok=True)
            with self.preferences.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
            with self.preferences.open("rb") as file:
                return sum(1 for _ in file)

    def _weights(self, models: Mapping[Any, str] | None) -> dict[str, str]:
        """chosen, rejected → fingerprint of the weights that wrote that answer, of the models that are served here."""
        written = {side: self.models[name] for side, name in (models or {}).items() if name in self.models}
        return {side: model.fingerprint for side, model in written.items()}


def create_app(service: Service) -> FastAPI:
    """The application, without its guard (`lumi.serve.guard`)."""
    app = FastAPI(
        title="Lumi",
        version="1",
        docs_url=None,
        redoc_url=None,
        lifespan=_lifespan,
        responses=_ERRORS,
        dependencies=[Depends(_only_json)],
    )
    app.state.service = service
    _add_generation(app, service)
    _add_information(app, service)
    _add_page(app)
    app.openapi = functools.partial(_described, app, service)
    app.add_exception_handler(ApiError, _on_api_error)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(Exception, _on_unforeseen)
    return app


def _described(app: FastAPI, service: Service) -> dict[str, Any]:
    if app.openapi_schema is None:
        talking = [model.name for model in service.models.values() if model.template is not None]
        app.openapi_schema = described(app, talking=talking, known=list(service.models))
    return app.openapi_schema


def _add_generation(app: FastAPI, service: Service) -> None:
    @app.post("/v1/chat/completions", response_model=protocol.ChatResponse, responses=_STREAM)
    async def chat(body: ChatRequest, request: Request) -> Any:
        """Answer a conversation."""
        return await _answer(service, body, request)

    @app.post("/v1/completions", response_model=protocol.CompletionResponse, responses=_STREAM)
    async def completions(body: CompletionRequest, request: Request) -> Any:
        """Go on with a text, or with several."""
        return await _answer(service, body, request)


async def _answer(service: Service, body: ChatRequest | CompletionRequest, request: Request) -> Any:
    model = service.find(body.model)
    requests = await _prepared(lambda: model.requests(body), request)
    answers = service.submit(model, requests, body)
    reply = reply_to(body, answers)
    if body.stream:
        return _Stream(reply.events(), answers, service)
    return await _whole(reply.whole, answers, request, service)


def _add_information(app: FastAPI, service: Service) -> None:
    @app.get("/v1/models")
    async def models() -> ModelList:
        """What is served."""
        return ModelList(data=[m.card for m in service.models.values()], preferences=service.preferences is not None)

    @app.get("/v1/models/{name:path}")
    async def model(name: str) -> ModelCard:
        """One of them."""
        return service.find(name).card

    @app.post("/v1/preferences", status_code=201)
    async def preferences(body: protocol.Preference) -> protocol.PreferenceSaved:
        """Keep which of two answers was better."""
        return protocol.PreferenceSaved(count=await asyncio.to_thread(service.save, body))

    @app.get("/health", responses={503: {"model": Health | ErrorResponse}})
    async def health() -> Any:
        """Whether requests are taken."""
        return service.health()

    @app.get(
        "/metrics",
        response_class=Response,
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
    )
    async def metrics() -> Response:
        """Counters for Prometheus."""
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _add_page(app: FastAPI) -> None:
    files = {path.name: path for path in sorted(PAGE.iterdir()) if path.suffix in _KINDS}

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        """The page."""
        return _file(files["index.html"])

    @app.get("/page/{name}", include_in_schema=False)
    async def part(name: str) -> FileResponse:
        """What it is made of; nothing else can be asked for, whatever the name."""
        if name not in files:
            raise ApiError(404, "there is nothing here", code="not_found")
        return _file(files[name])


def _file(path: Path) -> FileResponse:
    return FileResponse(path, media_type=_KINDS[path.suffix], headers=_PAGE_HEADERS)


async def _prepared(make: Callable[[], list[Prompt]], request: Request) -> list[Prompt]:
    """Encode; a long prompt in a thread, because it takes milliseconds in which nobody else would be heard."""
    return make() if len(await request.body()) < _SHORT_BYTES else await asyncio.to_thread(make)


async def _only_json(request: Request) -> None:
    """A page of another site can send other kinds without asking; none is parsed as JSON, and none goes further."""
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if request.method == "POST" and kind != "application/json":
        raise ApiError(415, "the body must be JSON, with Content-Type: application/json", code="not_json")


class _Stream(StreamingResponse):
    """Events; at the end, however it comes, and if none was sent, the answers are released."""

    def __init__(self, events: AsyncIterator[str], answers: Answers, service: Service) -> None:
        headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        super().__init__(told(events), media_type="text/event-stream", headers=headers)
        self._answers, self._service = answers, service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._answers.release()
            _count(self._answers, self._service)


async def _whole(make: Callable[[], Awaitable[T]], answers: Answers, request: Request, service: Service) -> T:
    """An answer in one piece; a client that has gone is not waited for."""
    task = asyncio.ensure_future(make())
    gone = asyncio.create_task(_disconnected(request))
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ApiError(499, "the client has gone")
        return task.result()
    except LumiError as error:
        raise failure(error) from None
    finally:
        gone.cancel()
        task.cancel()
        answers.release()
        _count(answers, service)


def _count(answers: Answers, service: Service) -> None:
    n_tokens = sum(len(ticket.request.tokens) for ticket in answers.tickets)
    service.metrics.generated_tokens.labels(answers.model.name).inc(n_tokens)


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


@contextlib.asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    service: Service = app.state.service
    for model in service.models.values():
        model.scheduler.start()
    yield
    for model in service.models.values():
        model.scheduler.stop()


async def _on_api_error(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ApiError), "registered for it"
    return error.response()


async def _on_invalid(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError), "registered for it"
    return from_validation(error.errors(), FIELDS).response()


async def _on_http(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException), "registered for it"
    response = ApiError(error.status_code, str(error.detail), code=_CODES.get(error.status_code)).response()
    response.headers.update(error.headers or {})
    return response


async def _on_unforeseen(_: Request, error: Exception) -> JSONResponse:
    log.error("a request failed", exc_info=error)
    return ApiError(500, "something went wrong here; the server's log says more", code="internal").response()
