"""C5: every reader of a file that somebody else may have sent, on files that nearly are what they should be."""

import copy
import json
import random
import resource
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from lumi.arch.lora import load_adapter
from lumi.arch.weights import load_state, read_config
from lumi.callbacks.checkpoint import read_best
from lumi.callbacks.training_state import read_training_state
from lumi.data.packed import PackedStream
from lumi.errors import LumiError
from lumi.eval.results import read_results
from lumi.export import load_huggingface
from lumi.identity import decisive, read_state
from lumi.manifest import sealed, verify
from lumi.strangers import read_object
from lumi.tokenizer import Template, Tokenizer
from tests.faults.corruption.strangers import copied, reseal

Reader = Callable[[bytes], Any]
ODD: list[Any] = [
    None, True, -1, 0, 1, 2, 10**18, 10**400, 1e308, float("nan"), float("inf"), "", "x", "x" * 5000, "\ud800", "../x", "\0",
    "${oc.env:HOME}", [], {}, [[]], {"a": 1}, [1] * 1000, "sha256", "uint16", "object", [{}], {"_target_": "os.system"},
]  # fmt: skip
DEEP = b"[" * 100_000


def other_json(sound: bytes, rng: random.Random) -> bytes:
    """A JSON file with one to three of its values replaced, removed, renamed or nested a hundred thousand times."""
    tree = json.loads(sound)
    sealed_before = isinstance(tree, dict) and tree.pop("seal", None) is not None
    for _ in range(rng.randint(1, 3)):
        node = tree
        while isinstance(node, dict | list) and node:
            key = rng.choice(list(node) if isinstance(node, dict) else range(len(node)))
            if rng.random() < 0.5 or not isinstance(node[key], dict | list):
                break
            node = node[key]
        else:
            continue
        if isinstance(node, dict) and rng.random() < 0.3:
            node[rng.choice(["x", "", f"{key}"[:-1], "\ud800"])] = node.pop(key)
        elif rng.random() < 0.2:
            del node[key]
        else:
            node[key] = copy.deepcopy(rng.choice(ODD))
    text = json.dumps(tree, indent=2).encode()
    if rng.random() < 0.02:
        text = text.replace(b"1", DEEP, 1)
    return sealed(text) if sealed_before and text.endswith(b"\n}") and rng.random() < 0.8 else text


def other_bytes(sound: bytes, rng: random.Random) -> bytes:
    """Bits flipped, a stretch cut out, doubled, zeroed or replaced; the beginning most often, where the headers are."""
    data = bytearray(sound)
    reach = rng.choice([16, 200, len(data)])
    start = rng.randrange(min(reach, len(data)))
    stop = min(len(data), start + rng.choice([1, 8, 100, 5000]))
    match rng.randrange(6):
        case 0 | 1:
            for _ in range(rng.randint(1, 4)):
                data[rng.randrange(start, stop)] ^= 1 << rng.randrange(8)
        case 2:
            del data[start:stop]
        case 3:
            data[start:start] = data[start:stop]
        case 4:
            data[start:stop] = rng.choice([bytes(stop - start), b"\xff" * (stop - start), rng.randbytes(stop - start)])
        case _:
            data = data[:start]
    return bytes(data)


@pytest.fixture(scope="module")
def readers(artefacts, hf, adapter, trained, checkpoint, tmp_path_factory) -> dict[str, tuple[bytes, Reader, int]]:
    """Name → the bytes of a sound file, what reads such bytes, and the share of cases, as 1 in so many: some are slow."""
    root = tmp_path_factory.mktemp("fuzzed")
    packed, indexed = (copied(artefacts["index"].folder, root / name) for name in ("packed", "indexed"))
    plain = copied(artefacts["weights"].folder, root / "plain")
    export = Path(shutil.copytree(hf["folder"], root / "hf", ignore=shutil.ignore_patterns("MANIFEST.json")))
    peft = copied(Path(adapter["folder"]), root / "peft")
    config = read_config(plain)
    run = copied(checkpoint.parent.parent, root / "run")
    (root / "template.json").write_text(json.dumps(trained.template.as_dict()))
    (root / "best.json").write_text('{"step": 1, "val/loss": 2.5}')
    (root / "results.json").write_text(
        '{"schema_version": 3, "model": {}, "sources": {"a": {"score": {}}}, "tasks": {}}'
    )

    def of(
        path: Path, read: Callable[[], Any], one_in: int = 1, *, seal: Path | None = None
    ) -> tuple[bytes, Reader, int]:
        def reader(data: bytes) -> Any:
            path.write_bytes(data)
            if seal is not None:
                reseal(seal)
            return read()

        return path.read_bytes(), reader, one_in

    return {
        "manifest": of(packed / "MANIFEST.json", lambda: verify(packed)),
        "packed manifest": of(packed / "MANIFEST.json", lambda: PackedStream(packed, "train", 8)),
        "index": of(indexed / "train.offsets.npy", lambda: PackedStream(indexed, "train", 8), 4, seal=indexed),
        "config": of(plain / "decoder.json", lambda: read_config(plain)),
        "weights": of(plain / "model.safetensors", lambda: load_state(plain, config), 4),
        "optimizer": of(plain / "training.pt", lambda: read_training_state(plain / "training.pt"), 4),
        "tokenizer": of(
            plain / "tokenizer.model", lambda: Tokenizer.from_bytes((plain / "tokenizer.model").read_bytes())
        ),
        "adapter": of(peft / "adapter_model.safetensors", lambda: load_adapter(peft), 2),
        "adapter config": of(peft / "adapter_config.json", lambda: load_adapter(peft)),
        "exported config": of(export / "config.json", lambda: load_huggingface(export), 20),
        "exported facts": of(export / "lumi.json", lambda: load_huggingface(export), 20),
        "run.json": of(run / "run.json", lambda: decisive(read_state(run)["settings"])),
        "template": of(root / "template.json", lambda: Template.from_dict(read_object(root / "template.json"))),
        "best.json": of(root / "best.json", lambda: read_best(root)),
        "results": of(root / "results.json", lambda: read_results(root)),
    }


NAMES = (
    "manifest", "packed manifest", "index", "config", "weights", "optimizer", "tokenizer", "adapter", "adapter config",
    "exported config", "exported facts", "run.json", "template", "best.json", "results",
)  # fmt: skip


@pytest.mark.matrix("C5")
@pytest.mark.parametrize("n", [80, pytest.param(11_000, marks=pytest.mark.faults)])
@pytest.mark.parametrize("name", NAMES)
def test_a_reader_refuses_or_reads_and_does_nothing_else(row, readers, name, n):
    sound, read, one_in = readers[name]
    peak, slowest, n_read = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, 0.0, [0, 0]
    is_json = sound.lstrip()[:1] == b"{"

    @settings(
        max_examples=n // one_in, deadline=None, database=None, derandomize=True, phases=[Phase.generate],
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    )  # fmt: skip
    @given(seed=st.integers(0, 2**63))
    def check(seed: int) -> None:
        nonlocal slowest
        rng = random.Random(seed)
        data = other_json(sound, rng) if is_json and rng.random() < 0.8 else other_bytes(sound, rng)
        began = time.process_time()
        try:
            read(data)
            n_read[1] += 1
        except LumiError:
            n_read[0] += 1
        slowest = max(slowest, time.process_time() - began)

    check()
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak) / 1024
    assert grown < 512, f"{grown:.0f} MiB"
    assert slowest < 2, f"{slowest:.1f} s"
    row(trials=sum(n_read), seed=0, note=f"{name}: {n_read[0]} refused, slowest {slowest:.2f} s, +{grown:.0f} MiB")
