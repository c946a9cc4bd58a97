"""A browser without a window, and a fake server that it talks to."""

import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from .fake_server import FakeServer, model
from .live import Live, make_decoder, make_tokenizer, running

BROWSERS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="module")
def page_browser() -> Iterator[Any]:
    """A Chromium of this machine; none is downloaded. It ends with the module: while it runs, so does its event loop."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install lumi[dev]")
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip(f"none of {', '.join(BROWSERS)} is installed")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def page_running_server() -> Iterator[FakeServer]:
    with FakeServer().running() as server:
        yield server


@pytest.fixture
def page_server(page_running_server: FakeServer) -> FakeServer:
    """The fake server as it is by default."""
    page_running_server.reset()
    return page_running_server


@pytest.fixture
def page_two_models(page_server: FakeServer) -> FakeServer:
    """Two chat models that answer differently."""
    page_server.models = [model("left"), model("right")]
    page_server.pieces = {"left": ["Left", " answer"], "right": ["Right", " answer"]}
    return page_server


@pytest.fixture
def page_open(page_browser: Any, page_server: FakeServer) -> Iterator[Callable[..., Any]]:
    """``page_open(color_scheme="dark")``: the page in a fresh profile; errors in its console fail the test."""
    contexts = []
    problems: list[str] = []

    def open_page(**settings: Any) -> Any:
        context = page_browser.new_context(**settings)
        contexts.append(context)
        context.set_default_timeout(5000)
        page = context.new_page()
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
        page.goto(page_server.address)
        return page

    yield open_page
    for context in contexts:
        context.close()
    # a refused request is in the console whatever the page does with it
    assert [one for one in problems if "Failed to load resource" not in one] == []


@pytest.fixture(scope="session")
def live_parts(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    """A tokenizer and a random decoder, for servers over real HTTP."""
    return make_tokenizer(tmp_path_factory.mktemp("live") / "tokenizer"), make_decoder()


@pytest.fixture(scope="session")
def live_server(live_parts: tuple[Any, Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with running(*live_parts, preferences=tmp_path_factory.mktemp("pairs") / "pairs.jsonl") as live:
        yield live


@pytest.fixture
def live(live_server: Live) -> Iterator[Live]:
    """The server of the session, with nothing to do, before and after."""
    live_server.wait_until_idle()
    live_server.faulty.reset()
    yield live_server
    live_server.faulty.step_seconds = 0.0
    live_server.wait_until_idle()
