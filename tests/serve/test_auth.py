"""Who may ask: every route that the application has, with every method, and every wrong way to show a key."""

import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from fastapi.routing import APIRoute

from lumi.errors import ConfigError
from lumi.serve.api import PAGE
from lumi.serve.settings import ServerSettings

from .live import Live, raw, running, status_of

KEY = "correct-horse-battery-staple"
OPEN = {"/", "/health"} | {f"/page/{path.name}" for path in PAGE.iterdir()}
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE", "CONNECT", "BREW")
EXAMPLES = {"/page/{name}": "/page/app.js", "/v1/models/{name:path}": "/v1/models/chat"}


@pytest.fixture(scope="module")
def guarded(live_parts: Any) -> Iterator[Live]:
    with running(*live_parts, api_key=KEY) as live:
        yield live


@pytest.fixture(scope="module")
def routes(guarded: Live) -> set[tuple[str, str]]:
    """(method, path) of everything that the application answers."""
    guard: Any = guarded.server.config.app
    return {
        (method, EXAMPLES.get(route.path, route.path))
        for route in guard.app.routes
        for method in ((route.methods or set()) if isinstance(route, APIRoute) else {"GET", "HEAD"})
    }


def status(live: Live, method: str, path: str, *headers: str) -> int:
    return status_of(live.exchange(raw(path, {"chosen": 1}, *headers, method=method)))


def test_every_route_of_the_application_is_one_that_this_file_knows(routes):
    assert {path for _, path in routes} == {
        "/", "/page/app.js", "/health", "/metrics", "/openapi.json", "/v1/models", "/v1/models/chat",
        "/v1/chat/completions", "/v1/completions", "/v1/preferences",
    }  # fmt: skip


@pytest.mark.matrix("S7")
def test_without_the_key_nothing_but_health_and_the_page_is_open(guarded, routes, row):
    paths = {path for _, path in routes} | {"/nothing", "/v1", "/docs", "/redoc", "//", "/health/", "/pages", "*"}
    found = {(method, path): status(guarded, method, path) for method in METHODS for path in paths}
    wrong = {asked: code for asked, code in found.items() if code not in ((200, 405) if asked[1] in OPEN else (401,))}
    row(trials=len(found), failures=len(wrong), note=f"{len(METHODS)} methods x {len(paths)} paths{wrong or ''}")


def test_with_the_key_every_route_answers(guarded, routes):
    for method, path in routes:
        assert status(guarded, method, path, f"Authorization: Bearer {KEY}") in (200, 400), path


WRONG = [
    "", "Bearer", "Bearer ", f"Bearer {KEY[:-1]}", f"Bearer {KEY}x", f"Bearer {KEY.upper()}", f"Bearer {KEY} {KEY}",
    f"Basic {KEY}", f"Token {KEY}", KEY, f"Bearer{KEY}", f"bearer: {KEY}", "Bearer ключ-ключ-ключ-ключ", "Bearer \u200b" + KEY,
    f'Bearer "{KEY}"', "Bearer null", f"Bearer {KEY},{KEY}",
]  # fmt: skip


@pytest.mark.matrix("S7")
def test_a_wrong_key_is_refused(guarded, row):
    head = raw("/v1/models", b"", "Authorization: @", method="GET")
    replies = {header: guarded.exchange(head.replace(b"@", header.encode())) for header in WRONG}
    told = {
        header for header, reply in replies.items() if status_of(reply) == 401 and b"www-authenticate: Bearer" in reply
    }
    wrong = set(WRONG) - told | {header for header, reply in replies.items() if KEY.encode() in reply}
    row(trials=len(WRONG), failures=len(wrong), note=f"wrong keys{wrong or ''}")


@pytest.mark.parametrize("header", [f"Bearer {KEY}", f"bearer {KEY}", f"BEARER  {KEY} "])
def test_the_right_key_is_taken(guarded, header):
    assert status(guarded, "GET", "/v1/models", f"Authorization: {header}") == 200


def test_a_key_of_any_characters_is_compared_by_its_bytes(live_parts):
    with running(*live_parts, api_key="пароль-пароль-пароль") as live:
        head = raw("/v1/models", b"", "Authorization: Bearer @", method="GET")
        assert status_of(live.exchange(head.replace(b"@", "пароль-пароль-пароль".encode()))) == 200
        assert status_of(live.exchange(head.replace(b"@", "пароль-пароль-паролЬ".encode()))) == 401


def test_neither_key_nor_path_in_the_url_opens_anything(guarded):
    for path in (f"/v1/models?api_key={KEY}", "/page/../v1/models", "/page/..%2fv1/models", "//health/../v1/models"):
        assert status(guarded, "GET", path) in (401, 404), path


def test_files_that_are_no_part_of_the_page_are_not_served(live):
    for name in (
        "..%2fapi.py",
        "%2e%2e%2fapi.py",
        "..",
        "%00",
        "app.js%00.html",
        "../api.py",
        "/etc/passwd",
        "__pycache__",
    ):
        assert status(live, "GET", f"/page/{name}") == 404, name


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "127.0.0.2", "[::2]", "0"]
)
def test_a_foreign_host_is_refused(live, host):
    head = raw("/v1/models", b"", method="GET").replace(b"Host: localhost", f"Host: {host}".encode())
    assert status_of(live.exchange(head)) == 403
    assert status_of(live.exchange(head.replace(b"\r\nConnection", b":80\r\nConnection", 1))) in (403, 400)


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1:80", "[::1]:8000", "[::1]"])
def test_names_of_this_machine_are_taken(live, host):
    head = raw("/v1/models", b"", method="GET").replace(b"Host: localhost", f"Host: {host}".encode())
    assert status_of(live.exchange(head)) == 200


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://localhost.evil.example", "http://localhost:1", "x"]
)
def test_a_page_of_another_site_is_refused(live, origin):
    assert status(live, "GET", "/v1/models", f"Origin: {origin}") == 403
    assert status(live, "POST", "/v1/preferences", f"Origin: {origin}") == 403
    assert b"access-control-allow" not in live.exchange(raw("/v1/models", b"", f"Origin: {origin}", method="OPTIONS"))


def test_the_servers_own_page_may_ask(live):
    own = httpx.get(f"{live.address}/v1/models", headers={"Origin": live.address})
    assert own.status_code == 200


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "", "application/jsonx"]
)
def test_what_a_form_of_another_site_could_send_is_not_parsed(live, kind):
    body = {"model": "chat", "messages": [{"role": "user", "content": "mu"}]}
    assert status_of(live.exchange(raw("/v1/chat/completions", body, f"Content-Type: {kind}"))) == 415


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "::", "192.168.1.5", "example.org", "", "127.0.0.1.nip.io", "::ffff:8.8.8.8"]
)
def test_a_server_that_others_can_reach_needs_a_key(host):
    with pytest.raises(ConfigError, match=re.escape(f"server.host={host} · others can reach it")):
        ServerSettings(host=host)
    assert ServerSettings(host=host, api_key=KEY).api_key == KEY


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_a_server_of_this_machine_needs_none(host):
    assert ServerSettings(host=host).api_key is None


@pytest.mark.parametrize(
    ("found", "settings"),
    [
        ("server.port=65536", {"port": 65536}), ("server.port=-1", {"port": -1}),
        ("server.api_key of 15", {"api_key": "x" * 15}),
        ("server.drain_seconds=-1", {"drain_seconds": -1}), ("server.body_seconds=0", {"body_seconds": 0}),
    ],
)  # fmt: skip
def test_settings_out_of_range_are_named(found, settings):
    with pytest.raises(ConfigError, match=found):
        ServerSettings(**settings)
