"""Log-probabilities of preference pairs under the reference model: computed once, stored, used by every loss and strength.

    <data>/reference/<key>/   one array a source and split, (pairs, 2) float32, and a manifest

The key covers the reference's weights, the pairs, the template and the packing.
"""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from lumi.arch import Decoder
from lumi.corpus.engine.blocks import read_array
from lumi.data import PreferenceData, PreferenceStream
from lumi.data.loading import ValBatches
from lumi.generate import evaluation_mode
from lumi.lock import folder_lock
from lumi.manifest import MANIFEST, atomic_folder, fingerprint, verify, write_manifest
from lumi.stage.dpo import compare

log = logging.getLogger(__name__)

_SPLITS = ("train", "val")


def attach_reference(data: PreferenceData, decoder: Decoder, initial: dict[str, Any], precision: str) -> Path:
    """Give the data the reference's log-probabilities, from disk where they are.

    Args:
        data: after its `setup`.
        decoder: the reference, on the device it is to run on.
        initial: ``path`` of its checkpoint, and ``weights``, the hashes that name it.
        precision: of training, as Lightning names it; the reference is computed in the same.

    Returns:
        The artefact's folder.
    """
    settings = {**data.reference_key(), "model": initial["weights"], "precision": precision}
    folder = data.places.root / "reference" / fingerprint(settings)[:16]
    with folder_lock(folder, wait=True):
        if (folder / MANIFEST).exists():
            verify(folder, kind="reference")
            log.info("reference log-probabilities: %s", folder)
        else:
            _compute(data, decoder, settings, folder, Path(initial["path"]))
    for name, split, stream in _streams(data):
        stream.reference = read_array(folder / f"{name}.{split}.npy")
    return folder


def _compute(data: PreferenceData, decoder: Decoder, settings: dict[str, Any], folder: Path, checkpoint: Path) -> None:
    with atomic_folder(folder) as work:
        for name, split, stream in _streams(data):
            np.save(
                work / f"{name}.{split}.npy",
                _log_probabilities(stream, decoder, data.batch_size, settings["precision"], name),
            )
        write_manifest(
            work,
            kind="reference",
            name=folder.name,
            fingerprint=fingerprint(settings),
            parents={**{f"model/{name}": sha256 for name, sha256 in settings["model"].items()}, **settings["data"]},
            settings=settings,
            places={"model": checkpoint, **{name: data.folder(name) for name in data.sources}},
            info={f"{name}.{split}": len(stream.examples) for name, split, stream in _streams(data)},
        )
    log.info("reference log-probabilities computed: %s", folder)


def _streams(data: PreferenceData) -> list[tuple[str, str, Any]]:
    both = zip(_SPLITS, (data.train_streams, data.val_streams), strict=True)
    return [
        (name, split, stream) for split, streams in both for name, stream in zip(data.sources, streams, strict=True)
    ]


@torch.inference_mode()
def _log_probabilities(stream: Any, decoder: Decoder, batch_size: int, precision: str, name: str) -> np.ndarray:
    """(pairs, 2) float32, in the order of the stream's examples."""
    result = np.zeros((len(stream.examples), 2), dtype=np.float32)
    device = decoder.lm_weight.device
    dtype = torch.float16 if precision.startswith("16") else torch.bfloat16
    # Packed the same way whatever the run's seed: its neighbours in a row move a value's last bits, and runs that begin from
    # the same model share the file, whichever of them makes it.
    rows: Any = PreferenceStream(stream.examples, stream.seq_len, seed=0)
    batches = ValBatches([rows], batch_size=batch_size, max_windows=None)
    bar = tqdm(range(len(batches)), desc=f"reference {name}", unit="batch", delay=2, disable=None, leave=False)
    with evaluation_mode(decoder), torch.autocast(device.type, dtype, enabled=precision != "32-true"):
        for number in bar:
            batch: Any = {key: value.to(device) for key, value in batches[number].items()}  # pyright: ignore[reportAttributeAccessIssue]
            answers = compare(decoder, batch)
            result[batch["pairs"][batch["pairs"] >= 0].cpu().numpy()] = answers.policy.float().cpu().numpy()
    return result
