"""The edge between the scripts and the rest: logging, messages instead of tracebacks, exit codes.

0 done · 2 config · 3 data or artefact · 4 locked · 5 disk or memory · 6 numeric · 130/143 stopped by a signal, resumable
· 141 the reader of the output has gone.
"""

import contextlib
import functools
import gc
import logging
import os
import re
import select
import signal
import string
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from lightning_utilities.core import imports
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lumi.disk import disk_errors
from lumi.errors import ConfigError, LumiError, did_you_mean
from lumi.sweep.plugins import register

log = logging.getLogger(__name__)

_OF_TORCHMETRICS = ("transformers", "scipy", "matplotlib")


def run(main: Callable[[], None], *, spins: int = 0) -> None:
    """Call a ``@hydra.main`` function and end the process with the right exit code.

    Args:
        spins: so often a thread looks for work before it sleeps. A token of a small model is thirty short products, and to wake
            a thread for each takes as long as they do; 10,000 looks (0.13 milliseconds) make it 1.7 times as fast on two
            quiet cores, and cost where others want these cores too (docs/experiments.md).
    """
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra would print errors its own way and always exit with 1
    # Must stand before torch is imported. A thread that waits by spinning keeps the core from the one it waits for: on a
    # busy machine that made a step six times slower, and on an idle one sleeping costs next to nothing.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if spins:
        os.environ.setdefault("GOMP_SPINCOUNT", str(spins))
    start_logging()
    try:
        if sys.argv[1:] in (["--help"], ["-h"]):
            sys.stdout.write(help_text(Path(sys.argv[0]).resolve()) + "\n")
        else:
            gc.disable()  # until the job begins: Hydra makes many small objects, see `importing`
            register()
            main()
        sys.stdout.flush()
    except BrokenPipeError:
        _end_if_unread()
    except LumiError as error:
        _stop(error)
    except (HydraException, OmegaConfBaseException) as error:
        _stop(explain(error))
    except KeyboardInterrupt:
        sys.stderr.write("\nstopped\n")
        sys.exit(130)


def job(function: Callable[[DictConfig], None]) -> Callable[[DictConfig], None]:
    """Goes below ``@hydra.main``: an error of a single job ends the process before Hydra adds lines of its own.

    In a multirun it is left to Hydra, which notes it and goes on with the next job.
    """

    @functools.wraps(function)
    def guarded(cfg: DictConfig) -> None:
        gc.enable()
        try:
            _refuse_study_keys(cfg)
            with disk_errors(Path.cwd()):
                function(cfg)
        except LumiError as error:
            if HydraConfig.get().mode == RunMode.MULTIRUN:
                log.error("%s", error)
                raise
            _stop(error)

    return guarded


def _refuse_study_keys(cfg: DictConfig) -> None:
    """What belongs to many runs says nothing in the command of one."""
    hydra = HydraConfig.get()
    for word in hydra.overrides.task if "sweep" in cfg and hydra.mode == RunMode.RUN else ():
        if word.startswith(("sweep=", "sweep.", "study=", "slots=")):
            raise ConfigError(word, "is about several runs", "add -m")


@contextlib.contextmanager
def importing() -> Iterator[None]:
    """Goes around the imports of a job: they stand in its function, so that ``--help`` need not wait for torch.

    Half a million objects are made that all stay, and the garbage collector would look through them again and again: a
    fifth of the time. Afterwards they are frozen: no later collection looks at them, and no forked worker copies them.
    """
    gc.disable()
    try:
        with _without_optional(*_OF_TORCHMETRICS):
            yield
    finally:
        if gc.get_freeze_count() == 0:  # the second job of a multirun imports nothing, and its garbage should not stay
            gc.freeze()
        gc.enable()


@contextlib.contextmanager
def _without_optional(*packages: str) -> Iterator[None]:
    """Have Lightning's family take these packages as not installed while it is imported.

    torchmetrics, which Lightning imports, imports them wherever it finds them, for scores of translations and plots of metrics
    that nothing here uses: a third of the time to the first step.
    """
    is_met, is_there = imports.RequirementCache.__bool__, imports.package_available
    imports.RequirementCache.__bool__ = lambda self: not str(self.requirement).startswith(packages) and is_met(self)
    imports.package_available = lambda package_name: package_name not in packages and is_there(package_name)
    try:
        yield
    finally:
        imports.RequirementCache.__bool__, imports.package_available = is_met, is_there


def start_logging() -> None:
    """Lumi's own messages plainly on stderr; other packages only when something is wrong."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Format())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("lumi").setLevel(logging.INFO)
    # Each of these says nothing that a user of Lumi could or should act on.
    for message in (
        r".*does not have many workers.*",
        r".*your dataloader is not resumable.*",
        r".*Checkpoint directory .* exists.*",
        r".*`isinstance\(treespec, LeafSpec\)` is deprecated.*",
        r".*number of training batches.*is smaller than the logging interval.*",
    ):
        warnings.filterwarnings("ignore", message=message)


def help_text(script: Path) -> str:
    """What Hydra prints for ``--help``, in a quarter of its time: it copies the whole configuration for every group."""
    conf = script.parent / "conf"
    options: dict[str, list[str]] = {}
    for file in sorted(conf.glob("*/**/*.yaml")):
        group = file.parent.relative_to(conf).as_posix()
        if group.split("/")[0] != "hydra":
            options.setdefault(group, []).append(file.stem)
    groups = "".join(f"{group}: {', '.join(names)}\n" for group, names in sorted(options.items()))
    template = OmegaConf.select(OmegaConf.load(conf / f"{script.stem}.yaml"), "hydra.help.template")
    return string.Template(template).substitute(APP_CONFIG_GROUPS=groups)


def explain(error: Exception) -> ConfigError:
    """Hydra's and OmegaConf's complaints as ours, with the nearest name where a name is wrong."""
    text = str(error)
    missing = re.search(r"Could not find '([^']+)'\s+Available options in '([^']+)':\s*([\s\S]+)", text)
    if missing:
        group, _, option = missing[1].rpartition("/")
        options = [line.strip() for line in missing[3].splitlines() if line.strip()]
        return ConfigError(f"{group}={option}", "there is no such option", did_you_mean(option, options))
    unknown = re.search(r"Could not override '([^'@]+)[@']", text) or re.search(r"Could not override ([\w/.]+)", text)
    if unknown:
        parent, _, name = unknown[1].rpartition(".")
        siblings = _keys(parent, unknown[1])
        if not siblings:  # the mistake is further up
            name, siblings = unknown[1].split(".")[0], _keys("", unknown[1])
        return ConfigError(unknown[1], "is not a setting", did_you_mean(name, siblings))
    return ConfigError(text.strip().replace("\n", " "))


def _keys(parent: str, without: str) -> list[str]:
    """Keys at a place of the config as it would be without the setting that does not exist."""
    script = Path(sys.argv[0])
    overrides = [word for word in sys.argv[1:] if "=" in word and not word.lstrip("+~").startswith(without)]
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(script.resolve().parent / "conf"), version_base="1.3"):
            cfg = compose(script.stem, overrides)
            found = OmegaConf.select(cfg, parent) if parent else cfg
    except (HydraException, OmegaConfBaseException):
        return []  # more than one thing is wrong; the first is named
    return [str(key) for key in found] if isinstance(found, DictConfig) else []


def _end_if_unread() -> None:
    """``… | head -1``: whoever read the output has seen enough, and wants to hear nothing more.

    Raises:
        BrokenPipeError: the one that is being handled, of another pipe than the output's.
    """
    output = select.poll()
    output.register(sys.stdout.fileno(), 0)
    if output.poll(0):  # POLLERR: nobody is at the other end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python complains when it ends
        sys.exit(128 + signal.SIGPIPE)
    raise  # noqa: PLE0704  # called where it is handled


def _stop(error: LumiError) -> None:
    sys.stderr.write(f"\n{type(error).__name__}: {error}\n")
    sys.exit(error.exit_code)


class _Format(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        return text if record.levelno <= logging.INFO else f"{record.levelname.lower()}: {text}"
