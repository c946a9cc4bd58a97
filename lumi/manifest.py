"""Artefacts that appear whole or not at all, and that are what they say.

A corpus, a tokenizer, packed data or a checkpoint is a folder with a ``MANIFEST.json`` that names every file with its size
and SHA-256, what the folder was made from (parent hashes) and with which settings. Writing: everything goes to a hidden
folder beside the target, is flushed to disk, and is renamed into place, so that a kill at any moment leaves the old state or
the new one. Reading: a folder without a manifest does not exist, and one whose bytes differ from its manifest is refused. The
manifest ends with the SHA-256 of its own bytes before that, so that a flipped bit in it is found too.
"""

import contextlib
import ctypes
import dataclasses
import glob
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lumi import __version__
from lumi.disk import check_space, disk_errors
from lumi.errors import DataError
from lumi.provenance import made_by
from lumi.strangers import check_names, is_inside, read_bounded, read_object

MANIFEST = "MANIFEST.json"
SCHEMA_VERSION = 1
_SEAL = re.compile(rb',\n  "seal": "([0-9a-f]{64})"\n}\n\Z')


def sha256_bytes(data: bytes) -> str:
    """Hexadecimal SHA-256 of ``data``."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprint(settings: Any) -> str:
    """SHA-256 of a JSON-able value, independent of the order of keys: equal settings, equal fingerprint."""
    text = json.dumps(settings, sort_keys=True, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    return sha256_bytes(text.encode())


@dataclasses.dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a folder says about itself.

    Attributes:
        kind: corpus, tokenizer, packed, checkpoint, export or report.
        name: the name a person gave it.
        fingerprint: hash of the settings and parents that made it; equal means nothing needs to be done again.
        parents: what it was made from, a role each, for example ``{"tokenizer": "9c41…"}``.
        settings: the resolved settings, as plain JSON.
        info: figures about the content (documents, tokens, bytes…), by the maker's choice.
        files: path within the folder → ``{"bytes": size, "sha256": hash}``.
        code_version: version of Lumi that wrote it.
        schema_version: version of this layout.
        made_by: code and package versions that wrote it (`lumi.provenance`); empty in manifests of before they were noted.
        places: role of a parent → where it lay when this was made, relative to this folder. A hint: the hash decides.
    """

    kind: str
    name: str
    fingerprint: str
    parents: dict[str, str]
    settings: dict[str, Any]
    info: dict[str, Any]
    files: dict[str, dict[str, Any]]
    code_version: str = __version__
    schema_version: int = SCHEMA_VERSION
    made_by: dict[str, Any] = dataclasses.field(default_factory=dict)
    places: dict[str, str] = dataclasses.field(default_factory=dict)


def read_manifest(folder: Path, *, kind: str | None = None) -> Manifest:
    """Read and check the form of ``folder/MANIFEST.json`` without hashing the files it names.

    Raises:
        DataError: there is no manifest, it is not one of ours, it was changed after it was written, it is of another kind, or
            it names a path outside the folder.
    """
    path = folder / MANIFEST
    try:
        manifest = Manifest(**_unsealed(path))
        _check_form(manifest)
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(f"{folder}", "has no MANIFEST.json, so it is not a finished artefact of Lumi") from None
    except OSError as error:
        raise DataError(f"{path}", f"cannot be read ({error.strerror or error})") from None
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise DataError(
            f"{path}", f"is not a readable manifest ({error})", "remove the folder and make it again"
        ) from None
    if manifest.schema_version != SCHEMA_VERSION:
        raise DataError(
            f"{path}", f"has schema {manifest.schema_version}, this Lumi reads {SCHEMA_VERSION}", "make it again"
        )
    if kind is not None and manifest.kind != kind:
        raise DataError(f"{folder}", f"is a {manifest.kind}, here a {kind} is needed")
    check_names(path, manifest.files)
    return manifest


def _unsealed(path: Path) -> dict[str, Any]:
    """The fields of a manifest, whose seal is compared first. Those that were written before there were seals have none."""
    text = read_bounded(path)
    seal = _SEAL.search(text)
    if seal and (actual := sha256_bytes(text[: seal.start()])) != seal[1].decode():
        raise DataError(
            f"{path} has sha256 {actual[:12]}…",
            f"by its own seal it was written with {seal[1][:12].decode()}…",
            "it was changed or damaged after it was written: remove the folder and make it again",
        )
    fields = json.loads(text)
    if isinstance(fields, dict) and "seal" in fields:
        if not seal:
            raise ValueError("its seal is not its last line")
        del fields["seal"]
    return fields


def verify(folder: Path, *, kind: str | None = None, full: bool = True, needs: Sequence[str] = ()) -> Manifest:
    """Read the manifest and compare every file with it: its size always, its SHA-256 when ``full``.

    Args:
        needs: files that will be read, so that the manifest has to name them: what it does not name nobody has compared.

    Raises:
        DataError: as `read_manifest`, or a file is missing, or has another size or hash than the manifest says.
    """
    manifest = read_manifest(folder, kind=kind)
    if unnamed := [name for name in needs if name not in manifest.files]:
        raise DataError(
            f"{folder}", f"its manifest does not name {unnamed[0]}", "take the whole of it from where it was made"
        )
    for name, expected in manifest.files.items():
        path = folder / name
        if not is_inside(folder, name):
            raise DataError(
                f"{path}", "is named by the manifest but is not a file here", "restore it or make the folder again"
            )
        size = path.stat().st_size
        if size != expected["bytes"]:
            raise DataError(
                f"{path} has {size:,} bytes and sha256 {sha256_file(path)[:12]}…",
                f"its manifest says {expected['bytes']:,} and {expected['sha256'][:12]}…",
                "it was cut or changed: make it again",
            )
        if full and (actual := sha256_file(path)) != expected["sha256"]:
            raise DataError(
                f"{path} has sha256 {actual[:12]}…",
                f"its manifest says {expected['sha256'][:12]}…",
                "it was changed or damaged after it was written: make it again",
            )
    return manifest


def _check_form(manifest: Manifest) -> None:
    """Raises TypeError or KeyError where the JSON has another form than we write."""
    for field in ("files", "parents", "settings", "info", "made_by", "places"):
        if not isinstance(getattr(manifest, field), dict):
            raise TypeError(f"{field} is not a mapping")
    for name, entry in manifest.files.items():
        if not isinstance(entry["bytes"], int) or not isinstance(entry["sha256"], str):
            raise TypeError(f"the entry of {name} is not a size and a hash")


def lineage(facts: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """What a model says of itself (run.json), then what those say that it was made from, as far as they are still there."""
    while True:
        yield facts
        before = Path(facts.get("initial", {}).get("path", "")) / "run.json"
        if "initial" not in facts or not before.exists():
            return
        facts = read_object(before)


@contextlib.contextmanager
def atomic_folder(target: Path, *, needed_bytes: int = 0) -> Iterator[Path]:
    """A temporary folder beside ``target`` to write into; renamed to ``target`` on success, removed on failure.

    Call `write_manifest` before the block ends. An existing target is exchanged in one step and then deleted.

    Args:
        needed_bytes: that will be written, as far as that is known; compared with what is free before anything is.

    Raises:
        ResourceError: the disk is full, or refuses for another reason.
    """
    work = target.parent / f".{target.name}.tmp-{os.getpid()}-{os.urandom(4).hex()}"
    try:
        with disk_errors(target, work=work):
            target.parent.mkdir(parents=True, exist_ok=True)
            sweep(target.parent, glob.escape(target.name))
            check_space(target, needed_bytes)
            work.mkdir()
            yield work
            _sync_tree(work)
            if not (target.exists() and _exchange(work, target)):
                _replace(work, target)
            _sync_folder(target.parent)
    finally:
        shutil.rmtree(work, ignore_errors=True)  # half a new artefact, or the old one


def remove_folder(folder: Path) -> None:
    """Delete an artefact in one step: it is there, or gone, and never visible by halves."""
    work = folder.with_name(f".{folder.name}.tmp-{os.getpid()}-{os.urandom(4).hex()}")
    folder.rename(work)
    shutil.rmtree(work)


def sweep(folder: Path, name: str = "*") -> None:
    """Remove what killed processes left in ``folder``; the caller holds the right to write there.

    Args:
        name: of the artefacts or files that they were at, as a pattern.
    """
    for stale in folder.glob(f".{name}.tmp-*"):
        owner = stale.name.rpartition(".tmp-")[2].split("-")[0]
        if not owner.isdigit() or _is_alive(int(owner)):
            continue
        if stale.is_dir():
            shutil.rmtree(stale, ignore_errors=True)
        else:
            stale.unlink(missing_ok=True)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _exchange(one: Path, other: Path) -> bool:
    """Swap two folders in one step, so that there is no moment without either; False where that does not exist."""
    libc = ctypes.CDLL(None)
    here, first, second = -100, os.fsencode(one), os.fsencode(other)  # AT_FDCWD: relative to the working directory
    if hasattr(libc, "renameat2"):  # Linux; 2 is RENAME_EXCHANGE
        return libc.renameat2(here, first, here, second, 2) == 0
    if hasattr(libc, "renamex_np"):  # macOS; 2 is RENAME_SWAP
        return libc.renamex_np(first, second, 2) == 0
    return False


def _replace(work: Path, target: Path) -> None:
    """``work`` to ``target``, in two steps where something is there."""
    if not target.exists():
        work.rename(target)
        return
    old = work.with_name(f"{work.name}-old")
    target.rename(old)
    try:
        work.rename(target)
    except OSError:
        old.rename(target)
        raise
    shutil.rmtree(old)


def write_manifest(
    folder: Path,
    *,
    kind: str,
    name: str,
    fingerprint: str,
    parents: dict[str, str] | None = None,
    settings: dict[str, Any] | None = None,
    info: dict[str, Any] | None = None,
    places: dict[str, Path] | None = None,
) -> Manifest:
    """Hash every file below ``folder`` and write its manifest as the last file.

    Args:
        places: role of a parent → where it lies; kept relative to ``folder``, so that a moved tree still finds itself.
    """
    files = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and p.name != MANIFEST):
        files[path.relative_to(folder).as_posix()] = {"bytes": path.stat().st_size, "sha256": sha256_file(path)}
    manifest = Manifest(
        kind=kind,
        name=name,
        fingerprint=fingerprint,
        parents=parents or {},
        settings=settings or {},
        info=info or {},
        files=files,
        made_by=made_by(),
        places={role: Path(os.path.relpath(path, folder)).as_posix() for role, path in (places or {}).items()},
    )
    text = json.dumps(dataclasses.asdict(manifest), indent=2, ensure_ascii=False, allow_nan=False).encode()
    (folder / MANIFEST).write_bytes(sealed(text))
    return manifest


def sealed(text: bytes) -> bytes:
    """A manifest's JSON (indented by two) with the hash of itself as its last field."""
    body = text.rstrip().removesuffix(b"\n}")
    return body + f',\n  "seal": "{sha256_bytes(body)}"\n}}\n'.encode()


def write_atomic(path: Path, data: bytes | str) -> None:
    """Write one file so that readers see the old bytes or the new ones, never a part.

    Raises:
        ResourceError: the disk is full, or refuses for another reason.
    """
    work = path.parent / f".{path.name}.tmp-{os.getpid()}-{os.urandom(4).hex()}"
    try:
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with work.open("wb") as file:
                file.write(data.encode() if isinstance(data, str) else data)
                file.flush()
                os.fsync(file.fileno())
            work.rename(path)
            _sync_folder(path.parent)
    finally:
        work.unlink(missing_ok=True)


def _sync_tree(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
    for path in [*(p for p in folder.rglob("*") if p.is_dir()), folder]:
        _sync_folder(path)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
