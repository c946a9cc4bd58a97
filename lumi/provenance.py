"""Which code, and which packages, made something: what every manifest and every file of figures says of itself.

A version number alone names no code: between two releases lie hundreds of states. So the commit is named where Lumi runs from a
checkout, whether it was changed since, and everywhere one hash over all of Lumi's own source files, which is the same for the
same code however it was installed.
"""

import functools
import hashlib
import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

from lumi import __version__

_DECISIVE = (
    "torch", "pytorch-lightning", "numpy", "safetensors", "sentencepiece", "hydra-core", "omegaconf", "datatrove", "pyarrow",
)  # fmt: skip
"""Packages whose change may change a byte or a bit of what Lumi makes."""

_GIT_SECONDS = 10.0


def made_by() -> dict[str, Any]:
    """``code`` and ``versions``, as plain JSON of the caller's own."""
    return {"code": dict(code()), "versions": dict(versions())}


@functools.cache
def code() -> dict[str, Any]:
    """Lumi's version, its commit and whether that was changed since (both null outside a checkout), the hash of its source."""
    package = Path(__file__).parent
    commit, dirty = _checkout(package.parent)
    return {"lumi": __version__, "commit": commit, "dirty": dirty, "source_sha256": source_sha256(package)}


@functools.cache
def versions() -> dict[str, str]:
    """Of Python and of every package that may decide a bit, without importing one; what is not installed is left out."""
    found = {"python": platform.python_version()}
    for name in _DECISIVE:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def source_sha256(package: Path) -> str:
    """One hash over name and bytes of every Python and C++ file below ``package``: both decide bits."""
    digest = hashlib.sha256()
    for path in sorted(path for kind in ("*.py", "*.cpp") for path in package.rglob(kind)):
        data = path.read_bytes()
        digest.update(f"{path.relative_to(package).as_posix()} {len(data)}\n".encode())
        digest.update(data)
    return digest.hexdigest()


def code_words(code: dict[str, Any] | None) -> str:
    """For people: ``0.1.0 · 709a796c · changed since · source 1a2b3c4d``."""
    if not code:
        return "unknown"
    words = [str(code.get("lumi", "unknown"))]
    if code.get("commit"):
        words.append(code["commit"][:8] + (" + changes" if code.get("dirty") else ""))
    if code.get("source_sha256"):
        words.append(f"source {code['source_sha256'][:8]}")
    return " · ".join(words)


def _checkout(root: Path) -> tuple[str | None, bool | None]:
    """The commit of a checkout and whether Lumi's code in it was changed since; (None, None) where there is none."""
    if not (root / ".git").exists():
        return None, None
    # Optional locks off: looking must not get in the way of someone who commits at this moment.
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}

    def git(*words: str) -> str:
        command = ["git", "-C", str(root), *words]
        result = subprocess.run(  # noqa: S603  # git itself
            command, capture_output=True, text=True, check=True, env=environment, timeout=_GIT_SECONDS
        )
        return result.stdout.strip()

    try:
        return git("rev-parse", "HEAD"), bool(git("status", "--porcelain", "--", "lumi", "conf"))
    except (
        OSError,
        subprocess.SubprocessError,
    ):  # no git, or a checkout of somebody else: the hash of the source says it
        return None, None
