"""Signals that ask a run to stop: noted from before the first batch is read until the last step is validated."""

import contextlib
import logging
import signal
import time
from collections.abc import Iterator
from types import FrameType

from pytorch_lightning.utilities.exceptions import SIGTERMException

from lumi.errors import DataError, Interrupted

log = logging.getLogger(__name__)

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
_EXIT_AS = {signal.SIGUSR1: signal.SIGTERM}
"""A cluster announces preemption with either of them: one exit code says that the job is to be queued again."""
_SAME_REQUEST_SECONDS = 1.0
"""A cluster signals every process of a job, and the launcher passes on what it got: that is one request."""


class _AtOnce(BaseException):
    """Asked twice. No Exception, or code that tolerates errors would go on; no KeyboardInterrupt, or Lightning would exit 1."""


class StopRequest:
    """What signals have asked for.

    Attributes:
        number: of the signal that came, 0 before.
        is_heeded: whether anything acts on it; if not, signals do what they always do.
    """

    def __init__(self) -> None:
        self.number, self.is_heeded, self._since = 0, False, 0.0

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Note signals while the block runs; a second one, a second or more after the first, ends it at once.

        Lightning takes SIGTERM for itself while a loop starts, and would end the process with exit code 0.

        Raises:
            Interrupted: asked twice, or Lightning or a data worker was first.
        """
        if not self.is_heeded:
            yield
            return
        before = {number: signal.signal(number, self._remember) for number in _SIGNALS}
        try:
            yield
        except _AtOnce:
            raise self.interruption("", "at once, as it came twice") from None
        except SIGTERMException:
            self.number = self.number or signal.SIGTERM
            raise self.interruption("", "before its next step") from None
        except DataError as error:  # a cluster signals the workers that read data too, and those die of it
            if not self.number:
                raise
            raise self.interruption("", f"with what reads its data ({error.found})") from None
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def renew(self) -> None:
        """Take the signals back from Lightning, whose loops take them when they start."""
        if signal.getsignal(signal.SIGTERM) not in (signal.SIG_DFL, self._remember):
            for number in _SIGNALS:
                signal.signal(number, self._remember)

    def interruption(self, where: str, how: str = "") -> Interrupted:
        """The error that ends the run.

        Args:
            where: everything up to it is saved; "" where only the last checkpoint is.
            how: the run ends.
        """
        number = signal.Signals(self.number)
        return Interrupted(
            f"stopped by {number.name} {where or how}",
            "everything up to it is saved" if where else "the last checkpoint is whole",
            "run the same command again to continue",
            signal_number=_EXIT_AS.get(number, number),
        )

    def _remember(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.number:
            if now - self._since < _SAME_REQUEST_SECONDS:
                return
            raise _AtOnce
        self.number, self._since = number, now
        log.warning("%s: finishing this step, then saving", signal.Signals(number).name)
