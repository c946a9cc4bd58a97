"""``evaluate.py model=… replay=…``: exactly what a step read, recorded from the run itself."""

import json
import os
import signal
from collections.abc import Callable
from typing import Any

import pytest
import torch

from lumi.errors import ConfigError, DataError, Interrupted
from lumi.evaluate import evaluate
from lumi.lineage import Replay
from lumi.run import train
from lumi.stage.base import Stage

from .conftest import Made, changed, stage_words

STEPS = ("budget.epochs=null", "budget.steps=5", "trainer.accumulate=2", "callbacks.checkpoint.every_steps=1")
KEYS = ("tokens", "doc_ids", "loss_mask", "source", "sample", "pairs")
Recorded = dict[tuple[int, int], dict[str, torch.Tensor]]
"""(step counted from 1, micro-batch of it) → what was read."""


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> tuple[Recorded, Callable[[int], None]]:
    """The batches of every run of this test as they reach the stage, and a switch: stop the run in that step."""
    batches: Recorded = {}
    stop_in: list[int] = []
    before = Stage.on_train_batch_start

    def record(stage: Any, batch: Any, batch_idx: int) -> None:
        step, part = stage.global_step + 1, batch_idx % stage.accumulate
        batches[step, part] = {key: batch[key].clone() for key in KEYS if key in batch}
        if (step, part) == (stop_in[-1] if stop_in else 0, 0):
            stop_in.pop()
            os.kill(os.getpid(), signal.SIGTERM)
        before(stage, batch, batch_idx)

    monkeypatch.setattr(Stage, "on_train_batch_start", record)
    return batches, stop_in.append


def assert_same(replay: Replay, recorded: Recorded) -> None:
    """Every micro-batch of every step is the recorded one, tensor by tensor."""
    assert {step for step, _ in recorded} == set(range(1, replay.total_steps + 1))
    for step in range(1, replay.total_steps + 1):
        for part, rank, batch in replay.batches(step):
            assert rank == 0
            for key, value in recorded[step, part].items():
                assert torch.equal(value, batch[key]), (step, part, key)


@pytest.mark.parametrize("stage", ["base", "chat", "liked"])
def test_every_step_is_replayed_as_it_was_read_also_after_a_stop(
    made: Made, recorded: tuple[Recorded, Callable[[int], None]], stage: str
) -> None:
    batches, stop_in = recorded
    config = made.compose("train", *stage_words(made.root, made.texts)[stage], *STEPS, f"name=seen-{stage}", "seed=3")
    stop_in(3)
    with pytest.raises(Interrupted):
        train(config)
    train(config)
    assert_same(Replay(made.run(f"seen-{stage}")), batches)


PHASES = "data.phases=[{until: 0.4, seq_len: 32, batch_ratio: 0.5, weights: {texts: 1}}, {until: 1.0}]"


def test_a_curriculum_with_short_windows_is_replayed_piece_by_piece(
    made: Made, recorded: tuple[Recorded, Callable[[int], None]]
) -> None:
    words = (*stage_words(made.root, made.texts)["base"], *STEPS, PHASES, "data.batch_size=4", "name=phases")
    train(made.compose("train", *words))
    replay = Replay(made.run("phases"))
    assert_same(replay, recorded[0])
    lengths = [{len(window.tokens) for window in replay.windows(step)} for step in range(1, 6)]
    assert lengths[0] == {32}
    assert lengths[-1] == {128}


def test_the_windows_of_two_ranks_are_those_that_one_reads_in_turn(made: Made) -> None:
    one, two = Replay(made.run("base")), Replay(made.run("base"))
    two.accumulate, two.world_size = 1, 2
    assert one.accumulate == 2
    for step in (1, 4):
        alone = [batch["tokens"] for _, _, batch in one.batches(step)]
        together = [batch["tokens"] for _, _, batch in two.batches(step)]
        assert torch.equal(torch.cat(alone), torch.cat(together))
        assert [rank for _, rank, _ in two.batches(step)] == [0, 1]


def test_text_is_shown_under_the_line_of_the_file_it_stands_in(made: Made) -> None:
    named = [
        document
        for step in range(1, 5)
        for window in Replay(made.run("base")).windows(step)
        if window.source == "texts"
        for document in window.documents
    ]
    assert len(named) > 5
    for document in named:
        file, _, number = str(document.id).partition(":")
        line = (made.texts / file).read_text().splitlines()[int(number) - 1]
        assert document.text in json.loads(line)["text"]


def test_tokens_of_a_window_are_those_of_its_documents(made: Made) -> None:
    replay = Replay(made.run("base"))
    for window in replay.windows(2):
        assert sum(document.tokens for document in window.documents) == len(window.tokens)
        read = replay.data.tokenizer.decode(window.tokens)
        assert read == "".join(document.text for document in window.documents)


@pytest.mark.parametrize(("stage", "roles"), [("chat", {None}), ("liked", {"chosen", "rejected"})])
def test_conversations_and_pairs_are_shown_whole_with_their_ids(made: Made, stage: str, roles: set[str | None]) -> None:
    windows = [one for one in Replay(made.run(stage)).windows(1) if one.split_tokens is None]
    documents = [document for window in windows for document in window.documents]
    assert documents
    assert {document.role for document in documents} == roles
    for window in windows:
        ids = {json.loads(line)["id"] for line in (window.folder / "train.jsonl").read_text().splitlines()}
        assert all(document.id in ids for document in window.documents)
        assert all("<|im_start|>assistant" in document.text for document in window.documents)


def test_replay_prints_the_loss_that_was_logged_and_every_document(
    made: Made, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluate(made.compose("evaluate", f"model='{made.run('base')}'", "replay=2"))
    printed = capsys.readouterr().out
    replay = Replay(made.run("base"))
    assert f"train/loss {replay.logged(2)['train/loss']:.4f}" in printed.splitlines()[0]
    assert all(str(one.id) in printed for window in replay.windows(2) for one in window.documents)


def test_replay_as_json_holds_the_very_tokens(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    evaluate(made.compose("evaluate", f"model='{made.run('liked')}'", "replay=1", "json=true"))
    found = json.loads(capsys.readouterr().out)
    batches = [batch["tokens"].tolist() for _, _, batch in Replay(made.run("liked")).batches(1)]
    assert [window["tokens"] for window in found["windows"]] == [row for batch in batches for row in batch]


@pytest.mark.parametrize("step", [0, 5, "last"])
def test_a_step_that_the_run_does_not_have_is_refused(made: Made, step: Any) -> None:
    with pytest.raises(ConfigError, match="must be a step of the run, from 1 to 4"):
        evaluate(made.compose("evaluate", f"model='{made.run('base')}'", f"replay={step}"))


def test_data_that_changed_since_are_not_passed_off_as_what_was_read(made: Made) -> None:
    shard = made.root / "data/packed/both/both/texts/train-00000.bin"
    with changed(shard), pytest.raises(DataError, match="changed or damaged"):
        Replay(made.run("base"))
