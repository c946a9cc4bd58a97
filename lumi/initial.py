"""Which model a stage starts from: the rules of ``init_from=auto | null | PATH``."""

import dataclasses
import logging
from pathlib import Path
from typing import Any

from lumi.arch import DecoderConfig
from lumi.data import Beginning
from lumi.errors import CheckpointError, ConfigError, TokenizerMismatch
from lumi.identity import read_state
from lumi.manifest import lineage, read_manifest
from lumi.tokenizer import Template
from lumi.trained import Trained, find_checkpoint, is_export, load_trained

log = logging.getLogger(__name__)

Settings = dict[str, Any]

_RUNTIME = ("attention", "dropout", "checkpoint_activations")
"""Keys of an architecture that may change between stages: none of them changes the shape of a weight."""


def initial_model(settings: Settings, follows: str | None, expect_tokenizer: str | None) -> Trained | None:
    """The model to start from, or None to start from random weights.

    Args:
        settings: of the run.
        follows: the stage that comes before this one; None begins from random weights unless a model is named.
        expect_tokenizer: SHA-256 that a model found by itself must have been trained with; None takes any.

    Raises:
        ConfigError: there is no such model (with the command that makes one), or it has another architecture.
    """
    wanted = settings["init_from"]
    if follows is None and wanted in ("auto", None):
        return None
    if wanted is None:
        log.info("init_from=null: starting from random weights, as a control")
        return None
    if wanted != "auto":
        if is_export(Path(wanted)):
            raise ConfigError(
                f"init_from={wanted}",
                "is an export for other programs, which says nothing of the data that its weights were trained on",
                "give the run or the checkpoint that it was made from",
            )
        trained = load_trained(Path(wanted), key="init_from")
        _check_architecture(settings, trained)
        return trained
    assert follows is not None, "auto was settled above"
    path = _newest(settings, follows, expect_tokenizer)
    log.info("init_from=auto: %s", path)
    return load_trained(path)


def taken_over(trained: Trained) -> Beginning:
    """What the data take over from the model, with the text that it, or the first of its ancestors, was pretrained on."""
    facts = next((facts for facts in lineage(trained.facts) if "packed" in facts), {"packed": {}, "weights": {}})
    packed = {name: Path(folder) for name, folder in facts["packed"].items()}
    return Beginning(tokenizer=trained.tokenizer, packed=packed, weights=facts["weights"])


def run_time_config(settings: Settings, trained: Trained) -> DecoderConfig:
    """The model's own architecture with this run's dropout, attention and memory settings."""
    arch = settings["arch"]
    return dataclasses.replace(trained.decoder.config, **{key: arch[key] for key in _RUNTIME if key in arch})


def initial_moved(settings: Settings, began_from: dict[str, Any]) -> str | None:
    """What ``init_from`` means today when that is not what a run began from, else None.

    Args:
        settings: of the run.
        began_from: what its run.json says under ``initial``; empty when it began from random weights.
    """
    if not began_from:
        return None
    if settings["init_from"] == "auto":
        runs, _ = _finished(settings, began_from["stage"], began_from["tokenizer"])
        path = max(runs)[1] if runs else None
    else:
        path = Path(settings["init_from"])
    if path is None:
        return None
    try:
        checkpoint = find_checkpoint(path, key="init_from")
    except CheckpointError:
        return None  # it was removed; a finished run does not need it
    return str(checkpoint) if checkpoint_identity(checkpoint) != began_from["weights"] else None


def _newest(settings: Settings, follows: str, expect_tokenizer: str | None) -> Path:
    """The newest finished run of the stage before, with the same architecture and tokenizer."""
    runs, refused = _finished(settings, follows, expect_tokenizer)
    if runs:
        return max(runs)[1]
    seen = f"; not these: {', '.join(sorted(refused)[:5])}" if refused else ""
    raise ConfigError(
        "init_from=auto",
        f"there is no finished run of stage={follows} with this architecture and tokenizer{seen}",
        f"make one with: python train.py stage={follows}, or give init_from=PATH",
    )


def _finished(
    settings: Settings, follows: str, expect_tokenizer: str | None
) -> tuple[list[tuple[str, Path]], list[str]]:
    """(when it ended, run) of all that would do, and why the others would not."""
    runs, refused = [], []
    for state_file in Path(settings["paths"]["runs"]).glob("*/run.json"):
        state = read_state(state_file.parent)
        if state["settings"]["stage"]["_target_"].rpartition(".")[2].lower() != follows:
            continue
        reason = _mismatch(settings, state_file.parent, state, expect_tokenizer)
        if reason:
            refused.append(f"{state_file.parent} ({reason})")
        else:
            runs.append((state["updated"], state_file.parent))
    return runs, refused


def _mismatch(settings: Settings, folder: Path, state: Settings, expect_tokenizer: str | None) -> str | None:
    if state["status"] != "finished":
        return "not finished"
    arch, theirs = settings["arch"], state["settings"]["arch"]
    changed = [key for key in arch if key not in (*_RUNTIME, "_target_") and theirs.get(key) != arch[key]]
    if changed:
        return f"arch.{changed[0]}={theirs.get(changed[0])}"
    checkpoints = sorted((folder / "checkpoints").glob("step_*.ckpt"))
    if not checkpoints:
        return "no checkpoint"
    tokenizer = read_manifest(checkpoints[-1], kind="checkpoint").parents.get("tokenizer")
    if expect_tokenizer is not None and tokenizer != expect_tokenizer:
        return f"tokenizer {str(tokenizer)[:12]}"
    return None


def check_template(template: Template | None, trained: Trained) -> None:
    """A chat model goes on in the form that it has learnt.

    Raises:
        ConfigError: the data are written in another one.
    """
    learnt = trained.template
    if learnt is not None and template is not None and learnt.sha256 != template.sha256:
        raise ConfigError(
            f"template={template.name}",
            f"is not the one that {trained.checkpoint} was trained with",
            f"template={learnt.name}, or another init_from",
        )


def check_tokenizer(sha256: str, trained: Trained) -> None:
    """A model goes on with the tokens that it has learnt.

    Raises:
        TokenizerMismatch: the data are written in others.
    """
    if sha256 != trained.tokenizer.sha256:
        raise TokenizerMismatch(
            f"the data have tokenizer {sha256[:12]}…",
            f"{trained.checkpoint} was trained with {trained.tokenizer.sha256[:12]}…",
            "tokenizer=existing tokenizer.path=… of that model, or another init_from",
        )


def _check_architecture(settings: Settings, trained: Trained) -> None:
    config, arch = dataclasses.asdict(trained.decoder.config), settings["arch"]
    changed = [
        f"arch.{key}: {config[key]} there, {arch[key]} here"
        for key in arch
        if key in config and key not in _RUNTIME and config[key] != arch[key]
    ]
    if changed:
        raise ConfigError(
            f"init_from={settings['init_from']}",
            f"has another architecture ({', '.join(changed)})",
            "choose its arch=…",
        )


def checkpoint_identity(checkpoint: Path) -> dict[str, str]:
    """What names the weights of a model: the hashes of its files, without the optimizer's state."""
    files = read_manifest(checkpoint, kind="checkpoint").files
    kept = {name: facts["sha256"] for name, facts in files.items() if name.endswith((".safetensors", "decoder.json"))}
    if not kept:
        raise CheckpointError(f"{checkpoint}", "names no weights", "take a whole checkpoint")
    return kept


def finished_metrics(settings: Settings, folder: Path) -> dict[str, float]:
    """What a run that is finished ended with; says so, and where it began if that would be elsewhere now."""
    log.info("%s is finished; nothing to do (name=… or other settings make another run)", folder)
    state = read_state(folder)
    if newer := initial_moved(settings, state.get("initial", {})):
        began = state["initial"]["path"]
        log.warning("it began from %s; init_from now means %s: name=… trains from that one", began, newer)
    return state["metrics"]
