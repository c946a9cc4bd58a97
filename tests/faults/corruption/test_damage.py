"""C1, C2: damage anywhere in any artefact is found before it is used, named, and never taken for the end of the run."""

import random
import shutil

import pytest

from lumi.callbacks import list_checkpoints, newest_checkpoint
from lumi.manifest import MANIFEST, read_manifest, sha256_file
from tests.faults.corruption.faults import FAULTS, damaged, refusal, swapped

KINDS = (
    "corpus shard", "index", "packed bin", "manifest", "spm.model", "config", "weights", "optimizer", "adapter",
)  # fmt: skip


def is_named(artefact, message: str) -> bool:
    """Whether a message names a damaged file with both of its hashes; of a manifest that is no JSON any more, only the file."""
    if artefact.file == MANIFEST:
        return MANIFEST in message
    name = artefact.file if artefact.file in message else artefact.other.name
    expected = read_manifest(artefact.folder).files.get(name, {}).get("sha256", "?")
    actual = sha256_file(artefact.folder / name)
    return name in message and expected[:12] in message and actual[:12] in message


@pytest.mark.matrix("C1")
@pytest.mark.parametrize("n", [10, pytest.param(100, marks=pytest.mark.faults)])
@pytest.mark.parametrize("kind", KINDS)
def test_damage_is_refused_before_it_is_used_and_named_with_both_hashes(row, artefacts, kind, n):
    artefact, rng, wrong = artefacts[kind], random.Random(f"{kind} {n}"), []
    artefact.read(artefact.folder)
    for fault in (*FAULTS, "swap"):
        for _ in range(n):
            how = swapped(artefact.path, artefact.other) if fault == "swap" else damaged(artefact.path, fault, rng)
            with how:
                message = refusal(lambda: artefact.read(artefact.folder))
                if message.startswith("!") or not is_named(artefact, message):
                    wrong.append(f"{fault}: {message}")
    artefact.read(artefact.folder)
    row(trials=5 * n, failures=len(wrong), seed=0, note="; ".join(wrong[:3]) or kind)


@pytest.fixture
def three(artefacts, tmp_path):
    """A folder with three checkpoints."""
    for step in (2, 4, 6):
        shutil.copytree(artefacts["weights"].folder, tmp_path / f"step_{step:08d}.ckpt")
    return tmp_path


def spoil(checkpoint, rng: random.Random) -> None:
    """Any fault in any file of a checkpoint, for good."""
    path = rng.choice(sorted(checkpoint.iterdir()))
    path.write_bytes(rng.choice(list(FAULTS.values()))(bytearray(path.read_bytes()), rng))


@pytest.mark.matrix("C2")
@pytest.mark.parametrize("seed", range(50))
def test_a_damaged_checkpoint_is_set_aside_and_if_all_are_nothing_is_touched(row, three, caplog, seed):
    rng, folders = random.Random(seed), [path for _, path in list_checkpoints(three)]
    n_damaged = 1 + seed % 3
    for folder in folders[:n_damaged]:
        spoil(folder, rng)
    before = sorted(path.name for path in three.iterdir())
    if n_damaged == 3:
        for _ in range(2):  # the same command again must not begin anew
            assert refusal(lambda: newest_checkpoint(three)).endswith("start again under another name")
        assert sorted(path.name for path in three.iterdir()) == before
    else:
        assert newest_checkpoint(three) == folders[n_damaged]
        aside = {f"{folder.name}.damaged" for folder in folders[:n_damaged]}
        assert aside <= {path.name for path in three.iterdir()}
        assert "is damaged and skipped" in caplog.text
        assert f"continuing from step {6 - 2 * n_damaged} instead of 6" in caplog.text
    row(trials=1, seed=seed, note=f"{n_damaged} of 3 damaged")


@pytest.mark.matrix("C2")
def test_a_step_that_is_damaged_twice_is_set_aside_twice(row, three):
    for name in ("step_00000006.ckpt.damaged", "step_00000006.ckpt.damaged-2"):
        (three / "step_00000006.ckpt" / "run.json").write_bytes(b"")
        assert newest_checkpoint(three) == three / "step_00000004.ckpt"
        assert (three / name).is_dir()
        shutil.copytree(three / "step_00000004.ckpt", three / "step_00000006.ckpt")
    row(trials=2)
