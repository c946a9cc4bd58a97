"""What a results.json says it was made from."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lumi.manifest import MANIFEST, read_manifest, sha256_file


def evaluated(checkpoint: Path, folders: Mapping[str, Mapping[str, str]], files: Sequence[Path] = ()) -> dict[str, Any]:
    """By hash, and where it lay.

    Args:
        checkpoint: folder of the model.
        folders: kind → name → folder of prepared data.
        files: texts and copies of tasks that are scored.

    Raises:
        DataError: one of the folders is no artefact.
    """
    manifest = read_manifest(checkpoint)
    return {
        "checkpoint": {
            "path": str(checkpoint),
            "step": manifest.info.get("step"),
            "files": {name: entry["sha256"] for name, entry in manifest.files.items()},
        },
        **{
            kind: {
                name: {"path": folder, "fingerprint": read_manifest(Path(folder)).fingerprint}
                for name, folder in found.items()
                if (Path(folder) / MANIFEST).exists()
            }
            for kind, found in folders.items()
        },
        "files": {str(path): sha256_file(path) for path in files if path.is_file()},
    }


def hashes_of(made_from: Any) -> Any:
    """The same without the places: equal for equal content wherever it lies."""
    if not isinstance(made_from, Mapping):
        return made_from
    files = made_from.get("files", {})
    named = {name: hashes_of(value) for name, value in made_from.items() if name not in ("path", "files")}
    return {**named, "files": sorted(files.items()) if "path" in made_from else sorted(files.values())}
