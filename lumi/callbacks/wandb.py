"""``logger=wandb``: Weights & Biases.

Whatever concerns W&B happens in one thread of its own: training puts rows into a queue and goes on, whether the server
answers, hangs or refuses. If a run cannot be opened, it is written to files that ``wandb sync`` sends later. ``metrics.csv``
is complete in any case.
"""

import logging
import os
import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning_utilities.core.rank_zero import rank_zero_only
from pytorch_lightning.loggers import Logger

from lumi.callbacks import lineage
from lumi.callbacks.checkpoint import list_checkpoints
from lumi.callbacks.metrics import need
from lumi.callbacks.tracking import RunCard, State, best_validation
from lumi.errors import ConfigError
from lumi.secret import public

log = logging.getLogger(__name__)

_WAITING = 10_000
"""Rows that may wait for a server; beyond that they are in ``metrics.csv`` only."""

_EXIT_CODES = {
    "finished": 0,
    "stopped": 255,
    "failed": 1,
}  # 255 is what W&B takes for a run that was ended from outside

Job = Callable[[Any], None]


class WandB(Logger):
    """A run of Weights & Biases; one that is continued goes on with the same one.

    Args:
        run_folder: of the run; files go to ``<run>/wandb``, its name is the run's.
        card: what the run is.
        project: on the server.
        entity: team or user; null is the default one.
        offline: write files only; ``wandb sync`` sends them later.
        group: of runs; null is the study that the run belongs to, if any.
        tags: of the run; null is size, corpus and optimizer.
        artifacts: what it is made from and what it makes: ``references`` are manifests with the SHA-256 of every file,
            ``files`` uploads those files too, null notes nothing.
        patience_seconds: so long the server may take to open the run, and at the end to take what is left; then it goes to
            files. Training waits at its end only.
    """

    def __init__(
        self,
        *,
        run_folder: Path,
        card: RunCard,
        project: str = "lumi",
        entity: str | None = None,
        offline: bool = False,
        group: str | None = None,
        tags: Sequence[str] | None = None,
        artifacts: lineage.Artifacts | None = "references",
        patience_seconds: float = 30.0,
    ) -> None:
        super().__init__()
        need("wandb")
        if not offline:
            check_key("logger=wandb")
        self.run_folder, self.card, self.offline, self.patience_seconds = run_folder, card, offline, patience_seconds
        self.artifacts: lineage.Artifacts | None = artifacts
        self._place = {"project": project, "entity": entity, "group": group or card.study, "tags": tags or card.tags}
        self._jobs: queue.Queue[Job | None] = queue.Queue(_WAITING)
        self._thread: threading.Thread | None = None
        self._table: Any = None
        self._has_warned = self._has_set_folder = False

    @property
    def name(self) -> str:
        """The project, for Lightning."""
        return str(self._place["project"])

    @property
    def version(self) -> str:
        """The run, for Lightning."""
        return self.card.run_id

    @property
    def experiment(self) -> None:
        """Lightning asks for this before training: the thread starts."""
        self._start()

    @rank_zero_only
    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="wandb", daemon=True)
            self._thread.start()

    @rank_zero_only
    def log_hyperparams(self, params: Any) -> None:
        """Nothing: the run's config is sent when it is opened."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """One row; several of a step are joined."""
        row = dict(metrics)
        self._put(lambda run: _log(run, row, step))

    @rank_zero_only
    def log_samples(self, rows: Sequence[tuple[str, str]], step: int) -> None:
        """Add to the table of samples."""
        added = [(step, *row) for row in rows]
        self._put(lambda run: self._log_samples(run, added, step))

    @rank_zero_only
    def close(self, state: State) -> None:
        """Send what is left and end the W&B run: the next one of this process (a job of a multirun) is another."""
        if self._thread is None:
            return
        self._put(lambda run: self._end(run, state))
        self._jobs.put(None)
        # To open and to end; and what the client itself takes to notice that it has waited long enough.
        self._thread.join(2 * self.patience_seconds + 5)
        if self._thread.is_alive():
            self._warn("the server takes too long")
        self._thread = None

    def _put(self, job: Job) -> None:
        try:
            self._jobs.put_nowait(job)
        except queue.Full:
            self._warn(f"{_WAITING:,} rows wait for the server, further ones are left out")

    def _work(self) -> None:
        """The thread: open the run, then one job after the other."""
        try:
            run = self._open()
        except Exception as error:  # noqa: BLE001  # nothing that a client of a service raises may reach training
            self._warn(f"no W&B run ({first_line(error)})")
            run = None
        while (job := self._jobs.get()) is not None:
            if run is None:
                continue
            try:
                job(run)
            except Exception as error:  # noqa: BLE001  # as above; the next job may go well
                self._warn(first_line(error))
        if self._has_set_folder:
            del os.environ["WANDB_DATA_DIR"]  # the next run of this process has its own

    def _open(self) -> Any:
        """The run on the server; in files where that cannot be had."""
        # The client takes these from the environment only. Its errors would be reported to its maker, and the end of the
        # process waits for that; files of artifacts would lie in the home folder until they are sent.
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        if "WANDB_DATA_DIR" not in os.environ:
            os.environ["WANDB_DATA_DIR"] = str(self.run_folder.absolute() / "wandb")
            self._has_set_folder = True
        import wandb

        try:
            run = self._init("offline" if self.offline else None)
        except wandb.Error as error:
            self._warn(f"the server does not open a run ({first_line(error)}); writing files only")
            wandb.teardown()  # else the name of the run is taken
            run = self._init("offline")
        if not run.offline:
            log.info("W&B: %s", run.url)
        for axis in ("progress/tokens", "progress/flops"):
            run.define_metric(axis)
        run.define_metric("*", step_metric="progress/tokens")
        run.summary.update({**self.card.summary(), "state": "running"})
        if self.artifacts is not None:
            for folder in self.card.inputs:
                lineage.use(run, folder, self.artifacts)
        return run

    def _init(self, mode: Any) -> Any:
        import wandb

        settings = wandb.Settings(
            console="off",  # Lumi's lines say where files lie; metrics and samples are sent as such
            silent=True,
            save_code=False,
            disable_git=True,  # the commit is in the config
            x_disable_meta=True,  # command line, user, folders
            x_disable_viewer=True,  # a query that waits ten seconds longer than init_timeout
            x_save_requirements=False,
            init_timeout=self.patience_seconds,
            finish_timeout=self.patience_seconds,
        )
        return wandb.init(
            **self._place,
            mode=mode,
            id=self.card.run_id,
            name=self.run_folder.name,
            dir=self.run_folder,
            job_type=self.card.stage,
            config=public(self.card.config(), os.environ, Path.home()),
            resume="allow",
            reinit="create_new",
            settings=settings,
        )

    def _log_samples(self, run: Any, rows: Sequence[tuple[int, str, str]], step: int) -> None:
        import wandb

        if self._table is None:
            # Each time the new rows only are sent, and a resumed run adds to what is there.
            self._table = wandb.Table(columns=["step", "prompt", "continuation"], log_mode="INCREMENTAL")
        for row in rows:
            self._table.add_data(*row)
        _log(run, {"samples": self._table}, step)

    def _end(self, run: Any, state: State) -> None:
        run.summary.update({**best_validation(self.run_folder / "metrics.csv"), "state": state})
        checkpoints = list_checkpoints(self.run_folder / "checkpoints")
        if self.artifacts is not None and state == "finished" and checkpoints:
            step, folder = checkpoints[0]
            lineage.make(run, folder, self.artifacts, [f"step-{step}"])
        run.finish(exit_code=_EXIT_CODES[state])

    def _warn(self, what: str) -> None:
        if self._has_warned:
            return
        self._has_warned = True
        log.warning(
            "logger=wandb: %s · training goes on, metrics.csv has every row · wandb sync %s/wandb/* sends its files later",
            what, self.run_folder,
        )  # fmt: skip


def _log(run: Any, row: dict[str, Any], step: int | None) -> None:
    # A run that continues from a checkpoint repeats the steps after it, bit for bit; W&B refuses to go back.
    if step is None or step >= run.step:
        run.log(row, step=step)


def check_key(setting: str) -> None:
    """Complain if there is no key; the client would ask for it in the middle of everything.

    Raises:
        ConfigError: a key is needed.
    """
    import wandb

    is_online = wandb.setup().settings.mode in ("online", "run", "shared")
    if is_online and not wandb.login(prompt=False, verify=False):  # whether it is a good one, opening the run will tell
        raise ConfigError(
            setting, "needs a key", "wandb login, or WANDB_API_KEY; logger.wandb.offline=true writes files only"
        )


def first_line(error: Exception) -> str:
    """Of a client's error, which may go on with the answer of a server."""
    return (str(error).splitlines() or [type(error).__name__])[0]
