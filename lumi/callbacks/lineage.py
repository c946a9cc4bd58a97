"""What a run is made from and what it makes, as W&B artifacts: corpus → tokenizer → packed tokens → model → next model.

An artifact is the folder's own manifest, which names every file with its size and SHA-256, so that gigabytes stay where they
are; ``logger.wandb.artifacts=files`` uploads the files too. W&B tells artifacts apart by their content. The same folder is
therefore the same version in every run that uses it, and the model of one stage is joined to the run of the next one.
"""

import dataclasses
import json
import os
from pathlib import Path
from typing import Any, Literal

from lumi.manifest import MANIFEST, Manifest, read_manifest, sha256_file
from lumi.secret import public

Artifacts = Literal["references", "files"]

_TYPES = {"corpus": "dataset", "chat": "dataset", "preference": "dataset", "checkpoint": "model"}
"""What a kind of folder is called there; others keep their name."""

_LONGEST_INFO = 4000
"""Characters; what is longer is a table, and in the manifest."""


def use(run: Any, folder: Path, how: Artifacts) -> None:
    """Note that the run is made from a folder."""
    artifact = describe(folder, how)
    # Run.use_artifact waits for the upload, however long that takes, and refuses to work offline; this is its first half.
    run._log_artifact(
        artifact, aliases=[artifact.metadata["fingerprint"][:12]], is_user_created=True, use_after_commit=True
    )


def make(run: Any, folder: Path, how: Artifacts, aliases: list[str]) -> None:
    """Note that the run has made a folder."""
    artifact = describe(folder, how)
    run.log_artifact(artifact, aliases=[artifact.metadata["fingerprint"][:12], *aliases])


def describe(folder: Path, how: Artifacts) -> Any:
    """The artifact of a folder with a manifest."""
    import wandb

    manifest = read_manifest(folder)
    content = public(dataclasses.asdict(manifest), os.environ, Path.home())
    artifact = wandb.Artifact(
        artifact_name(folder, manifest),
        type=_TYPES.get(manifest.kind, manifest.kind),
        metadata={
            "sha256": sha256_file(folder / MANIFEST),
            "fingerprint": manifest.fingerprint,
            "parents": manifest.parents,
            "bytes": sum(entry["bytes"] for entry in manifest.files.values()),
            "files": len(manifest.files),
            "info": {key: value for key, value in content["info"].items() if len(json.dumps(value)) <= _LONGEST_INFO},
        },
    )
    with artifact.new_file(MANIFEST) as file:
        json.dump(content, file, indent=2)
    if how == "files":
        for name in manifest.files:
            artifact.add_file(str(folder / name), name=name, policy="immutable")
    return artifact


def artifact_name(folder: Path, manifest: Manifest) -> str:
    """``packed-world``, ``model-demo``: a checkpoint has the name of its run."""
    name = manifest.name
    if manifest.kind == "checkpoint":
        name = json.loads((folder / "run.json").read_bytes())["name"]
    clean = "".join(letter if letter.isascii() and (letter.isalnum() or letter in "-_.") else "-" for letter in name)
    return f"{_TYPES.get(manifest.kind, manifest.kind)}-{clean}"[:128]
