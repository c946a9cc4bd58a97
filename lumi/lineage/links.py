"""From the hash by which something names its parent to the folder that has this hash."""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from lumi.manifest import MANIFEST, Manifest

By = Literal["fingerprint", "tokenizer", "content", "files"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Link:
    """What something says of one of its parents.

    Attributes:
        role: of the parent, as people say it.
        kind: of the parent's manifest.
        name: of the parent.
        places: folders where it may lie, best first.
        expected: name → hash; several for a corpus of several sources or a model of several files; empty if none was noted.
        by: what the hashes are of: the manifest's fingerprint, the tokenizer's bytes, a source's documents, files.
        fix: what to do when it is not there.
    """

    role: str
    kind: str
    name: str
    places: Sequence[Path]
    expected: Mapping[str, str]
    by: By
    fix: str

    def differs(self, manifest: Manifest) -> str:
        """``has …, expected …`` of the first hash that differs; empty when this is what was meant."""
        for name, expected in self.expected.items():
            actual = _identities(manifest, self.by, name)
            if expected not in actual:
                has = f"{actual[0][:12]}…" if actual else "no such part"
                return f"has {_WORDS[self.by].format(name=name)} {has}, expected {expected[:12]}…"
        return ""

    @property
    def hash(self) -> str | None:
        """One hash for people: of what was expected."""
        return next(iter(self.expected.values()), None)


_WORDS: dict[By, str] = {
    "fingerprint": "fingerprint",
    "tokenizer": "tokenizer",
    "content": "documents of {name} with hash",
    "files": "{name} with sha256",
}


def _identities(manifest: Manifest, by: By, name: str) -> list[str]:
    if by == "fingerprint":
        return [manifest.fingerprint]
    if by == "tokenizer":
        return [manifest.files.get("tokenizer.model", {}).get("sha256", "")]
    if by == "files":
        return [manifest.files[name]["sha256"]] if name in manifest.files else []
    own = manifest.info.get("sources", {}).get(name, {}).get("content_sha256")
    # Packed data of a whole corpus are named after the corpus, and their parent is all of its sources.
    return [found for found in (own, manifest.info.get("content_sha256")) if found]


def near(place: Path, paths: Iterable[Any]) -> list[Path]:
    """The artefacts to which noted paths may lead, see `candidates`; the first path as it is where there are none."""
    noted = [Path(path) for path in paths if path]
    found = dict.fromkeys(one for path in noted for one in candidates(place, path))
    return [path for path in found if (path / MANIFEST).exists()] or noted[:1]


def candidates(place: Path, path: Path, *, least_parts: int = 2) -> Iterator[Path]:
    """Where a path may lead that was noted in another working directory, or before everything was moved.

    As it is; else it, or the end of it, below a folder above ``place``. That is a guess, which the hash confirms or not.

    Args:
        least_parts: names at the end of an absolute path that must be the same.
    """
    yield path
    above = place.resolve().parents
    parts = path.parts[1:] if path.is_absolute() else path.parts
    for start in range(max(1, len(parts) - least_parts + 1) if path.is_absolute() else 1):
        yield from (folder.joinpath(*parts[start:]) for folder in above)


def headline(manifest: Manifest) -> str:
    """The one hash that people would compare."""
    if manifest.kind == "corpus":
        return manifest.info.get("content_sha256", manifest.fingerprint)
    if manifest.kind == "tokenizer":
        return manifest.files.get("tokenizer.model", {}).get("sha256", manifest.fingerprint)
    for name in ("adapter_model.safetensors", "model.safetensors"):
        if name in manifest.files:
            return manifest.files[name]["sha256"]
    gguf = [entry["sha256"] for name, entry in manifest.files.items() if name.endswith(".gguf")]
    return gguf[0] if gguf else manifest.fingerprint


def short(path: Path) -> Path:
    """Relative to the working directory where it lies below it."""
    resolved, here = path.resolve(), Path.cwd()
    return resolved.relative_to(here) if resolved.is_relative_to(here) else path
