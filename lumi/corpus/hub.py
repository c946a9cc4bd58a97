"""Rows of data sets on the Hugging Face hub, streamed; the access token comes from the environment (HF_TOKEN) only."""

import logging
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from lumi.corpus.rows import read_json_rows
from lumi.errors import ConfigError, DataError

log = logging.getLogger(__name__)

ALL_SUBSETS = "*"
_ATTEMPTS = 4
_FIRST_PAUSE = 2.0  # seconds; doubles

T = TypeVar("T")


def hub_rows(
    dataset: str, subset: str | None, split: str, revision: str | None, *, offline: str
) -> Iterator[tuple[str, dict[str, Any]]]:
    """(place, row) of every row of a split.

    Args:
        dataset: its name on the hub, ``owner/name``.
        subset: its configuration; null is the only one, ``*`` takes all, in the order of their names.
        split: such as train; ``train[:100]`` is not understood while streaming.
        revision: a commit or tag, so that the rows cannot change; null is the newest.
        offline: what to do without a network, for the error.

    Raises:
        ConfigError: the package is not installed.
        DataError: the data set cannot be reached or does not exist, after several attempts.
    """
    hub = _package()
    names: list[str | None] = [subset]
    if subset == ALL_SUBSETS:
        found = _patiently(lambda: hub.get_dataset_config_names(dataset, revision=revision), dataset, offline)
        names = sorted(found)
    for name in names:
        rows = _patiently(
            lambda name=name: iter(hub.load_dataset(dataset, name, split=split, revision=revision, streaming=True)),
            dataset,
            offline,
        )
        for number in range(2**62):
            # A stream that breaks off is not begun again in the middle: `datasets` itself retries a read.
            row = _patiently(lambda rows=rows: next(rows, None), dataset, offline, attempts=1)
            if row is None:
                break
            yield f"{dataset}{f'/{name}' if name else ''}:{split}:{number}", row


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


def _patiently(action: Callable[[], T], dataset: str, offline: str, attempts: int = _ATTEMPTS) -> T:
    """Do it, again after growing pauses when the network fails."""
    pause = _FIRST_PAUSE
    for attempt in range(1, attempts + 1):
        try:
            return action()
        except (
            OSError,
            RuntimeError,
            ValueError,
        ) as error:  # the network's errors are OSErrors, a wrong name is a ValueError
            reason = f"{type(error).__name__}: {str(error).partition(chr(10))[0][:200]}"
            transient = isinstance(error, OSError) and not isinstance(error, FileNotFoundError)
            if attempt == attempts or not transient:
                raise DataError(
                    f"{dataset} cannot be read from the hub ({reason})", "needs a network", offline
                ) from None
            log.warning("%s: %s; again in %.0f s", dataset, reason, pause)
            time.sleep(pause)
            pause *= 2
    raise AssertionError("the last attempt returns or raises")
