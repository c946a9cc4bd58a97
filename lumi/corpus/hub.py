"""Rows of data sets on the Hugging Face hub, streamed; the access token comes from the environment (HF_TOKEN) only."""

import itertools
import logging
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from lumi.corpus.rows import read_json_rows
from lumi.errors import ConfigError, DataError

log = logging.getLogger(__name__)

ALL_SUBSETS = "*"
_ATTEMPTS = 4
_FIRST_PAUSE = 2.0  # seconds; doubles
_PASSING_STATUS = (408, 429)  # a time-out, too many requests: those of 4xx that may be answered otherwise later
# The HTTP clients below `datasets` have errors of their own. Whoever has raised one has been imported.
_CLIENT_ERRORS = {"httpx": "RequestError", "aiohttp": "ClientError"}
_PACKAGE_ERRORS = {"datasets.exceptions": "DatasetsError"}

T = TypeVar("T")


def hub_rows(
    dataset: str, subset: str | None, split: str, revision: str | None, *, offline: str, start: int = 0
) -> Iterator[tuple[str, dict[str, Any]]]:
    """(place, row) of every row of a split, from the ``start``-th on; the place has the number of the row, from 0.

    A stream that breaks off is opened again at the row that it had reached, so that a row comes neither twice nor never.

    Args:
        dataset: its name on the hub, ``owner/name``.
        subset: its configuration; null is the only one, ``*`` takes all, in the order of their names.
        split: such as train; ``train[:100]`` is not understood while streaming.
        revision: a commit or tag, so that the rows cannot change; null is the newest.
        offline: what to do without a network, for the error.
        start: rows to pass over; they are fetched all the same.

    Raises:
        ConfigError: the package is not installed.
        DataError: the data set cannot be reached or does not exist, after several attempts.
    """
    hub = _package()

    def opened(name: str | None, number: int) -> Iterator[tuple[str, dict[str, Any]]]:
        place = f"{dataset}{f'/{name}' if name else ''}:{split}"
        patience = _Patience(dataset, offline)
        while True:
            try:
                rows = hub.load_dataset(dataset, name, split=split, revision=revision, streaming=True)
                for row in rows.skip(number) if number else rows:
                    yield f"{place}:{number}", row
                    number += 1
                    patience.progress()
                return
            # The iterator is dead now: asked for another row, it would say that there are none left.
            except _failures() as error:
                patience.wait(error)

    if subset != ALL_SUBSETS:
        yield from opened(subset, start)
        return
    names = _patiently(lambda: hub.get_dataset_config_names(dataset, revision=revision), _Patience(dataset, offline))
    # Nobody knows how many rows a subset has before they were read.
    yield from itertools.islice(itertools.chain.from_iterable(opened(name, 0) for name in sorted(names)), start, None)


def hub_count(dataset: str, subset: str | None, split: str, revision: str | None) -> int | None:
    """How many rows the hub says that a split has; None where it does not say, or where it cannot be asked.

    Raises:
        ConfigError: the package is not installed.
    """
    hub = _package()
    if subset == ALL_SUBSETS:
        return None
    try:
        splits = hub.load_dataset_builder(dataset, subset, revision=revision).info.splits
    except _failures() as error:
        log.info("%s: the hub does not tell its size (%s)", dataset, type(error).__name__)
        return None
    return splits[split].num_examples if splits and split in splits else None


def open_rows(
    path: str | list[str] | None, dataset: str | None, subset: str | None, split: str, revision: str | None, *, key: str
) -> Iterator[tuple[str, dict[str, Any] | str]]:
    """(place, row) of local files where there is a path, else of the hub; a row that cannot be read is a string that says why.

    Args:
        key: of the settings, for the error that names the way out without a network.
    """
    if path is not None:
        return read_json_rows(path)
    assert dataset is not None, "checked when made"
    return hub_rows(dataset, subset, split, revision, offline=f"{key}.path=FILE reads a local copy")


def hub_settings(dataset: str, subset: str | None, split: str, revision: str | None) -> dict[str, Any]:
    """What names the rows; without a revision they may change under the same name, and nobody would know."""
    if revision is None:
        log.warning("%s: no revision is set, so its rows may change; revision=COMMIT fixes them", dataset)
    return {"dataset": dataset, "subset": subset, "split": split, "revision": revision}


def _package() -> Any:
    try:
        import datasets  # optional, and seconds of import
    except ImportError:
        raise ConfigError(
            "the package datasets", "is needed to read from the hub", "pip install 'lumi[hub]', or give path=FILE"
        ) from None
    datasets.disable_progress_bars()
    return datasets


class _Patience:
    """Waits after a failure, longer each time, and gives up after several in a row.

    Args:
        dataset: for messages.
        offline: what to do without a network, for the error.
    """

    def __init__(self, dataset: str, offline: str) -> None:
        self._dataset, self._offline, self._n_failures = dataset, offline, 0

    def progress(self) -> None:
        """The next failure is a first one again."""
        self._n_failures = 0

    def wait(self, error: Exception) -> None:
        """Pause before another attempt.

        Raises:
            DataError: it was the last attempt, or another one would end in the same way.
        """
        self._n_failures += 1
        reason = f"{type(error).__name__}: {str(error).partition(chr(10))[0][:200]}"
        transient = _is_transient(error)
        if not transient or self._n_failures == _ATTEMPTS:
            rule = "needs a network"
            if not transient:
                rule = "check its name, subset, split and revision; a gated one wants HF_TOKEN in the environment"
            raise DataError(f"{self._dataset} cannot be read from the hub ({reason})", rule, self._offline) from None
        pause = _FIRST_PAUSE * 2 ** (self._n_failures - 1)
        log.warning("%s: %s; again in %.0f s", self._dataset, reason, pause)
        time.sleep(pause)


def _patiently(action: Callable[[], T], patience: _Patience) -> T:
    """Do it, again after growing pauses when the network fails."""
    while True:
        try:
            return action()
        except _failures() as error:
            patience.wait(error)


def _failures() -> tuple[type[Exception], ...]:
    """What reading from the hub raises: a broken network, or a name that does not exist, which is a ValueError."""
    return (*_network_errors(), RuntimeError, ValueError, *_imported(_PACKAGE_ERRORS))


def _network_errors() -> tuple[type[Exception], ...]:
    # A packed file that the network cut short has no end, or another one.
    return (OSError, EOFError, zlib.error, *_imported(_CLIENT_ERRORS))


def _imported(names: dict[str, str]) -> list[type[Exception]]:
    return [getattr(sys.modules[module], name) for module, name in names.items() if module in sys.modules]


def _is_transient(error: Exception) -> bool:
    """Whether the same request may go well a moment later."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(status, int) and 400 <= status < 500 and status not in _PASSING_STATUS:
        return False
    return isinstance(error, _network_errors()) and not isinstance(error, FileNotFoundError)
