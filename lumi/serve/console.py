"""Lines from a keyboard or another program, and text for a screen that it must not drive."""

import contextlib
import signal
import sys
import threading
from collections.abc import Mapping
from typing import Any, Self, TextIO

from lumi.errors import ConfigError, DataError

_CONTROL = {code: None for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"}


class Console:
    """Where a conversation is read and written.

    Args:
        stdin, stdout: terminals, pipes or files.
        environ: ``NO_COLOR`` and ``TERM=dumb`` switch colours off.

    Attributes:
        is_terminal: whether somebody looks at what is written.
    """

    def __init__(self, stdin: TextIO, stdout: TextIO, environ: Mapping[str, str]) -> None:
        self.stdin, self.stdout = stdin, stdout
        self.is_terminal = stdout.isatty()
        self._dim = self.is_terminal and not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"
        self._edits = False

    def edit_lines(self) -> None:
        """Let ``input`` read lines where it can, with a history where Python has readline."""
        if self.stdin is not sys.stdin or self.stdout is not sys.stdout or not self.is_terminal:
            return
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401 - to be imported is all that it takes
        self._edits = True

    def read_line(self, mark: str) -> str:
        """One line, asked for with ``mark``, without its end.

        Raises:
            EOFError: there is none.
            UnicodeDecodeError: it is not in the encoding of the terminal.
        """
        if self._edits:
            return input(mark)
        self.write(mark)
        line = self.stdin.readline()
        if not line:
            raise EOFError
        return line.removesuffix("\n")

    def read_all(self) -> str:
        """What another program wrote, without the newline at its end.

        Raises:
            ConfigError: it is nothing.
            DataError: it is not text.
        """
        try:
            text = self.stdin.read().removesuffix("\n")
        except UnicodeDecodeError as error:
            raise DataError(
                "standard input", f"is not {error.encoding} ({error.reason} at byte {error.start:,})"
            ) from None
        if not text:
            raise ConfigError("standard input", "is empty", "write a prompt to it, or give prompt=…")
        return text

    def show(self, text: str) -> str:
        """Write what a model or a user wrote, without what would drive the terminal; returns what is left."""
        shown = text.translate(_CONTROL)
        if shown:
            self.write(shown)
        return shown

    def notice(self, text: str) -> None:
        """Write lines of ours, dimmed."""
        text = text.translate(_CONTROL)
        self.write(f"\x1b[2m{text}\x1b[0m\n" if self._dim else f"{text}\n")

    def write(self, text: str) -> None:
        """Write what is known to be harmless; what the screen's encoding lacks becomes a question mark."""
        encoding = getattr(self.stdout, "encoding", None) or "utf-8"
        self.stdout.write(text.encode(encoding, "replace").decode(encoding))
        self.stdout.flush()


class Interrupt:
    """Inside the block Ctrl-C is noted, so that an answer ends between two tokens; a second one is a KeyboardInterrupt."""

    def __init__(self) -> None:
        self.pressed = False
        self._before: Any = None

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():  # Python allows it nowhere else
            self._before = signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    def _note(self, *_: object) -> None:
        if self.pressed:  # the model may be stuck within one token
            raise KeyboardInterrupt
        self.pressed = True
