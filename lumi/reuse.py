"""Doing nothing twice: whether an artefact is there already, made from the same things with the same settings."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lumi.errors import DataError
from lumi.manifest import MANIFEST, Manifest, fingerprint, read_manifest, verify

_MOST_DIFFERENCES = 5


def content_fingerprint(settings: dict[str, Any], parents: dict[str, str]) -> str:
    """What decides the bytes of an artefact, as one hash."""
    return fingerprint({"settings": settings, "parents": parents})


def finished(
    folder: Path, *, kind: str, key: str, settings: dict[str, Any], parents: dict[str, str], force: bool, fix: str
) -> Manifest | None:
    """The manifest of what is in ``folder`` already, or None when there is something to do.

    Args:
        folder: of the artefact.
        kind: of its manifest.
        key: config group of its settings, for messages.
        settings: what it would be made with now, as JSON gives it back.
        parents: what it would be made from now.
        force: make it again whatever is there.
        fix: what to type when it was made otherwise.

    Raises:
        DataError: ``folder`` holds something else, a damaged artefact, or one that was made otherwise: each difference is
            named.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return None
    if not (folder / MANIFEST).is_file():
        rule = f"exists and is no artefact of Lumi (it has no {MANIFEST}), so it is left alone"
        raise DataError(f"{folder}", rule, "use another name, or remove it")
    if force:
        return None
    found = read_manifest(folder, kind=kind)
    if found.fingerprint == content_fingerprint(settings, parents):
        return verify(folder, kind=kind)
    changes = [*setting_changes(key, found.settings, settings), *setting_changes("made from", found.parents, parents)]
    more = f" and {len(changes) - _MOST_DIFFERENCES} more" if len(changes) > _MOST_DIFFERENCES else ""
    differences = ", ".join(changes[:_MOST_DIFFERENCES]) or "the layout of the files has changed"
    raise DataError(f"{folder} was made otherwise", f"{differences}{more}", fix)


def setting_changes(path: str, old: Any, new: Any) -> Iterator[str]:
    """Each setting that differs, as ``tokenizer.seed was 1, is 2``; nested ones by their full path."""
    if isinstance(old, dict) and isinstance(new, dict):
        for name in sorted(old.keys() | new.keys()):
            yield from setting_changes(f"{path}.{name}", old.get(name), new.get(name))
    elif old != new:
        yield f"{path} was {_short(old)}, is {_short(new)}"


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 30 else f"{text[:20]}…"
