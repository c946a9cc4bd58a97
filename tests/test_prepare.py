"""``prepare.py``'s steps for examples: written once, shown as they are trained on, refused when they make no sense."""

from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import DictConfig

from lumi.errors import ConfigError, LockedError, LumiError
from lumi.lock import folder_lock
from lumi.manifest import read_manifest
from lumi.prepare import prepare

Config = Callable[..., DictConfig]

WORLD = "source.megabytes=0.2"
SMALL_CHAT = (
    "data.sources.world_chat.n_conversations=20",
    "data.sources.world_chat.n_test=2",
    "data.sources.tasks.n_conversations=4",
    "data.sources.tasks.n_test=2",
    "data.sources.pydocs_chat=null",
)
SMALL_PAIRS = ("data.sources.world_pairs.n_pairs=20", "data.sources.world_pairs.n_test=2")


@pytest.fixture
def prepared(composed: Config, tmp_path: Path) -> Callable[..., Path]:
    """``prepared("step=chat", …)``: the folder of data after running these steps."""

    def run(*overrides: str) -> Path:
        small = ("tokenizer.vocab_size=700", "tokenizer.num_threads=1", f"paths.data='{tmp_path}'")
        prepare(composed("prepare", *small, *overrides))
        return tmp_path

    return run


def test_conversations_need_no_tokenizer(prepared: Callable[..., Path], caplog: pytest.LogCaptureFixture) -> None:
    folder = prepared("step=chat", *SMALL_CHAT) / "chat"
    assert read_manifest(folder / "world_chat", kind="chat").info["rows"]["train"] > 10
    assert "test" in (folder / "tasks" / "DATA_CARD.md").read_text()
    with caplog.at_level("INFO"):
        prepared("step=chat", *SMALL_CHAT)
    assert caplog.text.count("is up to date") == 2


def test_inspect_shows_what_is_supervised(prepared: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    prepared(WORLD)
    prepared("step=chat", "inspect=1", "data.sources.tasks=null", *SMALL_CHAT[:2])
    shown = capsys.readouterr().out
    assert "<s><|im_start|>user\n" in shown
    assert "<|im_end|>›" in shown
    assert "‹</s>›" in shown
    assert "‹<|im_start|>" not in shown


def test_pairs_are_shown_side_by_side(prepared: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    prepared(WORLD)
    folder = prepared("step=preference", "inspect=1", *SMALL_PAIRS) / "preference" / "world_pairs"
    assert capsys.readouterr().out.count("── world_pairs 0 ") == 2
    assert "## Audit" in (folder / "DATA_CARD.md").read_text()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("inspect=2",), "step=chat or step=preference"),
        (("step=chat", "inspect=-1"), "inspect=-1"),
        (("step=pack", "data=chat"), "is about text"),
        (("step=chat", "data=preference"), "needs data=chat"),
        (("step=chat", "force=1"), "must be true or false"),
    ],
)
def test_what_makes_no_sense_is_refused(
    prepared: Callable[..., Path], overrides: tuple[str, ...], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        prepared(*overrides)


def test_without_a_tokenizer_nothing_can_be_shown(prepared: Callable[..., Path]) -> None:
    with pytest.raises(LumiError, match="tokenizer"):
        prepared("step=chat", "inspect=1", *SMALL_CHAT)


def test_a_budget_is_counted_with_a_tokenizer_that_exists(prepared: Callable[..., Path], composed: Config) -> None:
    folder = prepared(WORLD)
    tokenizer = folder / "tokenizer" / "world"
    existing = ("tokenizer=existing", f"tokenizer.path='{tokenizer}'")
    with_budget = (WORLD, "source.name=part", "source.seed=1", "corpus.tokens=5000")
    prepare(composed("prepare", *existing, *with_budget, f"paths.data='{folder}'"))
    corpus = read_manifest(folder / "corpus" / "part", kind="corpus").info
    packed = read_manifest(folder / "packed" / "world" / "part" / "part", kind="packed").info["splits"]
    n_tokens = sum(split["tokens"] - 2 * split["documents"] for split in packed.values())  # without bos and eos
    assert corpus["tokens"] == n_tokens
    assert 5000 <= n_tokens < 5000 + 400  # less than a document more


def test_a_second_writer_is_refused_with_the_first_one_named(prepared: Callable[..., Path], tmp_path: Path) -> None:
    with folder_lock(tmp_path / "corpus" / "world"), pytest.raises(LockedError, match=r"process \d+ on .* since 20"):
        prepared(WORLD)
