"""The edge between the scripts and the rest: logging, messages instead of tracebacks, exit codes.

0 done · 2 config · 3 data or artefact · 4 locked · 5 disk or memory · 6 numeric · 130/143 stopped by a signal, resumable.
"""

import logging
import os
import re
import sys
import warnings
from collections.abc import Callable

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from lumi.errors import ConfigError, LumiError, did_you_mean

log = logging.getLogger(__name__)


def run(main: Callable[[], None]) -> None:
    """Call a ``@hydra.main`` function and end the process with the right exit code."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra would print errors its own way and always exit with 1
    start_logging()
    try:
        main()
    except LumiError as error:
        _stop(error)
    except (HydraException, OmegaConfBaseException) as error:
        _stop(explain(error))
    except KeyboardInterrupt:
        sys.stderr.write("\nstopped\n")
        sys.exit(130)


def start_logging() -> None:
    """Lumi's own messages plainly on stderr; other packages only when something is wrong."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Format())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("lumi").setLevel(logging.INFO)
    for package in ("pytorch_lightning", "lightning.pytorch", "lightning.fabric"):
        logging.getLogger(package).setLevel(logging.WARNING)
    # Each of these says nothing that a user of Lumi could or should act on.
    for message in (
        r".*does not have many workers.*",
        r".*your dataloader is not resumable.*",
        r".*Checkpoint directory .* exists.*",
        r".*`isinstance\(treespec, LeafSpec\)` is deprecated.*",
        r".*number of training batches.*is smaller than the logging interval.*",
    ):
        warnings.filterwarnings("ignore", message=message)


def explain(error: Exception) -> ConfigError:
    """Hydra's and OmegaConf's complaints as ours, with the nearest name where a name is wrong."""
    text = str(error)
    missing = re.search(r"Could not find '([^']+)'\s+Available options in '([^']+)':\s*([\s\S]+)", text)
    if missing:
        group, _, option = missing[1].rpartition("/")
        options = [line.strip() for line in missing[3].splitlines() if line.strip()]
        return ConfigError(f"{group}={option}", "there is no such option", did_you_mean(option, options))
    unknown = re.search(r"Could not override '([^']+)'", text)
    if unknown:
        known = re.findall(r"Key '([^']+)' is not in struct", text)
        return ConfigError(
            unknown[1], f"is not a setting{f' ({known[0]} is unknown there)' if known else ''}", "see --cfg job"
        )
    no_match = re.search(r"No match in the defaults list[^']*'([^']+)'", text) or re.search(
        r"Could not override '?([\w/.@]+)", text
    )
    if no_match:
        return ConfigError(no_match[1], "is not a group or a setting", "see --help")
    return ConfigError(text.strip().replace("\n", " "))


def _stop(error: LumiError) -> None:
    sys.stderr.write(f"\n{type(error).__name__}: {error}\n")
    sys.exit(error.exit_code)


class _Format(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        return text if record.levelno <= logging.INFO else f"{record.levelname.lower()}: {text}"
