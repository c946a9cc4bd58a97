"""The settings of a training run: what they may hold, and every rule that can be checked before any file is read."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lumi.config import build, check_keys, collect, violations
from lumi.errors import ConfigError, join_violations
from lumi.identity import FIXED
from lumi.secret import check_no_secrets

Settings = dict[str, Any]

ROOT_KEYS = (
    "name", "seed", "resume", "budget", "paths", "source", "pack", "tokenizer", "arch", "data", "optim", "trainer",
    "callbacks", "logger", "stage", "template", "init_from", "corpus", "task", "executor",
    "plan", "law", "sweep", "study", "slots", "resume_allow", "doctor",
)  # fmt: skip
"""Everything that ``conf/train.yaml`` may hold."""


STAGE_OFFERED = ("decoder", "recipe", "sources", "total_steps", "accumulate", "seed", "max_skipped_steps")
LOGGERS_OFFERED = ("run_folder", "card")
CALLBACKS_OFFERED = (
    "run_folder", "total_steps", "val_every_steps", "stop", "tokens", "taken", "epoch_tokens", "flops_per_token", "peak_flops",
    "sources", "tokenizer", "template", "decoder",
)  # fmt: skip
"""What a run offers to the constructors of its parts: see `lumi.run`."""


def check(settings: Settings) -> None:
    """Every rule that can be checked before any file is read or written.

    Raises:
        ConfigError: with all violations.
    """
    check_keys(settings, ROOT_KEYS)
    collect(
        lambda: build(settings["arch"], "arch", vocab_size=settings["tokenizer"].get("vocab_size", 1)),
        lambda: build(settings["optim"], "optim"),
        lambda: build(settings["budget"], "budget"),
        lambda: build(settings["trainer"], "trainer"),
        lambda: build(settings["data"], "data", **data_arguments(settings)),
        lambda: _check_lengths(settings),
        lambda: _check_replay(settings),
        lambda: _check_sharding(settings),
        lambda: _check_seed(settings["seed"]),
        lambda: _check_plan(settings["plan"], settings["law"]),
        lambda: _check_doctor(settings.get("doctor", "quick")),
        lambda: _check_allowed(settings.get("resume_allow")),
        lambda: check_no_secrets(settings, os.environ),
        lambda: _check_nodes({"stage": settings["stage"]}, "", STAGE_OFFERED),
        *(lambda key=key: build(settings["stage"].get(key), f"stage.{key}") for key in ("lora", "objective")),
        lambda: _check_nodes(settings["callbacks"] or {}, "callbacks.", CALLBACKS_OFFERED),
        lambda: _check_nodes(settings["logger"] or {}, "logger.", LOGGERS_OFFERED),
    )


def _check_lengths(settings: Settings) -> None:
    seq_len, longest = settings["data"].get("seq_len"), settings["arch"].get("max_seq_len")
    if isinstance(seq_len, int) and isinstance(longest, int) and seq_len > longest:
        raise ConfigError(f"data.seq_len={seq_len}", f"must be at most arch.max_seq_len={longest}")


def _check_nodes(nodes: Mapping[str, Any], prefix: str, offered: Sequence[str]) -> None:
    """What can be said of nodes that are built only when the model and the data are there."""
    found = [error for name, node in nodes.items() if node for error in violations(node, prefix + name, set(offered))]
    if found:
        raise join_violations(found)


def _check_seed(seed: Any) -> None:
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**32:
        raise ConfigError(f"seed={seed}", "must be a whole number from 0 to 4294967295")


def _check_plan(plan: Any, law: Any) -> None:
    if not isinstance(plan, bool):
        raise ConfigError(f"plan={plan}", "must be true or false")
    if law is not None and not isinstance(law, str):
        raise ConfigError(f"law={law}", "must be the path of a law.json, or null")


def _check_doctor(doctor: Any) -> None:
    if not isinstance(doctor, bool) and doctor not in ("quick", "off"):  # in a YAML file off is false
        raise ConfigError(f"doctor={doctor}", "must be quick, true (all checks, and no training) or off")


def _check_allowed(keys: Any) -> None:
    if keys is not None and (not isinstance(keys, list) or not all(isinstance(key, str) for key in keys)):
        raise ConfigError(f"resume_allow={keys}", "must be a list of keys, such as [optim.lr]")
    for key in keys or ():
        fixed = [name for name in FIXED if f"{key}.".startswith(f"{name}.") or name.startswith(f"{key}.")]
        if fixed:
            raise ConfigError(
                f"resume_allow=[{key}]", f"{fixed[0]} cannot change within a run", "name=… starts another"
            )


def data_arguments(settings: Settings) -> dict[str, Any]:
    """What a data module's constructor is given beside its own node."""
    return {
        "template": build(settings["template"], "template"),
        "tokenizer": build(settings["tokenizer"], "tokenizer"),
        "pack": build(settings["pack"], "pack"),
        "executor": build(settings["executor"], "executor"),
        "root": Path(settings["paths"]["data"]),
        "seed": settings["seed"],
    }


def _check_sharding(settings: Settings) -> None:
    """What a model in parts cannot do.

    Raises:
        ConfigError: naming what can.
    """
    trainer, ddp = settings["trainer"], "trainer=ddp"
    if trainer.get("strategy") != "fsdp":
        return
    if settings["optim"]["_target_"].endswith(".Muon"):
        raise ConfigError("optim=muon", "needs whole matrices, trainer=fsdp has parts of them", f"optim=adamw or {ddp}")
    if settings["stage"].get("lora") is not None:
        raise ConfigError("stage.lora", "is too small to be put in parts", f"{ddp}, or stage.lora=null")
    if trainer.get("compile") is True:
        raise ConfigError("trainer.compile=true", "is not possible with trainer=fsdp", f"trainer.compile=auto or {ddp}")
    if trainer.get("precision") == "16-mixed":
        raise ConfigError("trainer.precision=16-mixed", "is not possible with trainer=fsdp", "bf16-mixed or 32-true")


def _check_replay(settings: Settings) -> None:
    if settings["init_from"] is None and settings["data"].get("replay"):
        raise ConfigError(
            f"data.replay={settings['data']['replay']}",
            "needs a pretrained model",
            "use data.replay=0 with init_from=null",
        )
