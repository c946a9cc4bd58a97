"""The training benchmark compares like with like: same weights, same loss, a limit that counts every operation."""

import dataclasses
import json
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from lumi.arch import Decoder, DecoderConfig, next_token_loss

ROOT = Path(__file__).parent.parent

CONFIG = DecoderConfig(vocab_size=96, n_layers=2, d_model=32, n_heads=4, n_kv_heads=2, d_ff=48, max_seq_len=16)

WORKER = """
import json, sys
print('a library says hello')
def say(event, **facts): print(json.dumps({"event": event, **facts}), flush=True)
say("ready", step_seconds=0.5, threads=1)
for line in sys.stdin:
    n = json.loads(line).get("go")
    if n is None: break
    open(sys.argv[1], "a").write(sys.argv[2])
    say("done", seconds=n / float(sys.argv[3]), amount=n, loss=1.0)
say("stopped", rss=2**30)
"""


@pytest.fixture(autouse=True)
def suite(monkeypatch):
    monkeypatch.syspath_prepend(ROOT)


def work_of(config: DecoderConfig, **others: Any) -> Any:
    from benchmarks.training.work import Work

    names = {field.name for field in dataclasses.fields(Work)} & {field.name for field in dataclasses.fields(config)}
    optimizer = {"lr": 1e-3, "betas": (0.9, 0.95), "eps": 1e-8, "weight_decay": 0.1, "clip_norm": 1.0}
    size = {"seq_len": config.max_seq_len, "batch_size": 3, "arch": "test"}
    cost = {"n_params": config.n_params(), "flops_per_token": config.flops_per_token()}
    return Work(**{name: getattr(config, name) for name in names}, **{**optimizer, **size, **cost, **others})


@pytest.mark.parametrize("tied", [True, False])
def test_the_plain_gpt_has_lumis_parameters(tied):
    from benchmarks.training.plain import PlainGPT

    config = dataclasses.replace(CONFIG, tied=tied)
    model = PlainGPT(work_of(config))
    assert sum(parameter.numel() for parameter in model.parameters()) == config.n_params()


def test_the_plain_gpt_has_lumis_loss():
    from benchmarks.training.plain import PlainGPT
    from benchmarks.training.work import IGNORED

    torch.manual_seed(0)
    decoder, model = Decoder(CONFIG), PlainGPT(work_of(CONFIG))
    model.load_state_dict(decoder.state_dict())
    tokens = torch.randint(CONFIG.vocab_size, (3, 16))
    targets = torch.cat((tokens[:, 1:], torch.full((3, 1), IGNORED)), dim=1)
    nll, n_targets = next_token_loss(
        decoder(tokens), decoder.lm_weight, tokens, torch.ones_like(tokens, dtype=torch.bool)
    )
    torch.testing.assert_close(model(tokens, targets), nll / n_targets, atol=1e-5, rtol=1e-5)


def test_litgpt_gets_every_weight_once():
    from benchmarks.training.peers import litgpt_weights

    state = Decoder(CONFIG).state_dict()
    renamed = litgpt_weights(work_of(CONFIG), state)
    assert sum(value.numel() for value in renamed.values()) == sum(value.numel() for value in state.values())


def test_no_decay_on_norms_and_embeddings():
    from benchmarks.training.peers import adamw
    from benchmarks.training.plain import PlainGPT

    model = PlainGPT(work_of(CONFIG))
    decayed, plain = adamw(model, work_of(CONFIG)).param_groups
    assert len(plain["params"]) == 5 + 1  # five norms, one embedding
    assert len(decayed["params"]) == 2 * 7 + 1
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.1, 0.0)


def test_the_limits_products_are_all_operations_of_a_step():
    from benchmarks.training.products import step_parts

    work = work_of(CONFIG)
    for number in range(3):  # whichever way each part is computed
        parts = step_parts(work, (48, 24, 12))
        chosen = [list(part.ways.values())[number % len(part.ways)] for part in parts]
        flops = sum(product.flops for products in chosen for product in products)
        assert flops == CONFIG.flops_per_token() * work.n_tokens


def test_the_limit_is_measured():
    from benchmarks.training.limit import Limit

    limit = Limit(work_of(CONFIG), torch.device("cpu"), half=False)
    turn = limit.take(2)
    assert turn["seconds"] > 0
    assert turn["amount"] == 2 * 3 * 16


def test_contestants_take_turns_and_one_that_fails_is_left_out(tmp_path):
    from benchmarks.training.driver import Contestant, race

    order = tmp_path / "order"
    some = [
        Contestant(n, [sys.executable, "-c", WORKER, str(order), n, speed]) for n, speed in (("A", "10"), ("B", "5"))
    ]
    broken = Contestant("C", [sys.executable, "-c", "raise SystemExit('no such /a/b/model')"])
    heard: list[str] = []
    first, second, third = race([*some, broken], rounds=3, steps=lambda _: 2, threads=1, say=heard.append)
    assert order.read_text() == "ABABAB"
    assert (first.rate, second.rate) == (10, 5)
    assert third.error == "no such …/model"
    assert not third.turns


def test_groups_fit_into_memory_and_share_whom_they_are_compared_with():
    from benchmarks.training.driver import Contestant, groups

    everyone = [Contestant(name, [], size) for name, size in (("Lumi", 1), ("a", 2), ("b", 2), ("c", 2), ("limit", 1))]
    found = groups(everyone, ["Lumi", "limit"], room_bytes=6)
    assert [[one.name for one in group] for group in found] == [["Lumi", "limit", "a", "b"], ["Lumi", "limit", "c"]]


def test_the_table_and_the_picture_show_all_that_ran_and_name_the_rest(tmp_path):
    from benchmarks.training.driver import Result
    from benchmarks.training.pretrain import LIMIT, Contest
    from benchmarks.training.report import draw, pretrain_table

    def result(name: str, seconds: float) -> Result:
        facts = {"threads": 2, "peaks": {"rss": 2**31}, "peak_flops": 1e9, "chosen": {"head": "24 rows"}}
        return Result(name, facts, [{"amount": 100, "seconds": seconds, "steps": 2, "loss": 5.0}] * 3)

    group = [result("Lumi", 2.0), result("plain loop", 4.0), result(LIMIT, 1.0), Result("litgpt", error="no module")]
    contest = Contest(work_of(CONFIG), [group], ["Lumi"])
    table = pretrain_table(contest, "cpu", half=False)
    assert [row["contestant"] for row in table.rows] == [LIMIT, "Lumi", "plain loop"]
    assert table.rows[2]["Lumi is … times as fast"] == 2
    assert table.rows[1]["of the limit %"] == 50
    assert "left out: litgpt: no module" in table.markdown()
    json.dumps(vars(table))
    draw(contest, "cpu", tmp_path / "picture.png")
    assert (tmp_path / "picture.png").stat().st_size > 10_000


def test_the_overhead_is_a_share_of_lumis_step():
    from benchmarks.training.driver import Result
    from benchmarks.training.overhead import _row

    lumi, bare = (
        Result(name, {}, [{"amount": 8, "seconds": s, "steps": 2, "stage_seconds": 0.7}] * 3)
        for name, s in (("L", 0.8), ("B", 0.6))
    )
    row = _row("nano", lumi, bare)
    assert row["overhead %"] == pytest.approx(25)
    assert (row["around the stage ms"], row["around the stage %"]) == pytest.approx((50, 12.5))
    assert (row["train.py ms"], row["bare loop ms"]) == pytest.approx((400, 300))


def test_a_worker_that_measures_a_part_of_a_step_says_what_the_whole_takes():
    from benchmarks.training.worker import serve

    said = []
    channel = SimpleNamespace(say=lambda event, **facts: said.append((event, facts)), next_turn=lambda: (None, 0.0))
    for reply in ({"seconds": 12.5, "amount": 1}, {"amount": 1}):
        serve(channel, lambda _, reply=reply: reply, device=torch.device("cpu"), warmup=2, facts={})  # pyright: ignore[reportArgumentType]
    ready = [facts["step_seconds"] for event, facts in said if event == "ready"]
    assert ready[0] == 12.5
    assert 0 < ready[1] < 1


def test_the_clock_of_a_stage_counts_its_own_work_once():
    from benchmarks.training.lumi_loop import StageClock

    class Stage:
        def training_step(self) -> None:
            time.sleep(0.02)

        def backward(self) -> None:
            time.sleep(0.03)

        def configure_gradient_clipping(self) -> None:
            time.sleep(0.01)

        def optimizer_step(self) -> None:
            self.training_step()
            time.sleep(0.1)  # of the framework
            self.backward()
            self.configure_gradient_clipping()
            time.sleep(0.04)  # of the optimizer

    stage = Stage()
    clock = StageClock(stage)
    stage.optimizer_step()
    assert 0.1 <= clock.seconds < 0.15  # a sleep may be longer than asked for, but not by half


def test_padded_batches_hold_one_conversation_a_row_up_to_the_longest():
    from benchmarks.training.bare_loop import padded_batches

    lengths = (3, 5, 9)
    examples = [[(np.full(n, n, dtype=np.int32), np.arange(n) > 0)] for n in lengths]
    stream = SimpleNamespace(examples=examples)
    data = SimpleNamespace(train_streams=[stream], weights=[1.0], seed=0, batch_size=4)
    batch = padded_batches(data, torch.device("cpu"))(0)
    rows = batch["tokens"][:, 0].tolist()
    assert batch["tokens"].shape == (4, max(rows))
    assert batch["loss_mask"].sum(dim=1).tolist() == [n - 1 for n in rows]
    assert (batch["tokens"] != 0).sum(dim=1).tolist() == rows
