"""Where Hydra meets a study: its sweeper and its launcher.

Hydra takes plugins from a package ``hydra_plugins`` only, and imports all that is in it at every start. Ours stand here, say
that they are of that package, are registered by hand, and import what they need when a study begins.
"""

import gc
import importlib
import sys
import types
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from lumi.errors import ConfigError

if TYPE_CHECKING:
    from lumi.sweep.slots import Slots
    from lumi.sweep.study import Study

_PACKAGE = "hydra_plugins"


class StudySweeper(Sweeper):
    """Begins or continues a study (``hydra/sweeper=study``).

    Args:
        params: swept keys and their values, as an experiment's file may name them; the command line wins.
    """

    __module__ = f"{_PACKAGE}.lumi"

    def __init__(self, params: dict[str, Any] | None = None) -> None:
        self.params = dict(params or {})

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Called by Hydra before `sweep`."""
        self._context, self._task, self._config = hydra_context, task_function, config

    def sweep(self, arguments: list[str]) -> None:
        """Train what the command asks for and what is not there yet."""
        from lumi.sweep.command import Command

        gc.enable()  # lumi.cli has switched it off until a job begins
        params = [f"{key}={value}" for key, value in self.params.items()]
        Command(self._context, self._task, self._config, [*params, *arguments]).execute()


class SlotsLauncher(Launcher):
    """Says that jobs are child processes of the study (``hydra/launcher=slots``); it runs them itself: `lumi.sweep.slots`."""

    __module__ = f"{_PACKAGE}.lumi"

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Nothing to prepare."""

    def runner(self, study: "Study", script: Sequence[str], *, slots: int, metric: str, total: int | None) -> "Slots":
        """What runs the jobs."""
        from lumi.sweep.slots import Slots

        return Slots(study, script, slots=slots, metric=metric, total=total)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Refuse another sweeper."""
        raise ConfigError("hydra/launcher=slots or ray", "needs hydra/sweeper=study", "or take hydra/launcher=basic")


class RayLauncher(SlotsLauncher):
    """Says that jobs are processes of a Ray cluster: `lumi.sweep.ray`.

    Args:
        resources: keys and values of `lumi.sweep.ray.Resources`.
    """

    __module__ = f"{_PACKAGE}.lumi"

    def __init__(self, **resources: Any) -> None:
        self._resources = resources

    def runner(self, study: "Study", script: Sequence[str], *, slots: int, metric: str, total: int | None) -> "Slots":
        """What runs the jobs; ``slots`` is of this machine, and Ray has its own count."""
        from lumi.sweep.ray import RaySlots, Resources

        return RaySlots(study, script, Resources(**self._resources), metric=metric, total=total)


def register() -> None:
    """Make them known to Hydra."""
    plugins = Plugins.instance()
    try:
        importlib.import_module(_PACKAGE)
    except ModuleNotFoundError:  # there is no other plugin
        sys.modules[_PACKAGE] = types.ModuleType(_PACKAGE)
    sys.modules[f"{_PACKAGE}.lumi"] = sys.modules[__name__]  # Hydra looks the class up by its name
    for plugin in (StudySweeper, SlotsLauncher, RayLauncher):
        plugins.register(plugin)
