"""The page of the server in a real browser, against a server that says what the test wants."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .fake_server import FakeServer, error, model

pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install lumi[dev]")
from playwright.sync_api import Page, expect

from .page_steps import ask, press, setting

Open = Callable[..., Page]


def by_seed(body: Any) -> str:
    """A stream that says the seed."""
    choice = {"index": 0, "delta": {"content": f"seed {body['seed']}"}, "finish_reason": "stop"}
    return f"data: {json.dumps({'choices': [choice]})}\n\ndata: [DONE]\n\n"


# An answer


def test_an_answer_is_shown_while_it_arrives_and_then_with_its_figures(page_server: FakeServer, page_open: Open):
    page_server.pieces, page_server.gap_seconds = ["One", " two", " three"], 0.15
    page = page_open()
    ask(page, "Count", wait=False)
    written = page.locator(".answer .written")
    expect(written).to_have_text("One two")
    expect(page.locator(".answer .text")).to_have_attribute("aria-busy", "true")
    expect(written).to_have_text("One two three")
    expect(page.locator(".meta")).to_contain_text("3 tokens")
    assert re.search(
        r"\d\.\d tokens/s.*first after \d\.\d\d s.*seed \d+", page.locator(".meta").inner_text(), re.DOTALL
    )
    assert page_server.bodies[0]["messages"] == [{"role": "user", "content": "Count"}]


@pytest.mark.parametrize("how", ["button", "key"])
def test_stop_ends_at_once_and_leaves_what_was_written(page_server: FakeServer, page_open: Open, how: str):
    page_server.pieces, page_server.gap_seconds = ["Once", *[" more"] * 500], 0.05
    page = page_open()
    ask(page, "Go on", wait=False)
    expect(page.locator(".written")).to_contain_text("Once more")
    press(page, "Stop") if how == "button" else page.keyboard.press("Escape")
    expect(page.locator(".meta")).to_contain_text("stopped by you", timeout=500)
    text = page.locator(".written").inner_text()
    assert page_server.hung_up.wait(2)
    assert re.fullmatch(r"Once( more)+", text)
    assert page.locator(".written").inner_text() == text


def test_regenerate_replaces_the_answer_and_draws_another_seed(page_server: FakeServer, page_open: Open):
    page = page_open()
    ask(page, "Hi")
    page_server.pieces = ["Another"]
    press(page, "Regenerate")
    expect(page.locator(".written")).to_have_text("Another")
    first, second = page_server.bodies
    assert first["messages"] == second["messages"]
    assert first["seed"] != second["seed"]


def test_the_last_message_can_be_edited(page_server: FakeServer, page_open: Open):
    page = page_open()
    ask(page, "First")
    ask(page, "Secnd")
    press(page, "Edit")
    page.get_by_label("Your message").fill("Second")
    page.keyboard.press("Enter")
    expect(page.locator(".said .text")).to_have_text(["First", "Second"])
    said = [(one["role"], one["content"]) for one in page_server.bodies[-1]["messages"]]
    assert said == [("user", "First"), ("assistant", "Hello there."), ("user", "Second")]


def test_an_edit_that_was_left_open_ends_with_the_next_message(page_server: FakeServer, page_open: Open):
    page = page_open()
    ask(page, "First")
    press(page, "Edit")
    ask(page, "Second")
    expect(page.get_by_label("Your message")).to_have_count(0)
    expect(page.locator(".said .text")).to_have_text(["First", "Second"])


def test_a_new_chat_forgets_and_can_be_undone(page_server: FakeServer, page_open: Open):
    page = page_open()
    ask(page, "Remember me")
    press(page, "New chat")
    expect(page.locator(".turn")).to_have_count(0)
    press(page, "Bring back the last one")
    expect(page.locator(".written")).to_have_text("Hello there.")
    press(page, "New chat")
    ask(page, "Anew")
    assert page_server.bodies[-1]["messages"] == [{"role": "user", "content": "Anew"}]


def test_a_base_model_continues_its_text(page_server: FakeServer, page_open: Open):
    page_server.models, page_server.pieces = [model("base", chat=False)], [" upon"]
    page = page_open()
    ask(page, "Once")
    page_server.pieces = [" a time"]
    page.locator(".answer").get_by_role("button", name="Continue").click()
    expect(page.locator(".answer .text")).to_have_text("Once upon a time")
    assert [path for path, _ in page_server.posts] == ["/v1/completions"] * 2
    assert [body["prompt"] for body in page_server.bodies] == ["Once", "Once upon"]


# Settings


def test_settings_reach_the_request_and_outlive_the_page(page_server: FakeServer, page_open: Open):
    page = page_open()
    press(page, "Settings")
    wanted = {"Temperature": "0.3", "Top-p": "0.5", "Top-k": "40", "Min-p": "0.05", "Repetition penalty": "1.1"}
    wanted |= {"No-repeat n-gram": "3", "Max tokens": "77", "Seed": "9", "Stop strings": "END\n\\n\\n"}
    for label, value in (wanted | {"System prompt": "Be brief."}).items():
        setting(page, label, value)
    page.reload()
    ask(page, "Hi")
    body = page_server.bodies[0]
    expected = {"temperature": 0.3, "top_p": 0.5, "top_k": 40, "min_p": 0.05, "repetition_penalty": 1.1}
    expected |= {"no_repeat_ngram": 3, "max_tokens": 77, "seed": 9, "stop": ["END", "\n\n"], "model": "demo"}
    expected |= {"stream": True, "stream_options": {"include_usage": True}}
    assert body.pop("messages")[0] == {"role": "system", "content": "Be brief."}
    assert body == expected


def test_what_is_off_says_so_and_what_is_out_of_range_is_brought_back(page_server: FakeServer, page_open: Open):
    page = page_open()
    press(page, "Settings")
    for label, value in {"Temperature": "9", "Top-p": "1", "Max tokens": "9999", "Seed": "-5"}.items():
        setting(page, label, value)
    ask(page, "Hi")
    press(page, "Reset")
    ask(page, "Hi")
    settings = [
        {k: v for k, v in b.items() if k not in ("stream", "stream_options", "model", "messages")}
        for b in page_server.bodies
    ]
    # Said, for else the server\'s own default would hold.
    neutral = {"top_k": 0, "min_p": 0, "repetition_penalty": 1, "no_repeat_ngram": 0}
    assert settings[0] == {"temperature": 2, "top_p": 1, "max_tokens": 256, "seed": 0, **neutral}
    seed = page_server.bodies[1]["seed"]
    assert settings[1] == {"temperature": 0.8, "top_p": 0.95, "max_tokens": 128, "seed": seed, **neutral}


def test_broken_settings_of_an_older_page_are_repaired(page_server: FakeServer, page_open: Open):
    page = page_open()
    page.evaluate(
        "localStorage.setItem('lumi.settings', JSON.stringify({values: {temperature: 'x', top_k: 1e9}, system: 4}))"
    )
    page.evaluate("localStorage.setItem('lumi.choice', JSON.stringify({model: 'gone', compare: 'x'}))")
    page.reload()
    ask(page, "Hi")
    assert (page_server.bodies[0]["temperature"], page_server.bodies[0]["top_k"]) == (0.8, 200)


def test_the_template_is_the_checkpoints_and_only_shown(page_server: FakeServer, page_open: Open):
    page = page_open()
    expect(page.locator("#empty-facts")).to_contain_text("template chatml")
    press(page, "Settings")
    expect(page.locator("#about")).to_contain_text("chatml")
    ask(page, "Hi")
    assert not any("template" in name for name in page_server.bodies[0])


def test_a_conversation_is_saved_as_messages_with_how_each_answer_came_about(page_server: FakeServer, page_open: Open):
    page = page_open()
    ask(page, "Hi")
    with page.expect_download() as download:
        press(page, "Save as JSON")
    saved = json.loads(Path(download.value.path()).read_text())
    assert saved["messages"] == [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello there."}]
    assert saved["answers"][0]["seed"] == page_server.bodies[0]["seed"]
    assert saved["models"] == [{"id": "demo", "template": "chatml"}]


# Side by side


def test_the_better_answer_becomes_a_preference_pair(page_two_models: FakeServer, page_open: Open):
    page = page_open()
    press(page, "Compare two answers")
    ask(page, "Which?")
    seeds = {body["model"]: body["seed"] for body in page_two_models.bodies}
    press(page, "B is better")
    expect(page.locator(".note")).to_contain_text("Saved as a preference pair, 1 so far")
    (pair,) = page_two_models.pairs
    assert seeds["left"] == seeds["right"] == pair["seed"]
    assert (pair["chosen"], pair["rejected"]) == ("Right answer", "Left answer")
    assert pair["models"] == {"chosen": "right", "rejected": "left"}
    assert pair["messages"] == [{"role": "user", "content": "Which?"}]
    assert pair["sampling"].items() >= {"temperature": 0.8, "top_p": 0.95, "max_tokens": 128}.items()


def test_the_conversation_goes_on_with_the_better_answer(page_two_models: FakeServer, page_open: Open):
    page = page_open()
    press(page, "Compare two answers")
    ask(page, "First")
    press(page, "B is better")
    ask(page, "Second")
    told = [body["messages"][1]["content"] for body in page_two_models.bodies[2:]]
    assert told == ["Right answer", "Right answer"]


def test_both_answers_arrive_at_once(page_two_models: FakeServer, page_open: Open):
    page_two_models.pieces, page_two_models.gap_seconds = ["a", "b", "c"], 0.2
    page = page_open()
    press(page, "Compare two answers")
    ask(page, "Go", wait=False)
    expect(page.locator(".answer.running .written")).to_have_text(["ab", "ab"])


def test_one_model_twice_gets_two_seeds_and_equal_answers_make_no_pair(page_server: FakeServer, page_open: Open):
    page = page_open()
    press(page, "Compare two answers")
    ask(page, "Hi")
    first, second = sorted(body["seed"] for body in page_server.bodies)
    assert second == first + 1
    expect(page.locator(".note")).to_have_text("Both answers are the same.")
    expect(page.get_by_role("button", name="is better")).to_have_count(0)


def test_a_pair_of_one_model_names_both_seeds(page_server: FakeServer, page_open: Open):
    page = page_open()
    press(page, "Compare two answers")
    page.route("**/v1/chat/completions", lambda route: route.fulfill(body=by_seed(route.request.post_data_json)))
    ask(page, "Hi")
    press(page, "B is better")
    expect(page.locator(".note")).to_contain_text("Saved")
    (pair,) = page_server.pairs
    assert pair["chosen"] == f"seed {pair['seed']}"
    assert pair["rejected"] == f"seed {pair['sampling']['rejected_seed']}"


def test_a_pair_that_was_not_saved_can_be_chosen_again(page_two_models: FakeServer, page_open: Open):
    page = page_open()
    press(page, "Compare two answers")
    ask(page, "Which?")
    page_two_models.failures = [error(507, "The disk is full.", "disk_full")]
    press(page, "A is better")
    expect(page.locator(".note")).to_contain_text("The pair was not saved.")
    press(page, "A is better")
    expect(page.locator(".note")).to_contain_text("Saved as a preference pair")


# What goes wrong


def test_a_missing_key_is_asked_for_and_the_request_repeated(page_server: FakeServer, page_open: Open):
    page_server.key = "secret"
    page = page_open()
    expect(page.get_by_label("This server asks for an API key.")).to_be_focused()
    page.keyboard.type("wrong")
    page.keyboard.press("Enter")
    field = page.get_by_label("The server did not accept this API key.")
    expect(field).to_be_focused()
    field.fill("secret")
    press(page, "Use this key")
    ask(page, "Hi")
    expect(page.locator(".written")).to_have_text("Hello there.")
    assert page.evaluate("[localStorage.getItem('lumi.key'), sessionStorage.getItem('lumi.key')]") == [None, '"secret"']


def test_the_key_field_is_hidden_where_none_is_needed(page_open: Open):
    page = page_open()
    expect(page.locator("#model")).to_be_enabled()
    expect(page.locator("#key-form")).to_be_hidden()


FAILURES = {
    "too much to do": error(429, "16 requests wait.", "queue_full", Retry_After="3"),
    "not ready": error(503, "The server stops.", "stopping", Retry_After="1"),
    "no longer fits": error(400, "300 tokens, the context has 256.", "context_length_exceeded"),
    "did not accept": error(422, "temperature must be a number.", "invalid"),
    "failed while": {"error": {"message": "The worker died.", "type": "server_error", "param": None, "code": None}},
}


@pytest.mark.parametrize("words", FAILURES)
def test_an_error_says_in_place_what_happened_and_what_to_do(page_server: FakeServer, page_open: Open, words: str):
    page = page_open()
    page_server.failures = [FAILURES[words]]
    ask(page, "Hi")
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text(words)
    expect(alert).to_contain_text(re.compile("wait [123] s|Start a new chat|Change what it names|Try again"))
    if "fits" in words:
        alert.get_by_role("button", name="New chat").click()
    else:
        press(page, "Try again")
        expect(page.locator(".written")).to_have_text("Hello there.")
    expect(alert).to_have_count(0)


def test_models_that_could_not_be_listed_are_asked_for_again(page_open: Open):
    page = page_open()
    page.route("**/v1/models", lambda route: route.abort())
    page.reload()
    expect(page.locator("#empty-title")).to_have_text("The server cannot be reached.")
    page.unroute("**/v1/models")
    press(page, "Try again")
    expect(page.locator("#empty-title")).to_have_text("Chat with demo")


def test_a_dead_network_and_a_cut_answer_are_told_apart(page_server: FakeServer, page_open: Open):
    page = page_open()
    page.context.set_offline(True)
    ask(page, "Hi")
    expect(page.get_by_role("alert")).to_contain_text("The server cannot be reached.")
    page.context.set_offline(False)
    page_server.finish = None
    press(page, "Try again")
    expect(page.get_by_role("alert")).to_contain_text("The connection ended before the answer did.")
    expect(page.locator(".written")).to_have_text("Hello there.")
