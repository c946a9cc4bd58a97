"""The terminal on a real pseudo-terminal, where Ctrl-C is a signal and lines are edited."""

import json
import os
import pty
import select
import sys
import textwrap
import time
from pathlib import Path

ENDLESS = """
    import sys, time, torch
    from pathlib import Path
    from lumi.arch import Decoder, DecoderConfig
    from lumi.generate import SamplingParams
    from lumi.serve.terminal import chat
    from lumi.tokenizer import Template, Tokenizer, TokenizerConfig, train_tokenizer

    class Slow(Decoder):
        def forward(self, *args, **kwargs):
            time.sleep(0.02)
            return super().forward(*args, **kwargs)

    torch.set_num_threads(1)
    config = TokenizerConfig(name="t", vocab_size=400, exact_size=False)
    train_tokenizer(lambda: iter(["one two three four five six"]), Path(sys.argv[1]), config, parents={})
    tokenizer = Tokenizer.load(Path(sys.argv[1]))
    V = tokenizer.vocab_size
    decoder = Slow(DecoderConfig(vocab_size=V, n_layers=1, d_model=4, n_heads=1, n_kv_heads=1, d_ff=8, max_seq_len=1024))
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.fill_(1.0)
        decoder.lm_head.weight.zero_()
        decoder.lm_head.weight[[piece.text for piece in tokenizer.pieces].index("<0x61>")] = 1.0  # a, whatever was before
    template = Template(name="t", system=["", ""], user=["", "<|end|>"], assistant=["", "<|end|>"])
    sampling = SamplingParams(temperature=0, max_new_tokens=900)
    chat(decoder, tokenizer, template, sampling, name="demo", system=None, prompt=None, stdin=sys.stdin, stdout=sys.stdout)
    print("ended")
"""


class Pty:
    """A program on a terminal of its own."""

    def __init__(self, *command: str) -> None:
        self.pid, self.master = pty.fork()
        if self.pid == 0:
            os.execvpe(command[0], command, {**os.environ, "TERM": "dumb", "OMP_NUM_THREADS": "1"})
        self.seen = ""

    def press(self, keys: str) -> None:
        os.write(self.master, keys.encode())

    def wait_until_asleep(self) -> None:
        """Python's ``input`` misses a signal between its prompt and its first wait for a key. No hand is so fast, a test is."""
        n_asleep = 0
        while n_asleep < 3:
            state = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0]
            n_asleep = n_asleep + 1 if state == "S" else 0
            time.sleep(0.02)

    def wait_for(self, text: str, seconds: float = 60) -> str:
        """Read until ``text`` has come; returns what stands before it and forgets all of it."""
        end = time.monotonic() + seconds
        while text not in self.seen:
            assert time.monotonic() < end, f"{text!r} did not come: {self.seen[-500:]!r}"
            if select.select([self.master], [], [], 1)[0]:
                self.seen += self._read()
        before, _, self.seen = self.seen.partition(text)
        return before

    def close(self) -> int:
        """The exit code."""
        status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        os.close(self.master)
        return status

    def _read(self) -> str:
        try:
            return os.read(self.master, 4096).decode(errors="replace")
        except OSError:  # how Linux says that nobody holds the other end any more
            raise AssertionError(f"the program ended: {self.seen[-2000:]}") from None


def test_ctrl_c_on_a_real_terminal_stops_the_answer_then_the_program(tmp_path):
    terminal = Pty(sys.executable, "-c", textwrap.dedent(ENDLESS), str(tmp_path / "tokenizer"))
    terminal.wait_for("> ")
    terminal.press("hi\n")
    terminal.wait_for("aaaaa")
    terminal.press("\x03")
    assert "Traceback" not in terminal.wait_for("interrupted")
    terminal.press(f"/save {tmp_path / 'x.jsonl'}\n")
    terminal.wait_for("saved 1 row")
    terminal.wait_for("> ")
    terminal.wait_until_asleep()
    terminal.press("\x03")
    terminal.wait_for("Ctrl-C again")
    terminal.wait_for("> ")
    terminal.wait_until_asleep()
    terminal.press("\x03")
    terminal.wait_for("ended")
    assert terminal.close() == 0
    (row,) = [json.loads(line) for line in (tmp_path / "x.jsonl").read_text().splitlines()]
    assert row["messages"][1]["content"].startswith("aaaaa")
