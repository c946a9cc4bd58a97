"""The state of a training run from its checkpoint: plain types and tensors, whoever wrote it.

``training.pt`` is PyTorch's own form, a zip archive with a pickle in it. `torch.load` with ``weights_only`` runs none of it but
still believes its sizes: an archive may unpack to a thousand times of what it is. So it is looked at before it is opened.
"""

import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch

from lumi.errors import CheckpointError

_PARTS = {"global_step": int, "loops": dict, "optimizer_states": list, "lr_schedulers": list, "callbacks": dict}
_FIX = "take the checkpoint from where it was made, or begin a new run from its weights: init_from=PATH"


def read_training_state(path: Path) -> dict[str, Any]:
    """What Lightning continues from, without the weights.

    Raises:
        CheckpointError: it is not an archive of PyTorch, is packed, names anything that is not plain data, or lacks a part.
    """
    _check_archive(path)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise CheckpointError(f"{path}", "holds more than plain data; nothing of it was run", _FIX) from None
    except (OSError, RuntimeError, ValueError, TypeError, LookupError, AttributeError, MemoryError, EOFError) as error:
        raise CheckpointError(f"{path}", f"cannot be read ({str(error).splitlines()[:1]})", _FIX) from None
    if not isinstance(state, dict):
        raise CheckpointError(f"{path}", "is not the state of a run", _FIX)
    wrong = [name for name, kind in _PARTS.items() if not isinstance(state.get(name), kind)]
    if wrong:
        raise CheckpointError(f"{path}: {wrong[0]}", "is missing or of another type", _FIX)
    return state


def _check_archive(path: Path) -> None:
    """Refuse what is no zip archive of parts as they are: PyTorch packs none."""
    try:
        with zipfile.ZipFile(path) as archive:
            parts = archive.infolist()
    except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile) as error:
        raise CheckpointError(f"{path}", f"is no archive of PyTorch ({error}); it was not opened", _FIX) from None
    if any(part.compress_type != zipfile.ZIP_STORED or part.file_size != part.compress_size for part in parts):
        raise CheckpointError(f"{path}", "is packed, and PyTorch packs none: it was not opened", _FIX)
    if sum(part.file_size for part in parts) > path.stat().st_size:
        raise CheckpointError(f"{path}", "says it holds more than it has bytes: it was not opened", _FIX)
