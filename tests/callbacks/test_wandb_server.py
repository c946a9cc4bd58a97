"""A W&B server that refuses, hangs, fails or takes no key: the run neither stops nor waits, and its files are complete."""

import contextlib
import json
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig

from lumi.callbacks import Workspace, read_metrics
from lumi.errors import DataError
from lumi.run import train
from tests.faults.ledger import Report

from .wandb_records import OfflineRun

KEY = "0123456789abcdef0123456789abcdef01234567"
PATIENCE = 1.0

Mode = str  # refuses, hangs, fails, revoked, hangs_later


class FakeServer(ThreadingHTTPServer):
    """As little of W&B as a client needs to open a run, and what can go wrong."""

    daemon_threads = True

    def __init__(self, mode: Mode) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.mode, self.ends, self.opened = mode, threading.Event(), threading.Event()


class Handler(BaseHTTPRequestHandler):
    server: FakeServer  # pyright: ignore[reportIncompatibleVariableOverride]

    def log_message(self, format: str, *_: Any) -> None:  # noqa: A002  # the name is inherited
        """Quietly."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        mode = self.server.mode
        if mode == "fails":
            return self.answer(500, {"error": "planned"})
        if mode == "revoked":
            return self.answer(401, {"errors": [{"message": "user is not logged in"}]})
        query = json.loads(body)["query"] if self.path == "/graphql" and mode == "hangs_later" else ""
        if "RunResumeStatus" in query:
            return self.answer(200, {"data": {"model": None}})
        if "UpsertBucket" in query and not self.server.opened.is_set():
            self.server.opened.set()
            project = {"id": "p", "name": "lumi", "entity": {"id": "e", "name": "me"}}
            bucket = {"id": "b", "name": "run", "displayName": "run", "project": project, "historyLineCount": 0}
            return self.answer(200, {"data": {"upsertBucket": {"bucket": bucket, "inserted": True}}})
        self.server.ends.wait(60)
        return None

    def answer(self, code: int, what: dict[str, Any]) -> None:
        text = json.dumps(what).encode()
        self.send_response(code)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)


@contextlib.contextmanager
def fake(mode: Mode) -> Iterator[tuple[str, FakeServer | None]]:
    """Address of a server that behaves like this."""
    if mode == "refuses":
        with socket.socket() as held:  # bound and not listening: connections are refused
            held.bind(("127.0.0.1", 0))
            yield f"http://127.0.0.1:{held.getsockname()[1]}", None
        return
    server = FakeServer(mode)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", server
    server.ends.set()
    server.shutdown()
    server.server_close()


@pytest.fixture
def at_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Mode], FakeServer | None]]:
    """``at_server("hangs")``: the client has a key and talks to such a server."""
    import wandb

    with contextlib.ExitStack() as stack:

        def begin(mode: Mode) -> FakeServer | None:
            address, found = stack.enter_context(fake(mode))
            monkeypatch.setenv("WANDB_BASE_URL", address)
            monkeypatch.setenv("WANDB_API_KEY", KEY)
            wandb.teardown()  # what it knows of the environment
            return found

        yield begin
    wandb.teardown()


@pytest.mark.matrix("T9")
@pytest.mark.usefixtures("logged_run")  # its data are prepared
@pytest.mark.parametrize("mode", ["refuses", "hangs", "fails", "revoked", "hangs_later"])
def test_a_bad_server_neither_stops_nor_delays_a_run(
    mode: Mode,
    at_server: Callable[[Mode], FakeServer | None],
    run_config: Callable[..., DictConfig],
    tmp_path: Path,
    row: Report,
    caplog: pytest.LogCaptureFixture,
) -> None:
    answering = at_server(mode)
    begin = time.monotonic()
    with caplog.at_level(logging.WARNING, logger="lumi"):
        train(run_config("budget.steps=4", "logger=wandb", f"logger.wandb.patience_seconds={PATIENCE}"))
    assert time.monotonic() - begin < 20  # two patiences and five seconds, on a busy machine
    rows = read_metrics(tmp_path / "run" / "metrics.csv")
    assert sorted(rows) == [1, 2, 3, 4]
    assert rows[4]["perf/seconds"] < PATIENCE  # nothing of the waiting is in the training
    assert json.loads((tmp_path / "run" / "run.json").read_bytes())["status"] == "finished"
    if mode == "hangs_later":
        assert answering is not None
        row(trials=1, failures=int(not answering.opened.is_set()))
        return
    assert "logger=wandb: the server does not open a run" in caplog.text
    assert OfflineRun(tmp_path / "run").rows == rows
    leaks = [file for file in tmp_path.rglob("*") if file.is_file() and KEY.encode() in file.read_bytes()]
    row(trials=1, failures=len(leaks))


def test_a_workspace_that_is_not_taken_says_why(at_server: Callable[[Mode], FakeServer | None]) -> None:
    at_server("revoked")
    with pytest.raises(DataError, match="workspace=wandb: the server did not take it"):
        Workspace(entity="me").save()
