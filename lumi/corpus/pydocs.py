"""Real prose that needs no download: the documentation strings of this Python and of packages installed beside it.

``python prepare.py source=pydocs``. About 2 MB of English about programming from the standard library and the language
reference, over 20 MB with large packages. Source files are parsed, never imported. The text differs between versions of
Python and of the packages, so the fingerprint of the corpus names them and hashes every file that is read.
"""

import ast
import dataclasses
import hashlib
import importlib.machinery
import importlib.metadata
import logging
import os
import platform
import re
import sysconfig
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from lumi.corpus.document import Document, Rejected, SourceSettings
from lumi.corpus.streams import read_errors
from lumi.errors import ConfigError, DataError, join_violations
from lumi.manifest import sha256_file

log = logging.getLogger(__name__)

# Raised whenever the same files would give other documents than before.
EXTRACTOR_VERSION = 1
_SKIPPED_FOLDERS = {"__pycache__", "dist-packages", "idlelib", "lib2to3", "site-packages", "test", "tests", "_vendor"}
# Enough for a coherent document, small enough that validation can be split off evenly.
_GROUP_CHARS = 4000
# Below this share of letters and spaces a docstring is a table or a console session rather than prose.
_MIN_PROSE_RATIO = 0.7
_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]")
_BLANK_LINES = re.compile(r"\n\s*\n(?:[ \t]*\n)+")


@dataclasses.dataclass(kw_only=True)
class PyDocs(SourceSettings):
    """Docstrings of the standard library and of ``packages``, and the topics of the language reference.

    A document is a topic, or successive docstrings of a module under their qualified names. A docstring that is there twice
    is taken once; those that are mostly code or numbers are left out.

    Args:
        packages: import names of installed packages to read too; one that is not installed is skipped with a warning.
        name: of the corpus, and of its loss in the logs.
        min_chars: shorter documents are left out.
        weight, tokens, max_chars, language, category, licence, notes: as in `Source`.

    Raises:
        ConfigError: a setting has the wrong type or value.
    """

    packages: list[str] = dataclasses.field(default_factory=list)
    name: str = "pydocs"
    min_chars: int = 200
    category: str = "documentation"
    licence: str = "PSF-2.0 (Python), each package's own licence for its text"
    notes: str = "Differs between versions of Python and of the packages: compare results on one installation only."

    def __post_init__(self) -> None:
        violations = self.violations()
        names = self.packages if isinstance(self.packages, list) else [None]
        if not all(isinstance(name, str) and name.isidentifier() for name in names):
            rule = "must be a list of import names such as [torch, numpy]"
            violations.append(ConfigError(f"source.packages={self.packages!r}", rule))
        if not isinstance(self.min_chars, int) or isinstance(self.min_chars, bool) or self.min_chars < 1:
            violations.append(
                ConfigError(f"source.min_chars={self.min_chars!r}", "must be a whole number of at least 1")
            )
        if violations:
            raise join_violations(violations)

    def settings(self) -> dict[str, Any]:
        """The versions of what is installed, and one SHA-256 over every source file that is read.

        Raises:
            DataError: a source file cannot be read.
        """
        content = hashlib.sha256()
        for module, path in self._modules():
            with read_errors(path):
                content.update(f"{module} {sha256_file(path)}\n".encode())
        return {
            "kind": "pydocs",
            "python": platform.python_version(),
            "packages": {package: _version(package) for package in sorted(self.packages)},
            "min_chars": self.min_chars,
            "extractor_version": EXTRACTOR_VERSION,
            "content_sha256": content.hexdigest(),
        }

    def documents(self) -> Iterator[Document | Rejected]:
        """First the topics, then the modules of the standard library, then those of the packages, each sorted by name."""
        for package in sorted(self.packages):
            if _root(package) is None:
                log.warning("source.packages: %s is not installed and is skipped", package)
        seen = set[bytes]()
        for module, path in self._modules():
            try:
                tree = _parse(path)
            except (SyntaxError, ValueError, RecursionError) as error:
                yield Rejected(where=module, reason="not parsable", detail=str(error))
                continue
            if module == "pydoc_data.topics":
                texts = _topics(tree)
            else:
                texts = _grouped((name, text) for name, text in _docstrings(tree, module) if _is_new(text, seen))
            for number, text in enumerate(texts, start=1):
                if len(text) >= self.min_chars:
                    yield Document(text=text, id=f"{module}:{number}")

    def _modules(self) -> Iterator[tuple[str, Path]]:
        modules = _standard_library()
        # The language reference first: it is the best prose.
        yield from sorted(modules, key=lambda entry: (entry[0] != "pydoc_data.topics", entry[0]))
        for package in sorted(set(self.packages)):
            if (root := _root(package)) is not None:
                yield from sorted(_modules_below(root, f"{package}.") if root.is_dir() else [(package, root)])


def docstrings(packages: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Qualified name and docstring of everything in these packages of the standard library, in the order of the modules.

    Raises:
        DataError: a source file cannot be read.
    """
    for module, path in _those_of(packages):
        try:
            tree = _parse(path)
        except (SyntaxError, ValueError, RecursionError) as error:
            log.warning("%s is not parsable and is skipped: %s", module, error)
            continue
        yield from _docstrings(tree, module)


def docstrings_sha256(packages: Sequence[str]) -> str:
    """One hash over every source file that `docstrings` reads."""
    content = hashlib.sha256()
    for module, path in _those_of(packages):
        with read_errors(path):
            content.update(f"{module} {sha256_file(path)}\n".encode())
    return content.hexdigest()


def _those_of(packages: Sequence[str]) -> list[tuple[str, Path]]:
    return sorted(entry for entry in _standard_library() if entry[0].partition(".")[0] in packages)


def _standard_library() -> list[tuple[str, Path]]:
    stdlib = Path(sysconfig.get_path("stdlib"))
    modules = _modules_below(stdlib, "")
    if not modules:
        raise DataError(
            f"source=pydocs: {stdlib}", "holds no Python source", "this source needs an ordinary installation"
        )
    return modules


def _root(package: str) -> Path | None:
    """The folder or file of a package, found without importing it."""
    spec = importlib.machinery.PathFinder.find_spec(package)
    if spec is None:
        return None
    if spec.submodule_search_locations:
        return Path(next(iter(spec.submodule_search_locations)))
    return Path(spec.origin) if spec.origin and spec.origin.endswith(".py") else None


def _version(package: str) -> str | None:
    names = importlib.metadata.packages_distributions().get(package)
    return importlib.metadata.version(names[0]) if names else None


def _modules_below(folder: Path, prefix: str) -> list[tuple[str, Path]]:
    modules = []
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name not in _SKIPPED_FOLDERS]
        for name in names:
            if name.endswith(".py"):
                path = Path(parent, name)
                parts = path.relative_to(folder).with_suffix("").parts
                module = prefix + ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
                modules.append((module.rstrip("."), path))
    return modules


def _parse(path: Path) -> ast.Module:
    with warnings.catch_warnings(), read_errors(path):
        warnings.simplefilter("ignore")  # about escapes in other people's strings
        return ast.parse(path.read_bytes())


def _topics(tree: ast.Module) -> Iterator[str]:
    """The values of the dictionary that the module assigns, by their keys; each begins with a title of its own."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict):
            for _, text in sorted(ast.literal_eval(node.value).items()):
                yield _clean(text)


def _docstrings(node: ast.AST, name: str) -> Iterator[tuple[str, str]]:
    """Qualified name and cleaned docstring of a module and of the classes and functions in it, in their order."""
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        text = _clean(ast.get_docstring(node) or "")
        if text and _is_prose(text):
            yield name, text
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _docstrings(child, f"{name}.{child.name}")
        elif isinstance(child, ast.stmt | ast.ExceptHandler):
            yield from _docstrings(child, name)


def _clean(text: str) -> str:
    """Without white space at the ends of lines, and with at most one blank line in a row."""
    lines = "\n".join(line.rstrip() for line in text.expandtabs().split("\n"))
    return _BLANK_LINES.sub("\n\n", lines).strip("\n")


def _is_prose(text: str) -> bool:
    n_prose = sum(map(str.isalpha, text)) + text.count(" ")
    return n_prose >= _MIN_PROSE_RATIO * len(text) and _UNPRINTABLE.search(text) is None


def _is_new(text: str, seen: set[bytes]) -> bool:
    digest = hashlib.blake2b(text.encode(), digest_size=16).digest()
    new = digest not in seen
    seen.add(digest)
    return new


def _grouped(sections: Iterable[tuple[str, str]]) -> Iterator[str]:
    """Successive docstrings under their names, as many as fit into `_GROUP_CHARS`; a longer one by itself."""
    group, size = [], 0
    for name, text in sections:
        section = f"{name}\n\n{text}"
        if group and size + len(section) > _GROUP_CHARS:
            yield "\n\n".join(group)
            group, size = [], 0
        group.append(section)
        size += len(section)
    if group:
        yield "\n\n".join(group)
