"""The page with the keyboard alone, with a screen reader, on a phone, in the light and in the dark."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

from .fake_server import FakeServer, error, model

pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install lumi[dev]")
from playwright.sync_api import Page, expect

from .page_steps import ask, press

Open = Callable[..., Page]


def test_the_keyboard_is_enough(page_server: FakeServer, page_open: Open):
    page = page_open()
    expect(page.locator("#model")).to_be_enabled()
    page.keyboard.press("Tab")
    expect(page.get_by_text("Skip to the message")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#prompt")).to_be_focused()
    page.keyboard.type("Hi")
    page.keyboard.press("Enter")
    expect(page.get_by_role("status")).to_contain_text("Hello there.")
    expect(page.locator("#prompt")).to_be_focused()
    page.get_by_role("button", name="Regenerate").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#prompt")).to_be_focused()
    assert len(page_server.bodies) == 2


def test_after_a_choice_the_focus_is_where_one_goes_on(page_two_models: FakeServer, page_open: Open):
    page = page_open()
    press(page, "Compare two answers")
    ask(page, "Which?")
    page.get_by_role("button", name="A is better").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("status")).to_contain_text("Saved as a preference pair")
    expect(page.locator("#prompt")).to_be_focused()


def test_every_stop_of_the_tab_key_is_visible_and_named(page_open: Open):
    page = page_open()
    ask(page, "Hi")
    press(page, "Settings")
    page.evaluate("document.activeElement.blur()")
    look = """() => { const e = document.activeElement; const s = getComputedStyle(e), p =
      getComputedStyle(e.closest('.composer') ?? e);
      return [e.id || e.className, e.ariaLabel || e.labels?.[0]?.textContent || e.textContent,
        s.outlineStyle, p.boxShadow]; }"""
    stops = []
    for _ in range(30):
        page.keyboard.press("Tab")
        stops.append(page.evaluate(look))
    assert len({stop[0] for stop in stops}) > 18
    named = [stop for stop in stops if stop[0]]
    assert [stop for stop in named if not stop[1].strip()] == []
    assert [stop for stop in named if stop[2] == "none" and stop[3] == "none"] == []


def test_a_finished_answer_is_announced_once_and_not_by_the_token(page_server: FakeServer, page_open: Open):
    page_server.pieces = [f" {number}" for number in range(20)]
    page = page_open()
    page.evaluate("""() => { window.said = []; const status = document.getElementById('status');
      new MutationObserver(() => status.textContent && window.said.push(status.textContent))
        .observe(status, {childList: true}); }""")
    ask(page, "Count")
    expect(page.get_by_role("status")).not_to_be_empty()
    assert page.evaluate("window.said") == [f"demo: {''.join(page_server.pieces)}"]
    assert page.locator("#scroll").evaluate("one => one.closest('[aria-live]')") is None


def test_landmarks_headings_and_labels_are_there(page_open: Open):
    page = page_open()
    ask(page, "Hi")
    press(page, "Settings")
    for landmark in ("banner", "main", "complementary"):
        expect(page.get_by_role(landmark)).to_have_count(1)
    levels = page.evaluate(
        "[...document.querySelectorAll('h1,h2,h3')].filter(h => h.checkVisibility()).map(h => +h.tagName[1])"
    )
    assert levels[0] == 1
    assert all(b <= a + 1 for a, b in pairwise(levels))
    unnamed = """[...document.querySelectorAll('button, input, select, textarea')].filter(e => !e.ariaHidden
      && !(e.ariaLabel || e.labels?.length || e.textContent.trim())).map(e => e.outerHTML)"""
    assert page.evaluate(unnamed) == []
    assert page.evaluate(
        "document.querySelectorAll('[id]').length === new Set([...document.querySelectorAll('[id]')].map(e => e.id)).size"
    )


def test_a_phone_needs_no_sideways_scrolling(page_server: FakeServer, page_open: Open):
    page_server.models = [model("a-model-with-a-rather-long-name-2026"), model("demo")]
    page_server.pieces = ["w" * 300]
    page = page_open(viewport={"width": 375, "height": 667})
    sideways = (
        "Math.max(...['html', '#scroll'].map(s => document.querySelector(s)).map(e => e.scrollWidth - e.clientWidth))"
    )
    ask(page, "x" * 300)
    assert page.evaluate(sideways) == 0
    press(page, "Compare two answers")
    ask(page, "Hi")
    assert page.evaluate(sideways) == 0
    press(page, "Settings")
    assert page.locator("#sheet").evaluate("one => [one.open, one.scrollWidth - one.clientWidth]") == [True, 0]
    page.keyboard.press("Escape")
    expect(page.get_by_role("button", name="Settings", exact=True)).to_be_focused()


CONTRASTS = """() => {
  const canvas = new OffscreenCanvas(1, 1).getContext('2d', {willReadFrequently: true});
  const rgb = (colour) => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data]; };
  const light = (c) => c.slice(0, 3).map(v => v / 255).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = (e) => { for (; e; e = e.parentElement) {
    const c = rgb(getComputedStyle(e).backgroundColor); if (c[3] > 250) return c; } };
  const own = (e) => [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim());
  return [...document.body.querySelectorAll('*')].filter(e => own(e) && e.checkVisibility() && !e.disabled).map(e => {
    const [a, b] = [light(rgb(getComputedStyle(e).color)), light(ground(e))].sort((x, y) => y - x);
    return [(a + 0.05) / (b + 0.05), e.className || e.tagName];
  });
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_contrast_in_light_and_dark(page_two_models: FakeServer, page_open: Open, scheme: Any):
    page = page_open(color_scheme=scheme, reduced_motion="reduce")
    press(page, "Compare two answers")
    ask(page, "Hi")
    press(page, "A is better")
    page_two_models.failures = [error(429, "16 requests wait.", "queue_full", Retry_After="3")]
    ask(page, "And?")
    press(page, "Settings")
    page.mouse.move(600, 300)
    contrasts = page.evaluate(CONTRASTS)
    assert len(contrasts) > 40
    assert [one for one in contrasts if one[0] < 4.5] == []


def test_the_theme_follows_the_system_until_one_is_chosen(page_open: Open):
    ground = "getComputedStyle(document.body).backgroundColor"
    page = page_open(color_scheme="dark")
    dark = page.evaluate(ground)
    press(page, "Light theme")
    light = page.evaluate(ground)
    page.reload()
    assert page.evaluate(ground) == light != dark
    press(page, "Dark theme")
    assert (page.evaluate(ground), page.evaluate("localStorage.getItem('lumi.theme')")) == (dark, None)


def test_nothing_moves_for_who_wants_less_motion(page_server: FakeServer, page_open: Open):
    page_server.gap_seconds = 1
    page = page_open(reduced_motion="reduce")
    ask(page, "Hi", wait=False)
    expect(page.locator(".answer.running .written")).to_have_text("Hello")
    assert page.evaluate("document.getAnimations().length") == 0
