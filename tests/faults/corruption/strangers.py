"""Artefacts as a stranger would send them: whole, with a manifest that fits, and something else in them than it seems."""

import json
import shutil
from pathlib import Path
from typing import Any

from lumi.manifest import MANIFEST, sealed, sha256_file


def reseal(folder: Path) -> None:
    """Have the manifest name what is there now, as if it had been made so."""
    path = folder / MANIFEST
    fields = json.loads(path.read_bytes())
    fields.pop("seal", None)
    names = [one for one in sorted(folder.rglob("*")) if one.is_file() and not one.is_symlink() and one != path]
    fields["files"] = {
        one.relative_to(folder).as_posix(): {"bytes": one.stat().st_size, "sha256": sha256_file(one)} for one in names
    }
    if "tokenizer" in fields["parents"] and (folder / "tokenizer.model").exists():
        fields["parents"]["tokenizer"] = sha256_file(folder / "tokenizer.model")
    path.write_bytes(sealed(json.dumps(fields, indent=2).encode()))


def change(path: Path, **fields: Any) -> None:
    """Set keys of a JSON object in a file."""
    path.write_text(json.dumps({**json.loads(path.read_bytes()), **fields}))


def copied(folder: Path, to: Path) -> Path:
    """A copy that may be spoilt."""
    shutil.copytree(folder, to)
    return to
