"""Reading from a pipe and writing to a screen."""

import io
import signal

import pytest

from lumi.errors import ConfigError, DataError
from lumi.serve.console import Console, Interrupt


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_pipe_is_read_whole_without_its_last_newline():
    assert Console(io.StringIO("one\ntwo\n\n"), io.StringIO(), {}).read_all() == "one\ntwo\n"


def test_an_empty_pipe_is_an_error():
    with pytest.raises(ConfigError, match="standard input · is empty"):
        Console(io.StringIO("\n"), io.StringIO(), {}).read_all()


def test_bytes_that_are_no_text_are_an_error():
    stdin = io.TextIOWrapper(io.BytesIO(b"ok\xff"), encoding="utf-8")
    with pytest.raises(DataError, match=r"standard input · is not utf-8 .* at byte 2"):
        Console(stdin, io.StringIO(), {}).read_all()


def test_a_screen_that_knows_ascii_only_gets_question_marks():
    stdout = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    Console(io.StringIO(), stdout, {}).write("aé·\n")
    stdout.seek(0)
    assert stdout.read() == "a??\n"


@pytest.mark.parametrize("code", [*range(32), *range(127, 160)])
def test_only_tabs_and_newlines_of_the_control_characters_are_shown(code):
    screen = io.StringIO()
    assert Console(io.StringIO(), screen, {}).show(f"a{chr(code)}b") == screen.getvalue()
    assert screen.getvalue() == (f"a{chr(code)}b" if chr(code) in "\t\n" else "ab")


@pytest.mark.parametrize(
    ("screen", "environ", "dim"),
    [
        (Terminal, {}, True),
        (Terminal, {"NO_COLOR": "1"}, False),
        (Terminal, {"NO_COLOR": "", "TERM": "xterm"}, True),
        (Terminal, {"TERM": "dumb"}, False),
        (io.StringIO, {}, False),
    ],
)
def test_a_notice_is_dim_where_that_can_be_seen_and_is_wanted(screen, environ, dim):
    stdout = screen()
    Console(io.StringIO(), stdout, environ).notice("a\x1bb")
    assert stdout.getvalue() == ("\x1b[2mab\x1b[0m\n" if dim else "ab\n")


def test_the_first_ctrl_c_is_noted_and_the_second_one_raised_and_then_all_is_as_before():
    before = signal.getsignal(signal.SIGINT)
    with Interrupt() as interrupt:
        signal.raise_signal(signal.SIGINT)
        assert interrupt.pressed
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before
