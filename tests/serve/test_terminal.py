"""The terminal with scripted keys.

Most models here always write the same text: without attention or feed-forward, each token only decides the next one.
"""

import dataclasses
import io
import itertools
import random
import re
import signal
from collections.abc import Callable

import pytest
import torch

from lumi.arch import Decoder, DecoderConfig
from lumi.corpus.chat import ChatFiles, Conversation
from lumi.errors import ConfigError
from lumi.generate import SamplingParams, generate
from lumi.serve.terminal import chat
from lumi.tokenizer import Message, Template, Tokenizer, TokenizerConfig, train_tokenizer

V = 330  # all that the syllables below have to offer
TEMPLATE = Template(
    name="chat",
    system=["<|system|>", "<|end|>"],
    user=["<|user|>", "<|end|>"],
    assistant=["<|assistant|>", "<|end|>"],
    lead=" ",
)
GREEDY = SamplingParams(temperature=0, max_new_tokens=20)
WILD = SamplingParams(temperature=2.0, max_new_tokens=8, seed=5)
CTRL_C = KeyboardInterrupt()


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    rng = random.Random(0)
    words = ["".join(rng.choices(["ba", "do", "ké", "li", "mu", "😀"], k=rng.randint(1, 3))) for _ in range(2000)]
    folder = tmp_path_factory.mktemp("tokenizer") / "t"
    train_tokenizer(lambda: iter([" ".join(words)]), folder, TokenizerConfig(name="t", vocab_size=V), parents={})
    return Tokenizer.load(folder)


@pytest.fixture(scope="session")
def parrot(tokenizer) -> Callable[..., Decoder]:
    """``parrot("Helo!")``: always writes that, of different bytes, and then ends, or begins again."""

    byte = [f"<0x{value:02X}>" for value in range(256)]
    names = {piece.text: token for token, piece in enumerate(tokenizer.pieces)}

    def make(answer: str, *, max_seq_len: int = 256, ends: bool = True) -> Decoder:
        said = [names[byte[value]] for value in answer.encode()]
        chain = [tokenizer.controls["<|assistant|>"], *said, tokenizer.controls["<|end|>"] if ends else said[0]]
        config = DecoderConfig(
            vocab_size=V, n_layers=1, d_model=V + 2, n_heads=1, n_kv_heads=1, d_ff=8, max_seq_len=max_seq_len
        )
        decoder = Decoder(config)
        with torch.no_grad():
            for parameter in decoder.parameters():
                parameter.zero_()
            decoder.model.norm.weight.fill_(1.0)
            decoder.model.embed_tokens.weight.copy_(torch.eye(V, V + 2))
            for before, after in itertools.pairwise(chain):
                decoder.lm_head.weight[after, before] = 1.0
        return decoder

    return make


@pytest.fixture(scope="session")
def wild() -> Decoder:
    """Far from uniform, and reads all that came before."""
    config = DecoderConfig(vocab_size=V, n_layers=1, d_model=32, n_heads=4, n_kv_heads=2, d_ff=64, max_seq_len=128)
    torch.manual_seed(0)
    decoder = Decoder(config)
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.mul_(4.0)
    return decoder


@pytest.fixture(scope="session")
def hello(parrot) -> Decoder:
    return parrot(" Helo!")


class Keyboard(io.StringIO):
    """Somebody who types these lines, or presses Ctrl-C."""

    def __init__(self, *keys: str | KeyboardInterrupt) -> None:
        super().__init__()
        self.keys = iter(keys)

    def isatty(self) -> bool:
        return True

    def readline(self, size: int | None = -1, /) -> str:
        key = next(self.keys, None)
        if isinstance(key, KeyboardInterrupt):
            raise key
        return "" if key is None else f"{key}\n"


class Screen(io.StringIO):
    """What is seen; Ctrl-C is pressed once it shows ``press_at``."""

    def __init__(self, *, tty: bool = False, press_at: str | None = None, n_presses: int = 1) -> None:
        super().__init__()
        self.tty, self.press_at, self.n_presses = tty, press_at, n_presses

    def isatty(self) -> bool:
        return self.tty

    def write(self, text: str, /) -> int:
        n_written = super().write(text)
        if self.press_at is not None and self.press_at in self.getvalue():
            self.press_at = None
            for _ in range(self.n_presses):
                signal.raise_signal(signal.SIGINT)
        return n_written


@pytest.fixture
def seen(tokenizer) -> Callable[..., str]:
    """``seen(decoder, stdin, …)``: what `chat` has shown in the end."""

    def see(decoder, stdin, *, template=TEMPLATE, sampling=GREEDY, screen=None, **given) -> str:
        screen = screen or Screen()
        rest = {"name": "demo", "system": None, "prompt": None, "environ": {}, **given}
        chat(decoder, tokenizer, template, sampling, stdin=stdin, stdout=screen, **rest)
        return screen.getvalue()

    return see


@pytest.fixture
def talk(seen) -> Callable[..., str]:
    """``talk(decoder, "hi", "/undo")``: typed line by line."""
    return lambda decoder, *keys, **settings: seen(decoder, Keyboard(*keys), **settings)


@pytest.fixture
def once(seen) -> Callable[..., str]:
    """``once(decoder, prompt="hi")`` or ``once(decoder, piped="hi")``: a single answer."""
    return lambda decoder, piped="", **settings: seen(decoder, io.StringIO(piped), **settings)


def asked(tokenizer: Tokenizer, decoder: Decoder, params: SamplingParams, *contents: str, seed: int = 5) -> str:
    """The answer to a conversation, from the batch engine."""
    messages = [Message(role=("user", "assistant")[n % 2], content=text) for n, text in enumerate(contents)]
    ends = tuple(TEMPLATE.stop_ids(tokenizer))
    params = dataclasses.replace(params, stop_ids=ends, seed=seed)
    prompt = TEMPLATE.prompt(tokenizer, messages)
    (answer,) = generate(decoder, [prompt], params, eos_id=tokenizer.eos_id)
    return TEMPLATE.read(tokenizer, answer.tokens)


def saved(path) -> list[list[tuple[str, str]]]:
    """What prepare.py reads of a file."""
    found = []
    for one in ChatFiles(path=str(path), messages="messages").conversations():
        assert isinstance(one, Conversation)
        found.append([(message.role, message.content) for message in one.messages])
    return found


def answers(path) -> list[str]:
    return [content for role, content in saved(path)[0] if role == "assistant"]


def test_a_prompt_is_answered_and_nothing_else_is_written(once, hello):
    assert once(hello, prompt="hi", screen=Screen(tty=True)) == "Helo!\n"


def test_what_is_piped_is_one_prompt(once, hello, wild, tokenizer):
    expected = asked(tokenizer, wild, GREEDY, "one\ntwo")
    visible = "".join(char for char in expected if char.isprintable() or char in "\n\t")
    assert once(wild, piped="one\ntwo\n").rstrip("\n") == visible.rstrip("\n")
    assert once(hello, piped="hi\n") == "Helo!\n"


def test_an_answer_that_ends_its_line_gets_no_second_newline(once, parrot):
    assert once(parrot("hi\n"), prompt="x") == "hi\n"


def test_a_model_without_template_continues_the_text(once, talk, wild, tokenizer):
    prompt = [tokenizer.bos_id, *tokenizer.encode("ba do")]
    (expected,) = generate(wild, [prompt], GREEDY, eos_id=tokenizer.eos_id)
    shown = re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", "", tokenizer.decode(expected.tokens))
    assert once(wild, prompt="ba do", template=None).removesuffix("\n") == shown.removesuffix("\n")
    assert talk(wild, "mu", "ba do", template=None).count(shown) == 1


def test_a_system_message_without_a_template_is_an_error(once, wild):
    with pytest.raises(ConfigError, match="system='x' · needs a template"):
        once(wild, prompt="hi", template=None, system="x")


def test_an_answer_cannot_drive_the_terminal(talk, tmp_path, parrot):
    answer = "\x1b]0;name\x07\x9b3\r\b\x7f."
    shown = talk(parrot(answer), "hi", f"/save {tmp_path / 'x.jsonl'}", screen=Screen(tty=False))
    assert "]0;name3.\n" in shown
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", shown)
    assert answers(tmp_path / "x.jsonl") == [answer]


def test_the_model_reads_what_was_said_before(talk, wild, tokenizer, tmp_path):
    path = tmp_path / "chat.jsonl"
    talk(wild, "ba", "do", "li", f"/save {path}", sampling=WILD)
    first = asked(tokenizer, wild, WILD, "ba", seed=5)
    second = asked(tokenizer, wild, WILD, "ba", first, "do", seed=6)
    third = asked(tokenizer, wild, WILD, "ba", first, "do", second, "li", seed=7)
    assert answers(path) == [first, second, third]


def test_a_system_message_is_read_shown_and_saved(talk, wild, tmp_path):
    path = tmp_path / "chat.jsonl"
    shown = talk(wild, "/system be brief", "/system", "ba", f"/save {path}", "/system null")
    assert shown.count("system message: be brief") == 2
    assert "no system message" in shown
    assert saved(path)[0][0] == ("system", "be brief")


def test_an_unknown_command_gets_the_nearest_name(talk, hello):
    assert "/regenrate · is not a command · did you mean '/regenerate'?" in talk(hello, "/regenrate")


def test_help_names_every_command(talk, hello):
    named = re.findall(r"^(?:> )?(/\w+)", talk(hello, "/help"), re.MULTILINE)
    assert named == ["/help", "/system", "/reset", "/params", "/save", "/undo", "/regenerate", "/multi", "/quit"]


@pytest.mark.parametrize("keys", [("one\\", "two"), ("/multi", "one", "two", "."), ("/multi one", "two", ".")])
def test_a_message_of_several_lines(talk, hello, tmp_path, keys):
    talk(hello, *keys, f"/save {tmp_path / 'x.jsonl'}")
    assert saved(tmp_path / "x.jsonl") == [[("user", "one\ntwo"), ("assistant", "Helo!")]]


def test_a_line_that_begins_with_a_space_is_no_command(talk, hello):
    assert "Helo!" in talk(hello, " /etc")


def test_settings_change_from_the_next_answer_on(talk, hello, tmp_path):
    path = tmp_path / "chat.jsonl"
    shown = talk(hello, "a", "/params max_new_tokens=2 top_k=null stop_ids=[3,4]", "b", f"/save {path}")
    assert "temperature=0  top_k=null" in shown
    assert "max_new_tokens=2  min_new_tokens=0  stop_ids=[3, 4]" in shown
    assert answers(path) == ["Helo!", "H"]


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("temperature=-1", "sampling.temperature=-1 · must be a number from 0"),
        ("temperature=hot", "sampling.temperature='hot' · must be a number from 0"),
        ("top_kk=3", "top_kk=3 · is not a setting · did you mean 'top_k'?"),
        ("top_k", "top_k · needs a value"),
        ("top_k=[[", "sampling.top_k='[[' · must be"),
    ],
)
def test_a_wrong_setting_is_explained_and_changes_nothing(talk, hello, command, message):
    shown = talk(hello, f"/params max_new_tokens=3 {command}", "/params")
    assert message in shown
    assert "max_new_tokens=20" in shown


def test_a_saved_file_of_others_is_not_overwritten(talk, hello, tmp_path):
    path = tmp_path / "chat.jsonl"
    path.write_text("mine")
    assert "exists, and is not of this conversation" in talk(hello, "hi", f"/save {path}")
    assert path.read_text() == "mine"


def test_a_conversation_may_be_saved_again_but_not_over_an_earlier_one(talk, hello, tmp_path):
    save = f"/save {tmp_path / 'chat.jsonl'}"
    shown = talk(hello, "a", save, "b", save, "/reset", "c", save)
    assert shown.count("saved 1 row") == 2
    assert [content for role, content in saved(tmp_path / "chat.jsonl")[0] if role == "user"] == ["a", "b"]


def test_exchanges_of_a_model_of_text_are_saved_one_a_row(talk, wild, tmp_path):
    path = tmp_path / "chat.jsonl"
    shown = talk(wild, "ba do", "mu", f"/save {path}", "/system x", template=None)
    assert [[role for role, _ in row] for row in saved(path)] == [["user", "assistant"]] * 2
    assert "/system · needs a model with a template" in shown


def test_what_prepare_would_refuse_is_said(talk, tmp_path, parrot):
    shown = talk(parrot("a\0b"), "hi", f"/save {tmp_path / 'x.jsonl'}")
    assert "prepare.py will not take it: not text: a NUL" in shown


def test_without_an_answer_there_is_nothing_to_save_undo_or_regenerate(talk, hello, tmp_path):
    shown = talk(hello, f"/save {tmp_path / 'x'}", "/save", "/undo", "/regenerate")
    assert shown.count("there is none yet") == 2
    assert "has no question with an answer yet" in shown
    assert "needs the name of a file" in shown


def test_a_file_that_cannot_be_written_is_named(talk, hello, tmp_path):
    (tmp_path / "file").write_text("")
    assert "cannot be written" in talk(hello, "hi", f"/save {tmp_path / 'file' / 'x'}")


def test_undo_forgets_the_last_exchange(talk, wild, tokenizer, tmp_path):
    path = tmp_path / "chat.jsonl"
    talk(wild, "ba", "do", "/undo", f"/save {path}", sampling=WILD)
    assert answers(path) == [asked(tokenizer, wild, WILD, "ba")]


def test_regenerating_gives_another_answer_and_the_same_one_next_time(talk, wild, tmp_path):
    for name in ("a", "b"):
        talk(
            wild,
            "ba",
            f"/save {tmp_path / name}.jsonl",
            "/regenerate",
            f"/save {tmp_path / name}2.jsonl",
            sampling=WILD,
        )
    first, second = answers(tmp_path / "a.jsonl"), answers(tmp_path / "a2.jsonl")
    assert first != second
    assert (first, second) == (answers(tmp_path / "b.jsonl"), answers(tmp_path / "b2.jsonl"))


def test_a_full_context_is_said_once_and_nothing_is_lost(talk, parrot, tmp_path):
    path = tmp_path / "chat.jsonl"
    shown = talk(parrot("Helo!", max_seq_len=64), *"abcdefgh", "/regenerate", f"/save {path}", system="be brief")
    assert shown.count("the context of 64 tokens is full") == 1
    assert answers(path) == ["Helo!"] * 8


def test_a_message_that_is_too_long_is_refused_and_the_conversation_goes_on(talk, parrot):
    decoder = parrot("Helo!", max_seq_len=64)
    shown = talk(decoder, "a", "x" * 80, "b")
    assert re.search(r"the prompt has 8\d tokens .*max_seq_len=64, one must be left · shorten it", shown)
    assert shown.count("Helo!") == 2


def test_ctrl_c_twice_ends_the_conversation_and_once_does_not(talk, hello):
    assert "Helo!" not in talk(hello, CTRL_C, CTRL_C, "hi")
    assert "Helo!" in talk(hello, CTRL_C, "hi", CTRL_C, CTRL_C)


def test_ctrl_c_during_an_answer_ends_the_answer_only(talk, tmp_path, parrot):
    before = signal.getsignal(signal.SIGINT)
    decoder, path = parrot("abc", ends=False), tmp_path / "chat.jsonl"
    endless = SamplingParams(temperature=0, max_new_tokens=200)
    screen = Screen(tty=True, press_at="abcabc")
    shown = talk(decoder, "hi", f"/save {path}", sampling=endless, screen=screen, environ={"TERM": "dumb"})
    assert re.search(r"abcabc\n6 tokens · [\d,.]+ tokens/s · interrupted\n", shown)
    assert answers(path) == ["abcabc"]
    assert signal.getsignal(signal.SIGINT) is before


def test_a_second_ctrl_c_during_an_answer_ends_it_at_once_and_keeps_it(talk, parrot, tmp_path):
    path = tmp_path / "chat.jsonl"
    screen = Screen(press_at="abcabc", n_presses=2)
    talk(parrot("abc", ends=False), "hi", f"/save {path}", screen=screen)
    assert answers(path) == ["abcabc"]


def test_regenerating_keeps_the_old_answer_when_there_is_no_new_one(talk, hello, tmp_path):
    path = tmp_path / "chat.jsonl"
    shown = talk(hello, "hi", "/system " + "x" * 300, "/regenerate", "/system null", f"/save {path}")
    assert "one must be left" in shown
    assert answers(path) == ["Helo!"]


def test_quit_ends_the_conversation(talk, hello):
    assert "Helo!" not in talk(hello, "/quit", "hi")


def test_a_terminal_gets_figures_after_an_answer_and_a_file_does_not(talk, hello):
    assert re.search(
        r"\x1b\[2m6 tokens · [\d,.]+ tokens/s · stop\x1b\[0m\n", talk(hello, "hi", screen=Screen(tty=True))
    )
    assert "tokens/s" not in talk(hello, "hi")


def test_the_figures_say_why_an_answer_is_cut(talk, parrot):
    decoder = parrot("abc", max_seq_len=32, ends=False)
    assert "length: max_new_tokens=20" in talk(decoder, "a", screen=Screen(tty=True))
    long = SamplingParams(temperature=0, max_new_tokens=100)
    assert "length: the context is full" in talk(decoder, "a", sampling=long, screen=Screen(tty=True))
