"""What ``evaluate.py scaling='runs/scaling-*'`` does: fit a law to finished runs and predict with it."""

import glob
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lumi.architectures import architecture
from lumi.errors import ConfigError, DataError
from lumi.eval.scaling import Target
from lumi.eval.scaling_runs import LAW, check_alike, fit_runs, read_run, write_scaling
from lumi.plan import CHINCHILLA

log = logging.getLogger(__name__)

FOLDER = Path("runs/scaling")
SCALING_KEYS = ("scaling", "predict", "predict_tokens", "entropy")
"""Of ``conf/evaluate.yaml``."""


def fit_scaling(settings: dict[str, Any]) -> None:
    """Fit, predict, write law.json, scaling.md and scaling.png.

    Runs that ``predict`` names are held out of the fit.

    Raises:
        LumiError: a setting is wrong, or the runs do not fit together.
    """
    predict = _as_list(settings["predict"] or [], "predict")
    held_out = {Path(name).resolve() for name in predict if (Path(name) / "run.json").exists()}
    folders = [folder for folder in _folders(settings["scaling"]) if folder.resolve() not in held_out]
    entropy = settings["entropy"]
    if entropy is not None and not isinstance(entropy, int | float):
        raise ConfigError(f"entropy={entropy}", "must be a number of nats per token, or null")
    fitted = fit_runs(folders, entropy=float(entropy or 0.0))
    targets = [_target(name, settings, folders[0]) for name in predict]
    folder = Path(settings["out"] or FOLDER)
    runs = [*folders, *(Path(name) for name in predict if (Path(name) / "run.json").exists())]
    text = write_scaling(folder, fitted, targets, runs)
    log.info("\n%s", text.partition("\n![")[0])
    log.info("law: %s", folder / LAW)


def _folders(scaling: Any) -> list[Path]:
    """Runs below the patterns."""
    patterns = _as_list(scaling, "scaling")
    found = sorted({Path(path) for pattern in patterns for path in glob.iglob(pattern)})  # noqa: PTH207  # may be absolute
    runs = [path for path in found if (path / "run.json").exists()]
    if not runs:
        raise DataError(f"scaling={scaling}", "names no run", "python train.py -m experiment=scaling_law makes some")
    return runs


def _target(name: str, settings: dict[str, Any], first: Path) -> Target:
    """A run that was held out, or a named architecture on ``predict_tokens`` (20 a parameter)."""
    known = read_run(first)
    assert known is not None, "the law was fitted to it"
    if (Path(name) / "run.json").exists():
        found = read_run(Path(name))
        if found is None:
            raise DataError(f"predict={name}", "is not finished", "let it train to its end")
        point, its_settings = found
        check_alike(known[1], its_settings, first.name)
        return Target(name=point.name, n_params=point.n_params, n_tokens=point.n_tokens, measured=point.loss)
    n_params = architecture(name, _vocab_size(known[1], first), "predict").n_params()
    tokens = settings["predict_tokens"]
    if tokens is not None and (not isinstance(tokens, int | float) or tokens <= 0):
        raise ConfigError(f"predict_tokens={tokens}", "must be a number of tokens above 0, or null")
    return Target(name=name, n_params=n_params, n_tokens=float(tokens or CHINCHILLA * n_params))


def _vocab_size(settings: dict[str, Any], run: Path) -> int:
    size = settings["tokenizer"].get("vocab_size")
    if size is None:
        raise ConfigError(
            "predict", f"needs the size of the vocabulary, which {run} does not name", "predict a run instead"
        )
    return size


def _as_list(value: Any, key: str) -> list[str]:
    items: Any = [value] if isinstance(value, str) else value
    if not isinstance(items, Sequence) or not all(isinstance(item, str) for item in items):
        raise ConfigError(f"{key}={value}", "must be a text or a list of texts", f"python evaluate.py {key}=…")
    return list(items)
