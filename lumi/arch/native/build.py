"""Libraries made by the user's compiler when first needed, and kept in ``~/.cache/lumi`` by source, compiler and processor."""

import ctypes
import functools
import hashlib
import logging
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

log = logging.getLogger(__name__)

COMPILERS = ("c++", "g++", "clang++")
_FLAGS = ("-std=c++20", "-O3", "-march=native", "-shared", "-fPIC", "-pthread", "-fopenmp")
_SECONDS = 120


@functools.cache
def load_library(name: str, what: str) -> ctypes.CDLL | None:
    """A library; None, and a line in the log, where it cannot be had."""
    compiler = next(filter(None, map(shutil.which, COMPILERS)), None)
    if compiler is None:
        log.info("no C++ compiler (%s): %s takes PyTorch's operations, which are slower", ", ".join(COMPILERS), what)
        return None
    try:
        return ctypes.CDLL(str(_compiled(compiler, Path(__file__).with_name(f"{name}.cpp"))))
    except (OSError, subprocess.SubprocessError) as error:
        log.warning(
            "%s.cpp could not be compiled, so %s takes PyTorch's operations, which are slower: %s", name, what, error
        )
        return None


def _compiled(compiler: str, source: Path) -> Path:
    """The library of a source, compiler and processor, made unless it is there."""
    # The compiler is the user's own, and nothing that was read from a file is among the words.
    version = subprocess.run([compiler, "--version"], capture_output=True, check=True, timeout=_SECONDS).stdout  # noqa: S603
    shared = b"".join(path.read_bytes() for path in sorted(source.parent.glob("*.h")))
    parts = (source.read_bytes(), shared, " ".join(_FLAGS).encode(), compiler.encode(), version, _processor())
    place = Path.home() / ".cache" / "lumi" / f"{source.stem}-{hashlib.sha256(b'|'.join(parts)).hexdigest()[:16]}.so"
    if not place.exists():
        place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryDirectory(dir=place.parent) as folder:
            made = Path(folder) / place.name
            command = [compiler, *_FLAGS, str(source), "-o", str(made)]
            subprocess.run(command, capture_output=True, check=True, timeout=_SECONDS)  # noqa: S603
            made.replace(place)
    return place


def _processor() -> bytes:
    """What the compiler makes code for: a home folder may be shared by different machines."""
    try:
        lines = Path("/proc/cpuinfo").read_bytes().splitlines()
    except OSError:
        return platform.processor().encode()
    wanted = (b"model name", b"flags", b"Features", b"CPU part")
    return b"".join(sorted({line for line in lines if line.startswith(wanted)}))
