"""``serve.py`` in a process of its own, and the signals that stop it."""

import json
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from lumi.errors import ResourceError
from lumi.serve.server import listen
from lumi.serve.settings import ServerSettings

from .live import Child, raw, read_all, save_model, status_of

PATH = "/v1/chat/completions"
DRAIN_SECONDS = 1.0
MARGIN_SECONDS = 2.0
"""For a process to end on a busy machine: torch's threads and the interpreter's own end take a while there."""
LONG = {"messages": [{"role": "user", "content": "mu"}], "max_tokens": 4000, "min_tokens": 4000, "temperature": 0}


@pytest.fixture(scope="session")
def model_folder(live_parts: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with a long context, so that an answer takes longer than the server waits for it."""
    return save_model(live_parts[0], tmp_path_factory.mktemp("model") / "tiny", max_seq_len=8192)


@pytest.fixture(scope="module")
def started(model_folder: Path) -> Iterator[dict[str, Child]]:
    """All processes of this file, side by side."""
    seconds = {"terminated": DRAIN_SECONDS, "interrupted": DRAIN_SECONDS, "busy": DRAIN_SECONDS, "patient": 30}
    children = {
        name: Child(model_folder, f"server.drain_seconds={each}", "server.preferences=null")
        for name, each in seconds.items()
    }
    yield children
    for child in children.values():
        child.kill()


@pytest.fixture
def child(started: dict[str, Child], request: pytest.FixtureRequest) -> Child:
    """The one that the test names, when it listens."""
    started[request.param].wait_until_it_listens()
    return started[request.param]


def is_free(port: int) -> bool:
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        return other.connect_ex(("127.0.0.1", port)) != 0 and other.bind(("127.0.0.1", port)) is None


def begin_answer(child: Child, **change: Any) -> socket.socket:
    """Ask for a long answer; returns when it is on its way."""
    connection = socket.create_connection(("127.0.0.1", child.port), timeout=30)
    connection.sendall(raw(PATH, {**LONG, **change}))
    while httpx.get(f"{child.address}/health").json()["running"] == 0:
        time.sleep(0.01)
    return connection


@pytest.mark.parametrize(
    ("child", "number", "code"),
    [("terminated", signal.SIGTERM, -signal.SIGTERM), ("interrupted", signal.SIGINT, 130)],
    indirect=["child"],
)
def test_a_signal_ends_an_idle_server_within_a_second(child, number, code):
    assert httpx.get(f"{child.address}/v1/models").json()["data"][0]["id"] == "tiny"
    child.signal(number)
    found, seconds = child.ended()
    assert found == code
    assert seconds < 1 + MARGIN_SECONDS
    assert is_free(child.port)
    assert "Traceback" not in child.log


@pytest.mark.parametrize("child", ["busy"], indirect=True)
def test_running_answers_have_their_time_then_end_with_an_error(child):
    stream, whole = begin_answer(child, stream=True), begin_answer(child)
    child.signal(signal.SIGTERM)
    time.sleep(DRAIN_SECONDS / 2)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", child.port))
    assert child.process.poll() is None
    child.signal(signal.SIGTERM)  # again changes nothing
    events = [line for line in read_all(stream).decode().split("\n") if line.startswith("data: ")]
    reply = read_all(whole)
    assert len(events) > 10
    assert json.loads(events[-1].removeprefix("data: "))["error"]["code"] == "draining"
    assert (status_of(reply), b"retry-after: 5" in reply.lower()) == (503, True)
    code, seconds = child.ended()
    assert code == -signal.SIGTERM
    assert DRAIN_SECONDS <= seconds < DRAIN_SECONDS + 1 + MARGIN_SECONDS
    assert is_free(child.port)


@pytest.mark.parametrize("child", ["patient"], indirect=True)
def test_an_answer_that_ends_in_time_is_whole(child):
    connection = begin_answer(child, max_tokens=300, min_tokens=300)
    child.signal(signal.SIGTERM)
    reply = read_all(connection)
    assert json.loads(reply.partition(b"\r\n\r\n")[2])["usage"]["completion_tokens"] == 300
    code, seconds = child.ended()
    assert code == -signal.SIGTERM
    assert seconds < 20  # it did not wait for the end of its patience


def test_a_port_that_is_taken_is_said_plainly():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ResourceError, match=f"server.port={port} · cannot be used"):
            listen(ServerSettings(port=port))
