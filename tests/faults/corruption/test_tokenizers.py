"""C4: one tokenizer everywhere. At ten boundaries another one stops the work before the first batch, by its hash."""

import itertools
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from lumi.data.pack import PackConfig, pack
from lumi.errors import DataError
from lumi.manifest import MANIFEST, sealed, sha256_bytes, sha256_file
from lumi.tokenizer import TokenizerConfig, train_tokenizer
from lumi.tokenizer.proto import read_model
from lumi.trained import load_trained
from tests.conftest import TINY_RUN
from tests.tokenizer.conftest import nonsense

MODEL = "tokenizer.model"
VARIANTS = ("another model", "one piece swapped", "the file missing", "the manifest edited")


def swapped(model: bytes) -> bytes:
    """The same size, the same pieces, two of them in each other's place."""
    texts = [piece.text.encode() for piece in read_model(model)[1] if piece.kind == "normal"]
    one, two = next((a, b) for a, b in itertools.pairwise(texts) if len(a) == len(b))
    fields = [b"\n" + bytes([len(text)]) + text for text in (one, two)]  # field 1 of a piece, with its length
    first, second = (model.index(field) for field in fields)
    changed = bytearray(model)
    changed[first : first + len(fields[1])], changed[second : second + len(fields[0])] = fields[1], fields[0]
    return bytes(changed)


@pytest.fixture(scope="session")
def another(tmp_path_factory) -> bytes:
    """A tokenizer of other text."""
    folder = tmp_path_factory.mktemp("another") / "t"
    train_tokenizer(
        lambda: iter([nonsense(30_000)]), folder, TokenizerConfig(name="t", vocab_size=400, num_threads=1), parents={}
    )
    return (folder / MODEL).read_bytes()


def spoil(folder: Path, variant: str, another: bytes, *, whole: bool) -> None:
    """Change the tokenizer in an artefact; ``whole`` has the manifest name the new file, as whoever exchanged it would."""
    path, manifest = folder / MODEL, folder / MANIFEST
    before = sha256_file(path)
    match variant:
        case "the file missing":
            return path.unlink()
        case "the manifest edited":
            manifest.write_text(manifest.read_text().replace(before, "f" * 64, 1))
            return None
        case "another model":
            path.write_bytes(another)
        case _:
            path.write_bytes(swapped(path.read_bytes()))
    if whole:
        fields = json.loads(manifest.read_bytes())
        del fields["seal"]
        fields["files"][MODEL] = {"bytes": path.stat().st_size, "sha256": sha256_file(path)}
        if fields["kind"] == "tokenizer":
            fields["info"]["sha256"] = sha256_file(path)
        manifest.write_bytes(sealed(json.dumps(fields, indent=2).encode()))
    return None


@pytest.fixture
def places(tmp_path, data_folder, stages, adapter) -> dict[str, Path]:
    """Copies of what the boundaries read, for a test to spoil."""
    runs = Path(stages["dpo"][-1].removeprefix("init_from=").strip("'")).parent
    made = {"data": data_folder, "pretrain": runs / "pretrain", "sft": runs / "sft", "adapter": Path(adapter["folder"])}
    return {name: Path(shutil.copytree(folder, tmp_path / "copies" / name)) for name, folder in made.items()}


@pytest.fixture
def boundaries(places, composed, stages, tmp_path) -> dict[str, tuple[Path, bool, Callable[[], object]]]:
    """Boundary → the artefact whose tokenizer is spoilt, whether its manifest goes along, and what crosses the boundary."""
    from lumi.evaluate import evaluate
    from lumi.run import train
    from lumi.serving import serve

    data, short = places["data"], ("budget.epochs=null", "budget.steps=4")
    tokenizer = data / "tokenizer" / "world"

    def run(*overrides: str) -> Callable[[], object]:
        return lambda: train(
            composed("train", *overrides, f"paths.data='{data}'", f"paths.runs='{tmp_path / 'runs'}'", "name=run")
        )

    def newest(name: str) -> Path:
        return sorted((places[name] / "checkpoints").glob("step_*"))[-1]

    def served(*overrides: str) -> Callable[[], object]:
        return lambda: serve(composed("serve", f"model='{newest('sft')}'", "device=cpu", "slots=2", *overrides))

    corpus, packed = data / "corpus" / "world", data / "packed" / "world" / "world" / "world"
    sft = [word for word in stages["sft"] if not word.startswith("init_from")]
    dpo = [word for word in stages["dpo"] if not word.startswith("init_from")]
    goes_on = (*TINY_RUN, "arch.max_seq_len=128", *short, f"resume='{newest('pretrain')}'")
    return {
        "pack": (tokenizer, True, lambda: pack(corpus, tokenizer, packed, PackConfig(), source="world")),
        "pretrain": (tokenizer, True, run(*TINY_RUN, *short)),
        "resume": (newest("pretrain"), True, run(*goes_on)),
        "sft prep": (tokenizer, False, run(*sft, "init_from=null", *short)),
        "sft": (newest("pretrain"), True, run(*sft, f"init_from='{newest('pretrain')}'", *short)),
        "dpo": (newest("sft"), True, run(*dpo, f"init_from='{newest('sft')}'", *short)),
        "eval": (
            newest("sft"),
            True,
            lambda: evaluate(composed("evaluate", f"model='{newest('sft')}'", f"out='{tmp_path / 'eval'}'")),
        ),
        "export": (newest("sft"), True, served("mode=export", "format=hf", f"out='{tmp_path / 'hf'}'")),
        "serve": (newest("sft"), True, served("mode=chat", "prompt=hello")),
        "adapter": (places["adapter"] / "base", True, lambda: load_trained(places["adapter"])),
    }


NAMES = ("pack", "pretrain", "resume", "sft prep", "sft", "dpo", "eval", "export", "serve", "adapter")


@pytest.mark.matrix("C4")
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", NAMES)
def test_another_tokenizer_stops_the_work_with_both_hashes_and_what_to_do(
    row, boundaries, another, tmp_path, name, variant
):
    folder, whole, cross = boundaries[name]
    spoil(folder, variant, another, whole=whole)
    with pytest.raises(DataError) as caught:
        cross()
    message = f"{caught.value}"
    hashes = set(re.findall(r"\b[0-9a-f]{12,64}", message))
    assert len(hashes) >= (0 if variant == "the file missing" else 2), message
    assert caught.value.fix, message
    assert not list(tmp_path.glob("runs/*/metrics.csv"))  # no batch was trained on
    row(trials=1, note=f"{name}, {variant}: {message[-70:]}")


@pytest.mark.matrix("C4")
def test_the_variants_are_what_they_say(row, places, another):
    model = (places["data"] / "tokenizer" / "world" / MODEL).read_bytes()
    other = swapped(model)
    assert len(other) == len(model)
    assert {piece.text for piece in read_model(other)[1]} == {piece.text for piece in read_model(model)[1]}
    assert len({sha256_bytes(one) for one in (model, other, another)}) == 3
    row(trials=1)
