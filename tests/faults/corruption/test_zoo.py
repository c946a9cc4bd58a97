"""C6: opening what a stranger sent runs nothing, dials nobody, tells nothing and takes bounded memory."""

import json
import logging
import os
import re
import resource
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lumi.corpus import read_corpus
from lumi.data.packed import PackedStream
from lumi.errors import LumiError
from lumi.eval.study.reading import read_study
from lumi.tokenizer import Tokenizer
from lumi.trained import load_trained
from tests.faults.corruption.conftest import resumer
from tests.faults.corruption.strangers import copied
from tests.faults.corruption.zoo import HARMLESS, SECRET, VARIABLE, ZOO, spoil

FORBIDDEN = ("socket.", "subprocess.", "os.system", "os.exec", "os.spawn", "os.posix_spawn", "pty.", "ctypes.dlopen")
MEMORY_MIB = 512


@pytest.fixture(scope="session")
def kinds(artefacts, hf, adapter, checkpoint) -> dict[str, tuple[Path, str, Callable[[Path], Any]]]:
    """Kind → a sound folder, the name that SHARD stands for in it, and what reads it."""
    shard = artefacts["corpus shard"].file
    return {
        "checkpoint": (artefacts["weights"].folder, "", load_trained),
        "state": (artefacts["optimizer"].folder, "", resumer(checkpoint)),
        "hf": (Path(hf["folder"]), "", load_trained),
        "adapter": (Path(adapter["folder"]), "", load_trained),
        "packed": (artefacts["index"].folder, "", lambda folder: PackedStream(folder, "train", 8)),
        "corpus": (artefacts["corpus shard"].folder, shard, lambda folder: list(read_corpus(folder))),
        "tokenizer": (artefacts["spm.model"].folder, "", Tokenizer.load),
        "run": (checkpoint.parent.parent, "", lambda folder: (read_study([str(folder)]), load_trained(folder))),
    }


def in_child(action: Callable[[], object], log: Path) -> dict[str, Any]:
    """Run it in a child that is watched: what it said, what it did that it must not do, and how much it grew in MiB."""
    read, write = os.pipe()
    if child := os.fork():
        os.close(write)
        with os.fdopen(read) as answer:
            said = answer.read()
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert status == 0, f"the child ended with {status}: {log.read_text()[-500:]}"
        return json.loads(said)
    handle = os.open(log, os.O_WRONLY | os.O_CREAT)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    logging.basicConfig(level=logging.DEBUG, stream=sys.__stderr__, force=True)
    done: list[str] = []
    sys.addaudithook(lambda event, facts: done.append(event) if event.startswith(FORBIDDEN) else None)
    before, said = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, "!accepted"
    try:
        action()
    except LumiError as error:
        said = f"{error}" if error.exit_code == 3 else f"!exit code {error.exit_code}: {error}"
    except BaseException as error:  # noqa: BLE001  # whatever it is, the parent has to hear of it
        said = f"!{type(error).__name__}: {error}"
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    os.write(write, json.dumps({"said": said, "done": done, "grown": grown}).encode())
    os._exit(0)


@pytest.mark.matrix("C6")
@pytest.mark.parametrize("name", ZOO)
def test_nothing_of_the_zoo_is_run(row, kinds, tmp_path, monkeypatch, name):
    sound, shard, read = kinds[ZOO[name][0]]
    folder, canary = copied(sound, tmp_path / "stranger"), tmp_path / "canary"
    if shard:
        (folder / "SHARD").symlink_to(folder / shard)
    spoil(folder, canary, name)
    (folder / "SHARD").unlink(missing_ok=True)
    monkeypatch.setenv(VARIABLE, SECRET)
    seen = in_child(lambda: read(folder), tmp_path / "log")
    is_refused = not seen["said"].startswith("!") or (name in HARMLESS and seen["said"] == "!accepted")
    assert is_refused, seen["said"]
    assert not canary.exists()
    assert seen["done"] == []
    assert SECRET not in (tmp_path / "log").read_text(errors="replace") + seen["said"]
    assert seen["grown"] < MEMORY_MIB, f"{seen['grown']:.0f} MiB"
    row(trials=1, note=f"{name}: {seen['said'][:60]}")


TREE = Path(__file__).parents[3]
NEVER = {
    "a pickle is opened": r"\b(pickle|marshal)\.loads?\(|\bcloudpickle\b|\bimport dill\b|\bjoblib\.load\(|\bshelve\.open\(",
    "torch.load without weights_only=True": r"torch\.load\((?![^\n]*weights_only=True)",
    "an array may hold objects": r"allow_pickle=True|np\.load\((?![^\n]*allow_pickle=False)",
    "YAML that makes objects": r"yaml\.(load|unsafe_load|full_load)\(",
    "a template of a stranger is rendered": r"\b(import|from) jinja2|\.from_string\(|\.apply_chat_template\(",
    "code of a model's folder": r"trust_remote_code\s*=\s*True",
    "text becomes code": r"(?<![\w.])(eval|exec)\(|\bcompile\([^\n]*['\"]exec['\"]",
    "any class can be named": r"hydra\.utils\.(instantiate|get_class|get_method|get_object)|\binstantiate\(",
}
ALLOWED = {
    "any class can be named": {"lumi/config.py"},  # its registry: classes of lumi only
    # Words of a README, and a comparison with the template that was just written.
    "a template of a stranger is rendered": {"lumi/export/card.py", "lumi/export/parity.py"},
}


@pytest.mark.matrix("C6")
@pytest.mark.parametrize("what", NEVER)
def test_nowhere_in_the_tree(row, what):
    files = [*sorted(TREE.glob("lumi/**/*.py")), *sorted(TREE.glob("*.py"))]
    assert len(files) > 100
    found = {}
    for file in files:
        name = file.relative_to(TREE).as_posix()
        if name not in ALLOWED.get(what, ()) and (hits := re.findall(f".*(?:{NEVER[what]}).*", file.read_text())):
            found[name] = hits
    assert not found
    row(trials=len(files), note=what)
