"""Keys and tokens are found and hidden, and other things are not."""

from pathlib import Path

import pytest

from lumi.errors import ConfigError
from lumi.secret import HIDDEN, check_no_secrets, public

TOKEN = "hf_" + "Ab3" * 12
ENVIRONMENT = {
    "HF_TOKEN": "planted-secret-1",
    "GOOGLE_APPLICATION_CREDENTIALS": "/etc/key.json",
    "PATH": "/usr/bin:/bin",
}


@pytest.mark.parametrize(
    ("settings", "where"),
    [
        ({"server": {"api_key": "anything at all"}}, r"server\.api_key=\(hidden\).*by its name"),
        ({"source": {"notes": f"see {TOKEN}"}}, r"source\.notes=\(hidden\).*by its look"),
        ({"source": {"path": ["https://me:pass-word@host/x"]}}, r"source\.path\[0\]=\(hidden\).*by its look"),
        ({"source": {"path": "x?planted-secret-1"}}, r"source\.path=\(hidden\).*the value of HF_TOKEN"),
    ],
)
def test_a_secret_in_a_setting_is_refused_and_not_repeated(settings: dict[str, object], where: str) -> None:
    with pytest.raises(ConfigError, match=where) as caught:
        check_no_secrets(settings, ENVIRONMENT)
    assert not any(word in str(caught.value) for word in ("anything at all", TOKEN, "pass-word", "planted-secret-1"))


@pytest.mark.parametrize(
    "settings",
    [
        {"tokenizer": {"name": "world"}, "budget": {"tokens": 4e6, "tokens_per_parameter": 20}},
        {"server": {"api_key": None}, "sampling": {"max_new_tokens": 8}},
        {"paths": {"data": "/usr/bin:/bin"}, "source": {"path": "/etc/key.json"}},
        {"source": {"path": "https://host/user@example/x"}},
    ],
)
def test_what_only_looks_like_one_is_kept(settings: dict[str, object]) -> None:
    check_no_secrets(settings, ENVIRONMENT)
    assert public(settings, ENVIRONMENT, Path("/home/vesna")) == settings


def test_what_is_shown_to_others_has_no_secret_and_no_home_folder() -> None:
    shown = public(
        {"api_key": "x", "notes": [f"a {TOKEN}", "planted-secret-1!"], "path": "/home/vesna/texts", "n": 3},
        ENVIRONMENT,
        Path("/home/vesna"),
    )
    assert shown == {"api_key": HIDDEN, "notes": [f"a {HIDDEN}", f"{HIDDEN}!"], "path": "~/texts", "n": 3}


def test_a_neighbour_of_the_home_folder_is_another_folder() -> None:
    assert public("/home/vesna2/x /home/vesna", {}, Path("/home/vesna")) == "/home/vesna2/x ~"
    assert public("/x", {}, Path("/")) == "/x"
