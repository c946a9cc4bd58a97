"""What fine-tuning must do: learn answers and nothing else, stop, keep, and give back what it has learnt."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig
from torch.testing import assert_close

from lumi.arch import Decoder, DecoderConfig, next_token_loss
from lumi.batch import PackedBatch
from lumi.callbacks import best_checkpoint, list_checkpoints, read_metrics
from lumi.corpus.chat import Conversation
from lumi.data.chat import render
from lumi.data.rows import RowStream
from lumi.errors import ConfigError
from lumi.generate import SamplingParams, generate
from lumi.run import train
from lumi.stage import SFT
from lumi.tokenizer import Message, Template, TokenizerConfig, train_tokenizer
from lumi.tokenizer.frozen import Tokenizer
from lumi.trained import load_trained

Config = Callable[..., DictConfig]

CHATML = Template(
    name="chatml",
    system=["<|im_start|>system\n", "<|im_end|>\n"],
    user=["<|im_start|>user\n", "<|im_end|>\n"],
    assistant=["<|im_start|>assistant\n", "<|im_end|>\n"],
)
NAMES, THINGS = ("Ada", "Bo", "Cy", "Di", "Ed"), ("cup", "hat", "key", "pen")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder = tmp_path_factory.mktemp("tokenizer") / "t"
    lines = [f"Who has {name}'s {thing}? {name} has the {thing}." for name in NAMES for thing in THINGS]
    config = TokenizerConfig(name="t", vocab_size=400, num_threads=1, exact_size=False)
    train_tokenizer(lambda: iter(lines * 4), folder, config, parents={})
    return Tokenizer.load(folder)


@pytest.fixture(scope="module")
def conversations() -> list[Conversation]:
    """Twenty, of which every fifth has a second turn."""
    made = []
    for number, (name, thing) in enumerate((name, thing) for name in NAMES for thing in THINGS):
        turns = [Message(role="user", content=f"Who has {name}'s {thing}?")]
        turns.append(Message(role="assistant", content=f"{NAMES[number * 3 % 5]} has the {thing}."))
        made.append(Conversation(messages=tuple(turns), id=f"{number}"))
    return made


def new_decoder(tokenizer: Tokenizer) -> Decoder:
    torch.manual_seed(0)
    config = DecoderConfig(
        vocab_size=tokenizer.vocab_size,
        n_layers=2,
        d_model=64,
        n_heads=4,
        n_kv_heads=4,
        d_ff=128,
        max_seq_len=96,
        tied=True,
    )
    return Decoder(config)


def batch(stream: RowStream) -> dict[str, torch.Tensor]:
    found = stream.windows(torch.arange(len(stream)).numpy())
    return {key: torch.from_numpy(value) for key, value in found.items()}


def test_only_answers_have_a_gradient(tokenizer: Tokenizer, conversations: list[Conversation]) -> None:
    stream = RowStream(render(conversations, CHATML, tokenizer, 96).examples, 96, 0)
    one = batch(stream)
    hidden = torch.randn(*one["tokens"].shape, 16, requires_grad=True)
    next_token_loss(hidden, torch.randn(tokenizer.vocab_size, 16), one["tokens"], one["loss_mask"])[0].backward()
    assert hidden.grad is not None
    moved = hidden.grad.abs().sum(dim=-1) > 0  # (B, T): the places that predict something
    assert torch.equal(moved[:, :-1], one["loss_mask"][:, 1:])
    answers = tokenizer.decode(one["tokens"][one["loss_mask"]].tolist())
    assert "Who" not in answers
    assert "user" not in answers
    assert answers.count("has the") == len(conversations)


def test_ends_are_supervised_and_padding_is_not(tokenizer: Tokenizer, conversations: list[Conversation]) -> None:
    stream = RowStream(render(conversations, CHATML, tokenizer, 96).examples, 96, 0)
    one = batch(stream)
    supervised = one["tokens"][one["loss_mask"]]
    marker = CHATML.stop_ids(tokenizer)
    assert all((supervised == token).sum() == len(conversations) for token in marker)
    assert not one["loss_mask"][one["doc_ids"] < 0].any()
    assert (one["doc_ids"] < 0).any()


def test_packed_and_unpacked_training_give_the_same_gradient(
    tokenizer: Tokenizer, conversations: list[Conversation]
) -> None:
    examples = render(conversations, CHATML, tokenizer, 96).examples
    gradients = []
    for rows in ([examples], [[example] for example in examples]):
        decoder = new_decoder(tokenizer)
        for some in rows:
            one = batch(RowStream(some, 96, 0))
            hidden = decoder(one["tokens"], one["doc_ids"])
            next_token_loss(hidden, decoder.lm_weight, one["tokens"], one["loss_mask"])[0].backward()
        gradients.append(torch.cat([p.grad.flatten() for p in decoder.parameters() if p.grad is not None]))
    # Float32 sums of some hundred terms in another order.
    assert_close(gradients[0], gradients[1], atol=2e-4, rtol=1e-4)


def test_a_model_fitted_to_twenty_conversations_answers_and_stops(
    tokenizer: Tokenizer, conversations: list[Conversation]
) -> None:
    decoder = new_decoder(tokenizer)
    one = batch(RowStream(render(conversations, CHATML, tokenizer, 96).examples, 96, 0))
    optimizer = torch.optim.AdamW(decoder.parameters(), lr=5e-3)
    for step in range(300):
        optimizer.param_groups[0]["lr"] = 5e-3 * (1 - step / 300)  # at a constant rate the last step can be a bad one
        loss, n = next_token_loss(
            decoder(one["tokens"], one["doc_ids"]), decoder.lm_weight, one["tokens"], one["loss_mask"]
        )
        optimizer.zero_grad()
        (loss / n).backward()
        optimizer.step()
    prompts = [CHATML.prompt(tokenizer, item.messages[:-1]) for item in conversations]
    stops = tuple(CHATML.stop_ids(tokenizer))
    params = SamplingParams(temperature=0.0, max_new_tokens=40, stop_ids=stops, seed=0)
    done = generate(decoder, prompts, params, eos_id=tokenizer.eos_id)
    assert [answer.finish_reason for answer in done] == ["stop"] * len(done)
    answers = [CHATML.read(tokenizer, answer.tokens) for answer in done]
    assert answers == [item.messages[-1].content for item in conversations]


@pytest.fixture
def run(composed: Config, stages: dict[str, tuple[str, ...]], data_folder: Path, tmp_path: Path) -> Callable[..., Path]:
    """``run("stage.lora=null", …)``: the folder of a tiny run of SFT."""

    def start(*overrides: str) -> Path:
        places = (f"paths.data='{data_folder}'", f"paths.runs='{tmp_path}'", "name=run", "budget.epochs=null")
        train(composed("train", *stages["sft"], *places, "budget.steps=6", "trainer.val_every_steps=2", *overrides))
        return tmp_path / "run"

    return start


def test_an_adapter_leaves_all_weights_but_the_control_rows(run: Callable[..., Path]) -> None:
    folder = run("stage.lora.merge=true")
    newest = list_checkpoints(folder / "checkpoints")[0][1]
    facts = json.loads((newest / "run.json").read_bytes())
    from safetensors.torch import load_file

    after, before = (
        load_file(newest / "model.safetensors"),
        load_file(Path(facts["initial"]["path"]) / "model.safetensors"),
    )
    changed = {name for name in after if not torch.equal(after[name], before[name])}
    assert changed == {"model.embed_tokens.weight"}
    rows = (
        (after["model.embed_tokens.weight"] != before["model.embed_tokens.weight"])
        .any(dim=1)
        .nonzero()
        .flatten()
        .tolist()
    )
    trained = load_trained(folder)
    assert set(rows) <= {
        token for token, piece in enumerate(trained.tokenizer.pieces) if piece.kind in ("control", "unknown")
    }
    assert set(trained.template.stop_ids(trained.tokenizer)) & set(rows)  # pyright: ignore[reportOptionalMemberAccess]
    merged = load_trained(folder / "merged")
    tokens = torch.arange(20, 60).view(1, 40)
    with torch.no_grad():
        one, other = (model.decoder.logits(model.decoder(tokens)) for model in (trained, merged))
    assert_close(one, other, atol=1e-5, rtol=0)
    assert merged.template == trained.template


def test_a_run_can_stop_early_and_keep_its_best(run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    honest = SFT.loss

    def worse_and_worse(self: SFT, batch: PackedBatch) -> tuple[torch.Tensor, torch.Tensor]:
        loss, targets = honest(self, batch)
        return (loss, targets) if self.training else (targets * float(self.trainer.global_step), targets)

    monkeypatch.setattr(SFT, "loss", worse_and_worse)
    best = ("callbacks.checkpoint.keep_best=true", "callbacks.checkpoint.keep_last=1")
    folder = run("doctor=off", "stage.lora=null", "callbacks.early_stopping.patience=1", *best)
    rows = read_metrics(folder / "metrics.csv")
    assert {step: row["val/loss"] for step, row in rows.items() if "val/loss" in row} == {2: 2.0, 4: 4.0}
    assert json.loads((folder / "run.json").read_bytes())["status"] == "finished"
    assert [step for step, _ in list_checkpoints(folder / "checkpoints")] == [4, 2]
    assert best_checkpoint(folder / "checkpoints") == folder / "checkpoints" / "step_00000002.ckpt"
    assert load_trained(folder / "best").facts["step"] == 2
    assert load_trained(folder).facts["step"] == 4


def test_the_model_to_start_from_is_found_or_named(
    composed: Config, stages: dict[str, tuple[str, ...]], data_folder: Path, tmp_path: Path
) -> None:
    def start(*overrides: str, runs: Path = tmp_path, tokenizer: bool = True) -> Path:
        tiny = [one for one in stages["sft"] if tokenizer or not one.startswith("tokenizer.")]
        places = (f"paths.data='{data_folder}'", f"paths.runs='{runs}'", "budget.epochs=null", "budget.steps=1")
        train(composed("train", *tiny, *places, *overrides))
        return runs

    with pytest.raises(ConfigError, match=r"no finished run of stage=pretrain.*python train.py stage=pretrain"):
        start("init_from=auto", "name=run")
    before = Path(stages["sft"][-1].partition("=")[2].strip("'")).parent
    start("init_from=auto", "name=auto", runs=before)
    facts = load_trained(before / "auto").facts
    assert Path(facts["initial"]["path"]).parent.parent == before / "pretrain"
    own = ("tokenizer=existing", f"tokenizer.path='{data_folder}/tokenizer/world'")
    start("init_from=null", "name=control", *own, "stage.lora=null", tokenizer=False)
    assert "initial" not in load_trained(tmp_path / "control").facts


def test_a_finished_run_says_when_its_beginning_has_moved(
    composed: Config,
    stages: dict[str, tuple[str, ...]],
    data_folder: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    places = (f"paths.data='{data_folder}'", f"paths.runs='{tmp_path}'", "budget.epochs=null", "budget.steps=1")
    sft = composed("train", *stages["sft"], *places, "name=later", "init_from=auto")
    for seed in (0, 1):
        name = ("name=first", "name=second")[seed]
        pretrain = composed("train", *stages["pretrain"], "arch.max_seq_len=128", *places, name, f"seed={seed}")
        train(pretrain)
        if seed == 1:  # runs are told apart by whole seconds
            state = tmp_path / "second" / "run.json"
            state.write_text(state.read_text().replace('"updated": "2', '"updated": "3'))
        train(sft)
        warned = f"init_from now means {tmp_path}/second" in caplog.text
        assert warned == (seed == 1)
    for name in ("first", "second"):
        shutil.rmtree(tmp_path / name)
    assert train(sft) == json.loads((tmp_path / "later" / "run.json").read_bytes())["metrics"]


def test_a_finished_run_does_not_need_the_named_model_any_more(
    composed: Config, stages: dict[str, tuple[str, ...]], data_folder: Path, tmp_path: Path
) -> None:
    places = (f"paths.data='{data_folder}'", f"paths.runs='{tmp_path}'", "budget.epochs=null", "budget.steps=1")
    shutil.copytree(stages["sft"][-1].partition("=")[2].strip("'"), tmp_path / "base")
    sft = composed("train", *stages["sft"], *places, "name=later", f"init_from='{tmp_path}/base'")
    first = train(sft)
    shutil.rmtree(tmp_path / "base")
    assert train(sft) == first
