"""What is imported before a script can begin: seconds that every run and every ``--help`` waits for."""

import ast
import gc
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lumi import cli

ROOT = Path(__file__).parent.parent

OF_EVERY_RUN = {
    "lightning_utilities", "numpy", "omegaconf", "pytorch_lightning", "safetensors", "sentencepiece", "torch", "tqdm",
}  # fmt: skip
OF_DATA = {"datatrove", "rich", "zstandard"}
"""A tenth of a second together: the steps of a corpus are datatrove's, and a run can make the data that it lacks."""


@pytest.mark.parametrize("script", ["train.py", "prepare.py", "evaluate.py", "serve.py"])
def test_help_waits_for_no_heavy_package(script: str) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", ROOT / script, "--help"], capture_output=True, text=True, check=True
    )
    imported = {line.rpartition("|")[2].strip().split(".")[0] for line in done.stderr.splitlines()}
    assert "hydra" in imported
    assert not imported & {"torch", "numpy", "pytorch_lightning", "transformers", "datatrove", "rich"}


def test_a_run_begins_with_the_packages_of_every_run_and_no_others() -> None:
    assert packages_of("lumi.run") == OF_EVERY_RUN | OF_DATA


def test_a_model_alone_needs_torch_only() -> None:
    assert packages_of("lumi.arch") == {"torch"}


def test_garbage_is_collected_again_after_the_imports() -> None:
    try:
        with cli.importing():
            assert not gc.isenabled()
        assert gc.isenabled()
        assert gc.get_freeze_count() > 0
    finally:
        gc.unfreeze()


def test_what_nothing_here_uses_of_lightnings_family_is_not_imported() -> None:
    code = "from lumi import cli\nwith cli.importing():\n    import lumi.run\nimport sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    imported = set(done.stdout.split())
    assert "torchmetrics" in imported
    assert not imported & {"transformers", "scipy.signal", "matplotlib", "peft", "datasets", "pandas", "wandb"}


def packages_of(name: str) -> set[str]:
    """Packages that are imported with a module of Lumi's, by it and by every other one that comes with it.

    Read from the source: in a live process one cannot tell who asked for a package, and torchmetrics, which comes with
    Lightning, imports transformers, matplotlib and scipy where it finds them.
    """
    found: set[str] = set()
    seen, waiting = set(), [name]
    while waiting:
        module = waiting.pop()
        if module in seen or not (file := source_of(module)):
            continue
        seen.add(module)
        waiting.append(module.rpartition(".")[0])  # the package runs first
        for imported in imports_of(ast.parse(file.read_text())):
            if imported.split(".")[0] == "lumi":
                waiting.append(imported)
            else:
                found.add(imported.split(".")[0])
    return found - sys.stdlib_module_names


def source_of(module: str) -> Path | None:
    """The file of a module of Lumi's; None for a name that is something in a module."""
    path = ROOT / module.replace(".", "/")
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if module and file.is_file()), None)


def imports_of(node: ast.AST) -> Iterator[str]:
    """Names that running a module imports: not those in functions, nor those for type checkers."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            yield child.module or ""
            yield from (f"{child.module}.{alias.name}" for alias in child.names)
        elif not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) and not elsewhere(child):
            yield from imports_of(child)


def elsewhere(node: ast.AST) -> bool:
    """Whether it is ``if TYPE_CHECKING:`` or ``if __name__ == "__main__":``."""
    if not isinstance(node, ast.If):
        return False
    test = node.test.left if isinstance(node.test, ast.Compare) else node.test
    return isinstance(test, ast.Name) and test.id in ("TYPE_CHECKING", "__name__")
