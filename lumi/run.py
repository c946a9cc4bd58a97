"""A training run from its config: check, prepare, build in a fixed order, fit, report.

`train` is what ``train.py`` calls. The run lives in one folder:

    runs/<name>/
      config.yaml      the resolved config           run.json      its state, for resuming and for the tools
      metrics.csv      every logged row              samples/      text written at each validation
      checkpoints/     step_00001000.ckpt/ …         tensorboard/, wandb/   when those loggers are on
"""

import contextlib
import copy
import dataclasses
import functools
import json
import logging
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from omegaconf import DictConfig
from tqdm.contrib.logging import logging_redirect_tqdm

from lumi.arch import Decoder, DecoderConfig
from lumi.callbacks import FolderCheckpointIO, MetricsCsv, RunCard, RunFacts, State, Tracker, best_checkpoint, made_from
from lumi.callbacks.progress import peak_memory_bytes
from lumi.callbacks.stopping import StopRequest
from lumi.config import build, find_class, resolve
from lumi.data import Curriculum, MixedWindows, PreferenceData, RunLength
from lumi.disk import disk_errors
from lumi.doctor import Subject, ask_quickly, say_all
from lumi.errors import ConfigError, DataError, Interrupted
from lumi.failures import explained, micro_batch
from lumi.identity import decisive, read_state, run_folder
from lumi.initial import (
    check_template,
    check_tokenizer,
    checkpoint_identity,
    finished_metrics,
    initial_model,
    run_time_config,
    taken_over,
)
from lumi.launch import launch
from lumi.lock import folder_lock
from lumi.manifest import MANIFEST, fingerprint, read_manifest
from lumi.optim import Recipe
from lumi.parallel import lightning_strategy
from lumi.plan import Budget
from lumi.planning import compare_plan, kept_steps, measure_hours, plan_of, say_plan
from lumi.profile import Work, gather
from lumi.provenance import made_by
from lumi.ranks import Ranks, joined, starts_alone
from lumi.reference import attach_reference
from lumi.resume import check_same_data, note_changes, save_state, starting_point, versions
from lumi.settings import Settings, check, data_arguments
from lumi.stage.base import Sources, Stage
from lumi.tokenizer import Tokenizer
from lumi.trained import Trained, load_trained, save_trained
from lumi.trainer import TrainerConfig

log = logging.getLogger(__name__)


def train(cfg: DictConfig) -> dict[str, float]:
    """Train, or continue training, the run that the config describes.

    Returns:
        The last value of every metric.

    Raises:
        LumiError: whatever is the user's to fix, before any work where that is possible.
    """
    settings = resolve(cfg)
    check(settings)
    setup: TrainerConfig = build(settings["trainer"], "trainer")
    if settings["plan"] or settings.get("doctor") is True:
        tried = _Run(settings, run_folder(settings), None, Ranks())
        tried.measure() if settings["plan"] else say_all(tried.subject())
        return {}
    if starts_alone(setup.world_size, setup.num_nodes):
        launch(settings, setup.world_size)
        return read_state(run_folder(settings))["metrics"]
    return train_rank(settings)


def train_rank(settings: Settings) -> dict[str, float]:
    """`train` in one of the run's processes."""
    folder = run_folder(settings)
    setup: TrainerConfig = build(settings["trainer"], "trainer")
    with joined(setup.device(), group_of_one=setup.strategy == "fsdp") as ranks, contextlib.ExitStack() as held:
        ranks.first_does(lambda: held.enter_context(folder_lock(folder)))
        held.enter_context(disk_errors(folder))  # of every logger and callback that writes
        start = ranks.first_does(lambda: starting_point(settings, folder))
        if start == "finished":
            return finished_metrics(settings, folder)
        return _Run(settings, folder, start, ranks).execute()


class _Run:
    """One run between its folder's lock and its last row of metrics; `execute` reads from top to bottom."""

    def __init__(self, settings: Settings, folder: Path, start: Path | str | None, ranks: Ranks) -> None:
        self.settings, self.folder, self.ranks = settings, folder, ranks
        self.start = start if isinstance(start, Path) else None
        self.start_step = read_manifest(self.start, kind="checkpoint").info["step"] if self.start else 0
        self.trainer_config: TrainerConfig = build(settings["trainer"], "trainer")
        self.budget: Budget = build(settings["budget"], "budget")
        self.initial: dict[str, Any] = {}
        self.stop = StopRequest()

    def measure(self) -> None:
        """Say what the run would take, and train nothing; no folder of a run is made."""
        config, _, stage = self._prepare()
        say_plan(self._work(stage), self.data, self.curriculum, config, self.budget, self.settings["law"])

    def subject(self) -> Subject:
        """What the doctor examines: the run as it is before its first step; no folder of a run is made."""
        _, initial, stage = self._prepare()
        return self._subject(stage, initial)

    def _subject(self, stage: Stage, initial: Trained | None) -> Subject:
        setup = self.trainer_config
        return Subject(stage=stage, data=self.data, setup=setup, initial=initial, compiled=self.compiles)

    def _prepare(self) -> tuple[DecoderConfig, Trained | None, Stage]:
        """Data, model and stage; the length of the run."""
        self.trainer_config.prepare_process()
        pl.seed_everything(self.settings["seed"], workers=True, verbose=False)
        self.data: MixedWindows = build(self.settings["data"], "data", **data_arguments(self.settings))
        initial = self._initial_model()
        self.ranks.first_does(self.data.prepare_data)
        self.data.setup()
        if initial is not None:
            check_tokenizer(self.data.tokenizer.sha256, initial)
        config: DecoderConfig = build(self.settings["arch"], "arch", vocab_size=self.data.tokenizer.vocab_size)
        self.decoder = Decoder(config)
        recipe: Recipe = build(self.settings["optim"], "optim")
        recipe.initialise(self.decoder.named_parameters(), init_qk_std=config.init_qk_std)
        if initial is not None:
            self.decoder = Decoder(run_time_config(self.settings, initial))
            self.decoder.load_state_dict(initial.decoder.state_dict())
        self.total_steps = self.ranks.first_does(lambda: self._length(config))
        self.data.length = RunLength(
            total_steps=self.total_steps, accumulate=self.trainer_config.accumulate, start_step=self.start_step
        )
        return config, initial, self._stage()

    def execute(self) -> dict[str, float]:
        """Prepare, build, fit."""
        _, initial, stage = self._prepare()
        with explained(micro_batch(self.data, self.trainer_config, self.decoder.config)):
            self.plan = plan_of(self._work(stage), self.data, self.curriculum, self.budget)
        if self.start:
            check_same_data(self.start, self.data.fingerprints(), compiled=self.compiles)
            if self.ranks.is_first:
                note_changes(self.folder, self.start, self.settings)
        self._announce()
        if stage.needs_reference:
            self._attach_reference(initial)
        if self.start is None and self.settings.get("doctor") == "quick":
            self.ranks.first_does(lambda: ask_quickly(self._subject(stage, initial)))
        self._save_state("running", {})
        trainer = self._trainer(self.decoder.config, stage)
        before = peak_memory_bytes()
        self._fit(trainer, stage)
        if stage.lora is not None and stage.lora.merge and self.ranks.is_first:
            best = best_checkpoint(self.folder / "checkpoints")  # None unless callbacks.checkpoint.keep_best
            save_trained(load_trained(best or self.folder), self.folder / "merged")
            log.info("merged model: %s", self.folder / "merged")
        metrics = {**stage.step_metrics, **stage.val_metrics}
        prediction = compare_plan(self.plan, self.folder, self.start_step, before)
        self._save_state("finished", metrics, prediction=prediction)
        return metrics

    def _fit(self, trainer: pl.Trainer, stage: Any) -> None:
        """Train to the last step, which has its validation too; close the loggers however it ends."""
        state: State = "failed"
        try:
            held = micro_batch(self.data, self.trainer_config, self.decoder.config, self.plan)
            with logging_redirect_tqdm([logging.getLogger()]), self.stop.listening(), explained(held):
                trainer.fit(stage, datamodule=self.data, ckpt_path=str(self.start) if self.start else None)
                if self.total_steps % self.val_every_steps and not trainer.should_stop:
                    trainer.validate(stage, datamodule=self.data, verbose=False)
            state = "finished"
        except Interrupted:
            state = "stopped"
            raise
        finally:
            for logger in trainer.loggers:
                if isinstance(logger, Tracker):
                    logger.close(state)

    def _initial_model(self) -> Trained | None:
        """The model that this stage starts from; a resumed run looks where it began, not for a newer one."""
        stage_class = find_class(self.settings["stage"])
        settings, expected, before = self.settings, None, None
        if self.start is not None:
            before = json.loads((self.start / "run.json").read_bytes()).get("initial")
            settings = {**settings, "init_from": before["path"] if before else None}
            if before is None and stage_class.follows is not None:
                return None
        elif (folder := self.data.tokenizer_folder) is not None and (folder / MANIFEST).exists():
            expected = Tokenizer.load(folder).sha256
        trained = initial_model(settings, stage_class.follows, expected)
        if trained is None:
            return None
        weights = checkpoint_identity(trained.checkpoint)
        self.initial = {
            "path": str(trained.checkpoint),
            "weights": weights,
            "stage": stage_class.follows,
            "tokenizer": trained.tokenizer.sha256,
        }
        if before is not None and before["weights"] != self.initial["weights"]:
            raise DataError(
                f"{before['path']}", "has other weights than when this run began", "name=… starts another run"
            )
        self.data.beginning = taken_over(trained)
        if stage_class.follows is not None:
            check_template(getattr(self.data, "template", None), trained)
        elif expected is not None:
            check_tokenizer(expected, trained)
        return trained

    def _attach_reference(self, initial: Trained | None) -> None:
        """Log-probabilities of the pairs under the model that the run starts from."""
        if initial is None:
            raise ConfigError(
                "init_from=null",
                "this loss compares with a reference model",
                "give one, or take stage.objective.kind=simpo or orpo, or stage.objective.reference_free=true",
            )
        device = self.trainer_config.device()
        assert isinstance(self.data, PreferenceData), "a stage with a reference reads preference data"
        precision = self.trainer_config.resolved_precision()
        attach = functools.partial(attach_reference, self.data, initial.decoder.to(device), self.initial, precision)
        self.ranks.first_does(attach)
        if not self.ranks.is_first:
            attach()  # reads what the first rank has computed
        initial.decoder.cpu()

    @property
    def val_every_steps(self) -> int:
        """Ten validations a run, unless the config says otherwise."""
        return self.trainer_config.val_every_steps or max(1, self.total_steps // 10)

    @property
    def curriculum(self) -> Curriculum:
        """What each step reads; its length is known once the run's is."""
        setup = self.trainer_config
        return self.data.curriculum(setup.accumulate * setup.world_size, self.data.length.total_steps)

    @property
    def compiles(self) -> bool:
        """Whether the blocks are compiled."""
        tokens = self.curriculum.tokens(self.total_steps)
        return self.trainer_config.compiles(self.decoder.config.flops_per_token(self.data.seq_len) * tokens)

    def _length(self, config: DecoderConfig) -> int:
        """Optimizer steps, from the budget; those of hours are measured once and then kept."""
        if self.budget.hours is not None and not self.settings["plan"]:
            kept = kept_steps(self.folder, self.settings["budget"])
            return kept or self.start_step + self._measure_hours(self.budget.hours)
        return self.budget.total_steps(
            tokens_per_step=self.curriculum.tokens_per_step,
            epoch_tokens=self.data.n_tokens,
            n_params=config.n_params(),
            flops_per_token=config.flops_per_token(self.data.seq_len),
        )

    def _measure_hours(self, hours: float) -> int:
        """Steps that hours have, by a copy of the model: a stage may put an adapter on it."""
        decoder, self.decoder, self.total_steps = self.decoder, copy.deepcopy(self.decoder), 1
        steps = measure_hours(hours, self._work(self._stage()), self.data)
        self.decoder = decoder
        return steps

    def _work(self, stage: Stage) -> Work:
        """A step of this run, to be measured."""
        return gather(stage, self.data.example(), self.trainer_config, compiled=self.compiles)

    def _stage(self) -> Any:
        data = self.data
        token_bytes = torch.from_numpy(data.tokenizer.token_bytes())
        sources = Sources(names=data.source_names, weights=data.weights, token_bytes=token_bytes)
        return build(
            self.settings["stage"],
            "stage",
            decoder=self.decoder,
            recipe=build(self.settings["optim"], "optim"),
            sources=sources,
            total_steps=self.total_steps,
            accumulate=self.trainer_config.accumulate,
            seed=self.settings["seed"],
            max_skipped_steps=self.trainer_config.max_skipped_steps,
        )

    def _trainer(self, config: DecoderConfig, stage: Stage) -> pl.Trainer:
        setup = self.trainer_config
        parallel = lightning_strategy(setup.strategy, self.ranks)
        if self.compiles:
            self.decoder.compile_blocks()
        return pl.Trainer(
            **setup.lightning_arguments(),
            max_steps=self.total_steps,
            val_check_interval=self.val_every_steps * setup.accumulate,
            logger=[MetricsCsv(self.folder / "metrics.csv", self.start_step), *self._loggers()],
            callbacks=self._callbacks(),
            plugins=[FolderCheckpointIO(self._facts(config, stage)), *parallel["plugins"]],
            strategy=parallel["strategy"],
            default_root_dir=self.folder,
        )

    def _loggers(self) -> list[Any]:
        offered = {"run_folder": self.folder, "card": self._card()}
        nodes = self.settings["logger"] or {}
        return [build(node, f"logger.{name}", **offered) for name, node in nodes.items() if node]

    def _callbacks(self) -> list[pl.Callback]:
        data, plan, curriculum = self.data, self.plan, self.curriculum
        mixture = data.mixture(curriculum)
        offered = {
            "run_folder": self.folder,
            "total_steps": self.total_steps,
            "val_every_steps": self.val_every_steps,
            "stop": self.stop,
            "tokens": curriculum.tokens,
            "taken": lambda step: mixture.taken(curriculum.samples(step)).tolist(),
            "epoch_tokens": data.n_tokens,
            "flops_per_token": plan.flops_per_token,
            "peak_flops": plan.peak_flops,
            "sources": data.source_names,
            "tokenizer": data.tokenizer,
            "template": getattr(data, "template", None),
            "decoder": self.decoder,
        }
        nodes = self.settings["callbacks"] or {}
        return [build(node, f"callbacks.{name}", **offered) for name, node in nodes.items() if node]

    def _facts(self, config: DecoderConfig, stage: Stage) -> RunFacts:
        tokenizer = self.data.tokenizer
        return RunFacts(
            decoder=config,
            tokenizer=tokenizer.model_bytes,
            tokenizer_sha256=tokenizer.sha256,
            tokens=self.curriculum.tokens,
            lora=stage.lora,
            facts={
                "name": self.folder.name,
                "settings": self.settings,
                "data": self.data.fingerprints(),
                **self.data.facts(),
                **({"initial": self.initial} if self.initial else {}),
                "tokenizer_sha256": tokenizer.sha256,
                "tokens_per_step": self.plan.tokens_per_step,
                "weights": dict(zip(self.data.source_names, self.data.weights, strict=True)),
                **made_by(),
                "versions": versions(),
                "threads": torch.get_num_threads(),
                "compiled": self.compiles,
            },
        )

    def _announce(self) -> None:
        log.info("run             %s", self.folder)
        for line in self.plan.lines():
            log.info("%s", line)
        if self.start:
            log.info("resuming        from step %d (%s)", self.start_step, self.start)

    def _card(self) -> RunCard:
        """What the loggers show of the run."""
        return RunCard(
            run_id=self._run_id(),
            settings=self.settings,
            hashes={"tokenizer": self.data.tokenizer.sha256, **self.data.fingerprints()},
            plan=dataclasses.asdict(self.plan),
            versions=versions(),
            inputs=made_from(self.data, self.initial.get("path")),
            start_step=self.start_step,
            study=self.settings.get("study"),
        )

    def _run_id(self) -> str:
        """The same for a run however often it is resumed, another one for another folder."""
        return fingerprint([str(self.folder.resolve()), decisive(self.settings)])[:12]

    def _save_state(self, status: str, metrics: dict[str, float], **more: Any) -> None:
        if self.ranks.is_first:
            facts = {
                "run_id": self._run_id(),
                "initial": self.initial,
                "data": self.data.fingerprints(),
                "metrics": metrics,
            }
            save_state(self.folder, self.settings, status, **facts, plan=dataclasses.asdict(self.plan), **more)
