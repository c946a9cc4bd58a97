"""A server that speaks Lumi's interface and says what a test tells it to: the page is tested without a model."""

import asyncio
import contextlib
import json
import mimetypes
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

import lumi

PAGE = Path(lumi.__file__).parent / "serve" / "page"
POLICY = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:"


def model(name: str, *, chat: bool = True, parameters: int = 913_408) -> dict[str, Any]:
    about = {"id": name, "object": "model", "created": 0, "owned_by": "lumi", "max_model_len": 256, "chat": chat}
    return {**about, "template": "chatml" if chat else None, "default_system": None, "parameters": parameters}


class FakeServer:
    """What it answers is set on the instance; `posts` is what it was asked."""

    def __init__(self) -> None:
        self.reset()
        paths = {"/v1/chat/completions": self._answer, "/v1/completions": self._answer, "/v1/preferences": self._prefer}
        routes = [Route("/v1/models", self._models), *(Route(p, f, methods=["POST"]) for p, f in paths.items())]
        routes += [Route("/", self._page), Route("/page/{name}", self._page)]
        self.app = Starlette(routes=routes)
        self.address = ""

    def reset(self) -> None:
        self.models = [model("demo")]
        self.saves_pairs = True
        self.pieces: list[str] | dict[str, list[str]] = ["Hello", " there", "."]  # or by the name of a model
        self.gap_seconds = 0.0
        self.finish: str | None = "stop"
        self.key: str | None = None
        self.failures: list[Response | dict[str, Any]] = []  # the next answers; a dict comes in mid-stream
        self.posts: list[tuple[str, dict[str, Any]]] = []
        self.hung_up = threading.Event()

    @property
    def bodies(self) -> list[dict[str, Any]]:
        """What was asked for answers, without pairs."""
        return [body for path, body in self.posts if path != "/v1/preferences"]

    @property
    def pairs(self) -> list[dict[str, Any]]:
        return [body for path, body in self.posts if path == "/v1/preferences"]

    @contextlib.contextmanager
    def running(self) -> Iterator["FakeServer"]:
        with socket.socket(proto=socket.IPPROTO_TCP) as listener:  # else asyncio leaves Nagle's delay on
            listener.bind(("127.0.0.1", 0))
            self.address = f"http://127.0.0.1:{listener.getsockname()[1]}"
            server = uvicorn.Server(uvicorn.Config(self.app, log_level="warning", timeout_graceful_shutdown=1))
            thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
            thread.start()
            while not server.started:
                time.sleep(0.01)
            yield self
            server.should_exit = True
            thread.join(5)

    async def _page(self, request: Request) -> Response:
        name = request.path_params.get("name", "index.html")
        headers = {"Content-Security-Policy": POLICY, "X-Content-Type-Options": "nosniff"}
        return Response((PAGE / name).read_bytes(), headers=headers, media_type=mimetypes.guess_type(name)[0])

    def _refusal(self, request: Request) -> Response | None:
        if self.key is not None and request.headers.get("authorization") != f"Bearer {self.key}":
            return error(401, "A key is needed.", "invalid_api_key")
        failure = self.failures[0] if self.failures and request.method == "POST" else None
        if not isinstance(failure, Response):
            return None
        self.failures.pop(0)
        return failure

    async def _models(self, request: Request) -> Response:
        listing = {"object": "list", "data": self.models, "preferences": self.saves_pairs}
        return self._refusal(request) or JSONResponse(listing)

    async def _prefer(self, request: Request) -> Response:
        self.posts.append((request.url.path, await request.json()))
        return self._refusal(request) or JSONResponse({"saved": True, "count": len(self.pairs)}, 201)

    async def _answer(self, request: Request) -> Response:
        body = await request.json()
        self.posts.append((request.url.path, body))
        stream = self._stream(body, chat=request.url.path.startswith("/v1/chat"))
        return self._refusal(request) or StreamingResponse(stream, media_type="text/event-stream")

    async def _stream(self, body: dict[str, Any], *, chat: bool) -> AsyncIterator[str]:
        pieces = self.pieces[body["model"]] if isinstance(self.pieces, dict) else self.pieces
        told = len(json.dumps(body.get("messages", body.get("prompt")))) // 5  # about a token each
        try:
            for piece in pieces:
                yield event({"choices": [{"index": 0, **said(piece, chat=chat), "finish_reason": None}], "usage": None})
                await asyncio.sleep(self.gap_seconds)
        except asyncio.CancelledError:
            self.hung_up.set()
            raise
        if self.failures:
            yield event(self.failures.pop(0))
            return
        usage = {"prompt_tokens": told, "completion_tokens": len(pieces), "total_tokens": told + len(pieces)}
        yield event({"choices": [{"index": 0, **said("", chat=chat), "finish_reason": self.finish}], "usage": None})
        yield event({"choices": [], "usage": usage})
        yield "data: [DONE]\n\n"


def said(text: str, *, chat: bool) -> dict[str, Any]:
    return {"delta": {"content": text}} if chat else {"text": text}


def event(data: Any) -> str:
    return f"data: {json.dumps(data)}\n\n"


def error(status: int, message: str, code: str, **headers: str) -> Response:
    content = {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": code}}
    return JSONResponse(content, status, {name.replace("_", "-"): value for name, value in headers.items()})
