"""A conversation with a model in a terminal, and its answer to one prompt in a pipeline.

    python serve.py mode=chat model=runs/demo-sft
    echo "Where does Vesna Lambourne live?" | python serve.py mode=chat model=runs/demo-sft

A model without a template continues each prompt, one by one. What a model writes is shown without control characters: an
answer must not move the cursor, rename the window or paste into the shell; ``/save`` keeps it as it is.
"""

import contextlib
import dataclasses
import json
import os
import time
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import Any, TextIO

from lumi.arch import Decoder
from lumi.arch.fused import FusedDecoder
from lumi.errors import ConfigError, DataError, LumiError, did_you_mean
from lumi.generate import SamplingParams, stream
from lumi.generate.sampling import MAX_SEED
from lumi.manifest import write_atomic
from lumi.serve.console import Console, Interrupt
from lumi.serve.dialogue import Dialogue, Exchange
from lumi.serve.text import TextStream
from lumi.tokenizer import Template, Tokenizer

HELP = {
    "/help": "this list",
    "/system TEXT": "a system message from the next answer on; null for none, nothing to see it",
    "/reset": "begin a new conversation",
    "/params KEY=VALUE …": "change how tokens are chosen; nothing to see it",
    "/save FILE": "write the conversation as a row of JSONL that prepare.py reads (+chat@data.sources.NAME=messages)",
    "/undo": "forget the last question and its answer",
    "/regenerate": "another answer to the last question",
    "/multi": "several lines, until one with only a full stop",
    "/quit": "end; so does Ctrl-D, or Ctrl-C twice",
}
_SIGNS = "A line that ends in \\ goes on in the next; one that begins with a space is never a command."
_NEXT_ATTEMPT = 1_000_003  # apart from the seeds of the turns, which follow each other


def chat(
    decoder: Decoder | FusedDecoder,
    tokenizer: Tokenizer,
    template: Template | None,
    sampling: SamplingParams,
    *,
    name: str,
    system: str | None,
    prompt: str | None,
    stdin: TextIO,
    stdout: TextIO,
    environ: Mapping[str, str] = os.environ,
) -> None:
    """Talk until the user ends it; or answer once, if there is a prompt or ``stdin`` is not a terminal.

    Args:
        decoder: on any device.
        tokenizer, template: the model's own; a template of None is a model of text.
        sampling: of the first answers; its seed is that of the first answer, later ones derive theirs from it.
        name: of the model, for the greeting.
        system: a system message, or None.
        prompt: answer this and nothing else; None reads ``stdin``.
        stdin, stdout: where to read and write.
        environ: ``NO_COLOR`` and ``TERM=dumb`` switch colours off.

    Raises:
        ConfigError: a system message for a model without template, or nothing on ``stdin``.
        DataError, NumericError: of a single answer: the prompt is too long or not text; the model is broken.
    """
    if system is not None and template is None:
        raise ConfigError(f"system={system!r}", f"needs a template, and {name} continues plain text", "leave it out")
    dialogue = Dialogue(tokenizer, template, decoder.config.max_seq_len, system)
    console = Console(stdin, stdout, environ)
    terminal = Terminal(decoder, dialogue, sampling, console)
    if prompt is not None:
        terminal.answer_once(prompt)
    elif stdin.isatty():
        terminal.talk(name)
    else:
        terminal.answer_once(console.read_all())


class Terminal:
    """Reads lines and writes answers; see `chat` for its arguments."""

    def __init__(
        self, decoder: Decoder | FusedDecoder, dialogue: Dialogue, sampling: SamplingParams, console: Console
    ) -> None:
        self.decoder, self.dialogue, self.sampling, self.console = decoder, dialogue, sampling, console
        self._said_full = self._pressed = self._ended = False
        self._saved: set[Path] = set()  # what this conversation may overwrite
        self._commands: dict[str, Callable[[str], object]] = {
            "/help": self._help,
            "/system": self._system,
            "/reset": self._reset,
            "/params": self._params,
            "/save": self._save,
            "/undo": self._undo,
            "/regenerate": self._regenerate,
            "/multi": self._multi,
            "/quit": self._quit,
        }

    def answer_once(self, prompt: str) -> None:
        """Write the answer to one prompt and nothing else.

        Raises:
            LumiError: as `chat`.
        """
        ids = self.dialogue.prompt_ids(prompt, self.sampling.max_new_tokens)
        for _ in self._stream(ids, self._params_of(0, 0), self._text_stream()):
            pass

    def talk(self, name: str) -> None:
        """Until Ctrl-D, a second Ctrl-C or ``/quit``."""
        self.console.edit_lines()
        continues = "" if self.dialogue.template else ", a model of text: it continues what you write"
        self.console.notice(f"{name}{continues} · /help shows the commands")
        with contextlib.suppress(KeyboardInterrupt):  # pressed again while the hint was being written
            while not self._ended:
                try:
                    self._step()
                except KeyboardInterrupt:
                    self._ended, self._pressed = self._pressed, True
                    self.console.write("\n")
                    if not self._ended:
                        self.console.notice("Ctrl-C again, or Ctrl-D, ends the conversation")

    def _step(self) -> None:
        """One message, or one command."""
        try:
            message = self._read_message()
            self._pressed = False
            self._handle(message)
        except EOFError:
            self.console.write("\n")
            self._ended = True
        except UnicodeDecodeError as error:
            self.console.notice(f"input · is not {error.encoding} · set the terminal to it")
        except LumiError as error:
            self.console.notice(f"{error}")

    def _handle(self, message: str) -> None:
        """A command or a question.

        Raises:
            LumiError: it cannot be done.
        """
        if not message.strip():
            return
        if not message.startswith("/"):
            self._ask(message)
            return
        word, *rest = message.split(maxsplit=1)
        if word not in self._commands:
            raise ConfigError(word, "is not a command", did_you_mean(word, self._commands))
        self._commands[word](rest[0].strip() if rest else "")

    def _ask(self, prompt: str, attempt: int = 0) -> None:
        """Answer, and remember it unless it was interrupted before the first token."""
        was_dropped = self.dialogue.n_dropped
        ids = self.dialogue.prompt_ids(prompt, self.sampling.max_new_tokens)
        if self.dialogue.n_dropped > was_dropped and not self._said_full:
            self._said_full = True
            self.console.notice(
                f"the context of {self.dialogue.context_tokens:,} tokens is full: the model no longer reads the oldest turns"
            )
        params, text, n_tokens = self._params_of(len(self.dialogue.exchanges), attempt), self._text_stream(), 0
        begin = time.perf_counter()
        with Interrupt() as interrupt:
            with contextlib.suppress(KeyboardInterrupt), contextlib.closing(self._stream(ids, params, text)) as steps:
                for _ in steps:
                    n_tokens += 1
                    if interrupt.pressed:
                        break
            seconds = time.perf_counter() - begin
            if interrupt.pressed and n_tokens == 0:
                return
            self.dialogue.exchanges.append(Exchange(prompt=prompt, answer=text.text, attempt=attempt))
        if self.console.is_terminal:
            reason = "interrupted" if interrupt.pressed else self._finish_reason(len(ids), n_tokens)
            self.console.notice(f"{n_tokens:,} tokens · {n_tokens / seconds:,.1f} tokens/s · {reason}")

    def _stream(self, ids: list[int], params: SamplingParams, text: TextStream) -> Generator[None, None, None]:
        """Show an answer token by token; however it is left, what was held back is shown, and the line ended."""
        shown = ""
        try:
            for token in stream(self.decoder, ids, params, eos_id=self.dialogue.tokenizer.eos_id):
                shown = self.console.show(text.push(token)) or shown
                yield
        finally:
            shown = self.console.show(text.finish()) or shown
            if not shown.endswith("\n"):
                self.console.write("\n")

    def _finish_reason(self, n_prompt: int, n_tokens: int) -> str:
        if n_tokens == self.sampling.max_new_tokens:
            return f"length: max_new_tokens={n_tokens}"
        return "length: the context is full" if n_prompt + n_tokens == self.dialogue.context_tokens else "stop"

    def _params_of(self, turn: int, attempt: int) -> SamplingParams:
        """The settings with the template's end, and a seed that only the place in the conversation decides."""
        params, template = self.sampling, self.dialogue.template
        ends = template.stop_ids(self.dialogue.tokenizer) if template else []
        seed = None if params.seed is None else (params.seed + turn + _NEXT_ATTEMPT * attempt) % (MAX_SEED + 1)
        return dataclasses.replace(params, stop_ids=(*params.stop_ids, *ends), seed=seed)

    def _text_stream(self) -> TextStream:
        template = self.dialogue.template
        return TextStream(self.dialogue.tokenizer, lead=template.lead if template else "")

    def _help(self, _: str) -> None:
        lines = [f"{usage:21}{what}" for usage, what in HELP.items()]
        self.console.notice("\n".join([*lines, _SIGNS]))

    def _system(self, text: str) -> None:
        if self.dialogue.template is None:
            raise ConfigError("/system", "needs a model with a template; this one continues plain text")
        if text:
            self.dialogue.system = None if text == "null" else text
        system = self.dialogue.system
        self.console.notice("no system message" if system is None else f"system message: {system}")

    def _reset(self, _: str) -> None:
        self.dialogue.exchanges.clear()
        self.dialogue.n_dropped = 0
        self._said_full = False
        self._saved.clear()
        self.console.notice("a new conversation")

    def _params(self, text: str) -> None:
        changes = dict(_setting(part) for part in text.split())
        self.sampling = dataclasses.replace(self.sampling, **changes)
        values = dataclasses.asdict(self.sampling).items()
        self.console.notice("  ".join(f"{key}={json.dumps(value)}" for key, value in values))

    def _save(self, name: str) -> None:
        from lumi.corpus.chat.conversation import conversation_fault  # late: few conversations are saved

        if not name:
            raise ConfigError("/save", "needs the name of a file", "/save chat.jsonl")
        rows = self.dialogue.rows()
        if not rows:
            raise DataError("the conversation", "has no question with an answer yet")
        lines = [json.dumps({"messages": [dataclasses.asdict(one) for one in row]}, ensure_ascii=False) for row in rows]
        try:
            path = Path(name).expanduser().resolve()
            if path.exists() and path not in self._saved:
                raise ConfigError(name, "exists, and is not of this conversation", "choose another name")
            write_atomic(path, "".join(f"{line}\n" for line in lines))
        except (OSError, RuntimeError, ValueError) as error:  # nobody's home, a name that is none
            raise DataError(name, f"cannot be written: {getattr(error, 'strerror', None) or error}") from None
        self._saved.add(path)
        self.console.notice(f"saved {len(rows)} {'row' if len(rows) == 1 else 'rows'} in {path}")
        for fault in filter(None, (conversation_fault(tuple(row)) for row in rows)):
            self.console.notice(f"prepare.py will not take it: {fault}")

    def _undo(self, _: str) -> None:
        self._need_exchange("/undo")
        prompt = self.dialogue.pop().prompt
        self.console.notice(f"forgotten: {prompt if len(prompt) <= 60 else prompt[:59] + '…'}")

    def _regenerate(self, _: str) -> None:
        self._need_exchange("/regenerate")
        last = self.dialogue.pop()
        n_left = len(self.dialogue.exchanges)
        try:
            self._ask(last.prompt, last.attempt + 1)
        finally:
            if len(self.dialogue.exchanges) == n_left:  # there is no better one
                self.dialogue.exchanges.append(last)

    def _multi(self, first: str) -> None:
        lines = [first] if first else []
        with contextlib.suppress(EOFError):
            while (line := self.console.read_line(". ")) != ".":
                lines.append(line)
        message = "\n".join(lines)
        if message.strip():
            self._ask(message)

    def _quit(self, _: str) -> None:
        self._ended = True

    def _need_exchange(self, command: str) -> None:
        if not self.dialogue.exchanges:
            raise ConfigError(command, "needs a question with an answer, and there is none yet")

    def _read_message(self) -> str:
        lines = [self.console.read_line("> ")]
        with contextlib.suppress(EOFError):
            while lines[-1].endswith("\\"):
                lines[-1] = lines[-1][:-1]
                lines.append(self.console.read_line(". "))
        return "\n".join(lines)


def _setting(part: str) -> tuple[str, Any]:
    """``key=value`` of `SamplingParams`; it checks the value itself.

    Raises:
        ConfigError: it is none, or there is no such key.
    """
    key, equals, value = part.partition("=")
    known = [field.name for field in dataclasses.fields(SamplingParams)]
    if key not in known:
        raise ConfigError(part, "is not a setting", did_you_mean(key, known))
    if not equals:
        raise ConfigError(part, "needs a value", f"/params {key}=…")
    try:
        return key, json.loads(value)
    except (ValueError, RecursionError):
        return key, value  # a word, which no setting takes: the message shall name it
