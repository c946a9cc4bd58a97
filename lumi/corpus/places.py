"""Where the files of a source lay when it was read: kept beside their hashes, so that they can be found and compared again."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lumi.corpus.paths import find_files
from lumi.corpus.readers import file_format, known_formats
from lumi.errors import DataError
from lumi.manifest import MANIFEST


def places_of(sources: Iterable[Any]) -> dict[str, Path]:
    """Source → the folder below which its files have their names; sources without files are left out."""
    found = {source.name: _folder(getattr(source, "path", None)) for source in sources}
    return {name: folder for name, folder in found.items() if folder is not None}


def _folder(path: Any) -> Path | None:
    if not path:
        return None
    if isinstance(path, str) and (Path(path) / MANIFEST).exists():
        return Path(path)  # another corpus
    try:
        files = find_files(
            [path] if isinstance(path, str) else list(path), lambda file: file_format(file) is not None, known_formats()
        )
    except DataError:
        return None  # they went while they were read, which the build says better
    return Path(os.path.commonpath([file.parent for file in files.values()]))
