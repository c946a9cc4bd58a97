"""What a model says is text: nothing in it is markup, a link or a script, and no request leaves for another host."""

import re
from collections.abc import Callable
from typing import Any

import pytest

from tests.faults.ledger import Report

from .fake_server import PAGE, FakeServer, error, model

pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install lumi[dev]")
from playwright.sync_api import Page, expect

from .page_steps import ask

Open = Callable[..., Page]

HOSTILE = [
    "<script>window.hit = 1</script>",
    "<SCRIPT SRC=https://evil.example/x.js></SCRIPT>",
    "<img src=x onerror='window.hit = 1'>",
    "<img src='https://evil.example/pixel.png'>",
    "<svg onload='window.hit = 1'></svg>",
    "<svg><script>window.hit = 1</script></svg>",
    "<iframe src='javascript:parent.hit = 1'></iframe>",
    "<iframe srcdoc='<script>parent.hit = 1</script>'></iframe>",
    "<body onload='window.hit = 1'>",
    "<a href='javascript:window.hit = 1'>press</a>",
    "[press](javascript:window.hit=1)",
    "![pixel](https://evil.example/pixel.png)",
    "<https://evil.example/> https://evil.example/",
    "<details open ontoggle='window.hit = 1'>x</details>",
    "<input autofocus onfocus='window.hit = 1'>",
    "<style>body { display: none }</style>",
    "<style>@import 'https://evil.example/x.css';</style>",
    "<link rel=stylesheet href=https://evil.example/x.css>",
    "<meta http-equiv=refresh content='0;url=https://evil.example/'>",
    "<base href=https://evil.example/>",
    "<form action=https://evil.example/><button>go</button></form>",
    "<object data='javascript:window.hit = 1'></object>",
    "<math><mtext><img src=x onerror='window.hit = 1'></mtext></math>",
    "</span></div></article></main><script>window.hit = 1</script>",
    "&lt;script&gt;window.hit = 1&lt;/script&gt; &amp; &#60;b&#62;",
    "{{constructor.constructor('window.hit = 1')()}} ${window.hit = 1}",
    "javascript:window.hit=1",
    "\u202egnp.exe\u202c and \u2066hidden\u2069",
    "\x1b[31mred\x1b[0m \x1b]8;;https://evil.example\x07link\x1b]8;;\x07",
    "```html\n<script>window.hit = 1</script>\n``` <!-- --> <![CDATA[ x ]]>",
]


@pytest.mark.matrix("S11")
def test_hostile_answers_are_shown_as_text_and_run_nothing(page_server: FakeServer, page_open: Open, row: Report):
    page = page_open(accept_downloads=False)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("dialog", lambda dialog: pytest.fail(f"a dialog opened: {dialog.message}"))
    for payload in HOSTILE:
        page_server.pieces = [payload[:5], payload[5:]]
        ask(page, payload)
    shown = page.locator(".written").evaluate_all("all => all.map(one => one.textContent)")
    elements = page.locator("#thread .text *:not(span.written)").count()
    assert shown == HOSTILE
    assert page.locator(".said .text").evaluate_all("all => all.map(one => one.textContent)") == HOSTILE
    assert (page.evaluate("window.hit ?? null"), elements, page.locator("#thread a").count()) == (None, 0, 0)
    assert {url.removeprefix(page_server.address) for url in asked} == {"/v1/chat/completions"}
    row(trials=len(HOSTILE), note="in a headless Chromium")


def test_hostile_names_and_errors_are_text_too(page_server: FakeServer, page_open: Open):
    bad = "<img src=x onerror='window.hit = 1'>"
    page_server.models = [model(bad) | {"template": bad, "default_system": bad}]
    page_server.failures = [error(400, bad, bad)]
    page = page_open()
    expect(page.locator("#empty-title")).to_have_text(f"Chat with {bad}")
    ask(page, "Hi")
    expect(page.locator(".error .detail")).to_have_text(bad)
    assert page.evaluate("window.hit ?? null") is None
    assert page.locator("main img, aside img, dialog img").count() == 0


def test_every_request_of_the_page_goes_to_its_own_server(page_server: FakeServer, page_browser: Any):
    with page_browser.new_context() as context:
        asked: list[str] = []
        context.on("request", lambda request: asked.append(request.url))
        page = context.new_page()
        page.goto(page_server.address)
        ask(page, "Hi")
    assert len(asked) > 10
    assert all(url.startswith(page_server.address) for url in asked)


def test_the_files_hold_no_inline_script_or_style_and_nothing_that_parses_text():
    html = (PAGE / "index.html").read_text()
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]* src=\"/page/)|https?://", html)
    sinks = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|createContextualFragment"
    sinks += r"|\beval\(|new Function|\.srcdoc"
    for script in PAGE.glob("*.js"):
        assert not re.search(sinks, script.read_text()), script.name


def test_the_files_stay_small_enough_to_read():
    assert {file.name for file in PAGE.iterdir() if len(file.read_text().splitlines()) > 400} == set()


def test_every_module_is_named_in_the_page_so_that_all_are_fetched_at_once():
    named = re.findall(r'"/page/(\w+)\.js"', (PAGE / "index.html").read_text())
    assert sorted(named) == sorted(script.stem for script in PAGE.glob("*.js"))
