"""The hostile zoo: what people have put into models, data and configs so that opening them does something."""

import codecs
import io
import json
import os
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import zstandard

from tests.faults.corruption.strangers import change, reseal

SECRET = "s3cret-of-the-environment"
VARIABLE = "LUMI_TEST_SECRET"
NORM = "model.norm.weight"


class Touch:
    """Makes a file when it is unpickled."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch '{self.canary}'",)


class Dial:
    """Opens a socket when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        import socket

        return socket.create_connection, (("127.0.0.1", 9), 0.1)


def _zip(canary: Path, payload: bytes, *, name: str = "archive/data.pkl", packed: bool = False) -> bytes:
    """PyTorch's archive with any pickle in it."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED) as archive:
        archive.writestr(name, payload)
        archive.writestr("archive/version", "3\n")
        archive.writestr("archive/byteorder", "little")
    return out.getvalue()


def _saved(value: Any) -> bytes:
    out = io.BytesIO()
    torch.save(value, out)
    return out.getvalue()


def _state(folder: Path, **changes: Any) -> bytes:
    return _saved({**torch.load(folder / "training.pt", weights_only=True), **changes})


def _header(tensors: dict[str, Any], data: bytes = b"", length: int | None = None) -> bytes:
    """A safetensors file with any header."""
    text = json.dumps(tensors).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def _npy(array: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.save(out, array, allow_pickle=True)
    return out.getvalue()


def _places(n: int) -> bytes:
    """The header of an array of n places, and none of them."""
    words = f"{{'descr': '<i8', 'fortran_order': False, 'shape': ({n},), }}"
    return np.lib.format.magic(1, 0) + struct.pack("<H", 118) + words.ljust(117).encode() + b"\n"


def _tensors(names: list[str], shape: list[int], stop: int, data: bytes = b"") -> bytes:
    """A safetensors file whose tensors all say that they are in the same place."""
    return _header({name: {"dtype": "F32", "shape": shape, "data_offsets": [0, stop]} for name in names}, data)


def _tar(payload: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name in ("storages", "tensors", "pickle"):
            info = tarfile.TarInfo(name)
            info.size = len(payload)
            archive.addfile(info, io.BytesIO(payload))
    return out.getvalue()


Spoil = Callable[[Path, Path], object]
"""Spoils the artefact in a folder; what would be made by running it is the second path."""


def put(name: str, make: Callable[[Path, Path], bytes]) -> Spoil:
    """Replace a file by what ``make(folder, canary)`` gives."""
    return lambda folder, canary: (folder / name).write_bytes(make(folder, canary))


def also(name: str, text: str) -> Spoil:
    """Add a file that nobody asked for."""
    return lambda folder, canary: (folder / name).write_text(text.replace("CANARY", str(canary)))


def link(name: str, to: str) -> Spoil:
    """A link in place of a file."""

    def spoil(folder: Path, canary: Path) -> None:
        (folder / name).unlink()
        (folder / name).symlink_to(to)

    return spoil


def fields(name: str, **values: Any) -> Spoil:
    """Keys of a JSON file."""
    return lambda folder, canary: change(folder / name, **values)


def evil(folder: Path, canary: Path) -> bytes:
    return pickle.dumps(Touch(canary))


PICKLES: dict[str, tuple[str, Spoil]] = {
    **{
        f"a pickle as {kind}/{name}": (kind, put(name, evil))
        for kind, name in (
            ("checkpoint", "model.safetensors"),
            ("checkpoint", "decoder.json"),
            ("checkpoint", "tokenizer.model"),
            ("checkpoint", "run.json"),
            ("hf", "model.safetensors"),
            ("hf", "config.json"),
            ("hf", "lumi.json"),
            ("hf", "tokenizer.model"),
            ("adapter", "adapter_model.safetensors"),
            ("adapter", "adapter_config.json"),
            ("packed", "train.offsets.npy"),
            ("tokenizer", "tokenizer.model"),
            ("state", "training.pt"),
        )
    },
    "a pickle in PyTorch's archive": ("state", put("training.pt", lambda f, c: _zip(c, evil(f, c)))),
    "a pickle in every slot of the state": (
        "state",
        put("training.pt", lambda f, c: _saved({"loops": Touch(c), "callbacks": Touch(c)})),
    ),
    "a socket in the optimizer's state": (
        "state",
        put("training.pt", lambda f, c: _state(f, optimizer_states=[Dial()])),
    ),
    "a pickle in the optimizer's state": (
        "state",
        put("training.pt", lambda f, c: _state(f, optimizer_states=[{"state": Touch(c)}])),
    ),
    "a pickle in the learning rates": ("state", put("training.pt", lambda f, c: _state(f, lr_schedulers=[Touch(c)]))),
    "a pickle in the hyperparameters": ("state", put("training.pt", lambda f, c: _state(f, hyper_parameters=Touch(c)))),
    "the old tar form": ("state", put("training.pt", lambda f, c: _tar(evil(f, c)))),
    "the old form of many pickles": (
        "state",
        put("training.pt", lambda f, c: pickle.dumps(0x1950A86A20F9469CFC6C) + evil(f, c) * 3),
    ),
    "TorchScript": ("state", put("training.pt", lambda f, c: _zip(c, b"x", name="archive/code/__torch__.py"))),
    "an encoded pickle": ("state", put("training.pt", lambda f, c: codecs.encode(evil(f, c), "base64"))),
    "pytorch_model.bin instead of weights": (
        "hf",
        lambda f, c: (f / "model.safetensors").rename(f / "pytorch_model.bin").write_bytes(evil(f, c)),
    ),
    "metadata of a distributed checkpoint": (
        "checkpoint",
        lambda f, c: (f / "model.safetensors").rename(f / ".metadata").write_bytes(evil(f, c)),
    ),
    "objects in an array": ("packed", put("train.offsets.npy", lambda f, c: _npy(np.array([Touch(c)], dtype=object)))),
    "objects in a record array": (
        "packed",
        put("train.offsets.npy", lambda f, c: _npy(np.array([(Touch(c),)], dtype=[("a", object)]))),
    ),
    "a pickle in a packed shard": ("corpus", put("SHARD", lambda f, c: zstandard.compress(evil(f, c)))),
}

WORDS: dict[str, tuple[str, Spoil]] = {
    "_target_ in an architecture": ("checkpoint", fields("decoder.json", _target_="os.system", command="touch CANARY")),
    "_target_ in an export's facts": ("hf", fields("lumi.json", decoder={"_target_": "os.system"})),
    "_target_ in an adapter": ("adapter", fields("adapter_config.json", peft_type="os.system")),
    "a yaml tag in an architecture": (
        "checkpoint",
        also("decoder.json", "!!python/object/apply:os.system ['touch CANARY']"),
    ),
    "a yaml tag in a run's config": ("run", also("config.yaml", "a: !!python/object/apply:os.system ['touch CANARY']")),
    "auto_map": ("hf", fields("config.json", auto_map={"AutoModelForCausalLM": "modeling_evil.Evil"})),
    "code beside an export": ("hf", also("modeling_llama.py", "open('CANARY', 'w')")),
    "code of an adapter": ("adapter", also("adapter.py", "open('CANARY', 'w')")),
    "sitecustomize": ("checkpoint", also("sitecustomize.py", "open('CANARY', 'w')")),
    "jinja in a template": (
        "hf",
        also("chat_template.jinja", "{{ cycler.__init__.__globals__.os.system('touch CANARY') }}"),
    ),
    "the environment in an architecture": ("checkpoint", fields("decoder.json", attention=f"${{oc.env:{VARIABLE}}}")),
    "the environment in an export's facts": ("hf", fields("lumi.json", tokenizer_sha256=f"${{oc.env:{VARIABLE}}}")),
    "the environment in an adapter's base": (
        "adapter",
        fields("adapter_config.json", base_model_name_or_path=f"${{oc.env:{VARIABLE}}}"),
    ),
    "the environment in a run's state": ("run", fields("run.json", settings=f"${{oc.env:{VARIABLE}}}")),
    "a base that leads out": ("adapter", fields("adapter_config.json", base_model_name_or_path="../../../etc")),
    "a base on the hub": ("adapter", fields("adapter_config.json", base_model_name_or_path="meta/llama")),
    "a base elsewhere": ("adapter", fields("adapter_config.json", base_model_name_or_path="/etc")),
}

LINKS: dict[str, tuple[str, Spoil]] = {
    "weights that are a link": ("checkpoint", link("model.safetensors", "/etc/passwd")),
    "a state that is a link": ("state", link("training.pt", "/dev/zero")),
    "an architecture that is a device": ("checkpoint", link("decoder.json", "/dev/zero")),
    "facts that are a device": ("hf", link("lumi.json", "/dev/zero")),
    "a manifest that is a device": ("packed", link("MANIFEST.json", "/dev/zero")),
    "settings that are the environment": ("adapter", link("adapter_config.json", "/proc/self/environ")),
}

HUGE = 10**18
BOMBS: dict[str, tuple[str, Spoil]] = {
    "a header of 10^18 bytes": ("checkpoint", put("model.safetensors", lambda f, c: _header({}, length=HUGE))),
    "a tensor of 10^18 rows": ("checkpoint", put("model.safetensors", lambda f, c: _tensors([NORM], [HUGE], 4 * HUGE))),
    "a shape that overflows": (
        "checkpoint",
        put("model.safetensors", lambda f, c: _tensors([NORM], [2**32, 2**32], 0)),
    ),
    "tensors that overlap": (
        "checkpoint",
        put("model.safetensors", lambda f, c: _tensors(["a", "b"], [32], 128, bytes(128))),
    ),
    "10^9 layers": ("checkpoint", fields("decoder.json", n_layers=10**9)),
    "10^12 tokens": ("checkpoint", fields("decoder.json", vocab_size=10**12)),
    "a window of 10^12": ("checkpoint", fields("decoder.json", max_seq_len=10**12)),
    "10^15 heads": ("checkpoint", fields("decoder.json", n_heads=10**15)),
    "an export of 10^9 layers": ("hf", fields("config.json", num_hidden_layers=10**9)),
    "an adapter of rank 10^9": ("adapter", fields("adapter_config.json", r=10**9)),
    "a packed state": ("state", put("training.pt", lambda f, c: _zip(c, bytes(50_000_000), packed=True))),
    "a state of one number seen 10^12 times": (
        "state",
        put("training.pt", lambda f, c: _state(f, optimizer_states=torch.zeros(1).expand(10**12))),
    ),
    "a shard that grows 1,000 times": ("corpus", put("SHARD", lambda f, c: zstandard.compress(bytes(700_000_000)))),
    "an array of 10^15 places": ("packed", put("train.offsets.npy", lambda f, c: _places(10**15))),
    "a list 10^6 deep": ("checkpoint", put("decoder.json", lambda f, c: b"[" * 10**6)),
    "a number of 10^6 digits": ("checkpoint", put("decoder.json", lambda f, c: b'{"n_layers": ' + b"9" * 10**6 + b"}")),
    "facts of a gigabyte": ("hf", lambda f, c: os.truncate(f / "lumi.json", 2**30)),
}

ZOO = {**PICKLES, **WORDS, **LINKS, **BOMBS}
HARMLESS = {
    "code beside an export",
    "code of an adapter",
    "sitecustomize",
    "jinja in a template",
    "a yaml tag in a run's config",
    "the environment in a run's state",
}
"""What a model is read without: files that Lumi never looks at, or words in them that stay words."""


def spoil(folder: Path, canary: Path, name: str) -> None:
    """Put one of the zoo into an artefact whose manifest then fits, where a manifest can be written for it."""
    ZOO[name][1](folder, canary)
    if (folder / "MANIFEST.json").is_file() and not (folder / "MANIFEST.json").is_symlink():
        reseal(folder)
