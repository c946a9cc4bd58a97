"""Artefacts appear whole or not at all, and damage is found."""

import errno
import hashlib
import json
import os
import signal
import sys
from pathlib import Path

import pytest

from lumi import manifest
from lumi.errors import DataError, ResourceError
from lumi.manifest import atomic_folder, fingerprint, read_manifest, sealed, verify, write_atomic, write_manifest


def write(target: Path, text: str) -> None:
    """An artefact of two files."""
    with atomic_folder(target) as folder:
        (folder / "part").mkdir()
        (folder / "part" / "a.txt").write_text(text)
        (folder / "b.bin").write_bytes(bytes(range(256)))
        write_manifest(folder, kind="corpus", name="test", fingerprint=text)


def names(folder: Path) -> list[str]:
    """Everything in a folder, hidden or not."""
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def artefact(tmp_path):
    write(tmp_path / "artefact", "old")
    return tmp_path / "artefact"


def rewrite(artefact: Path, **fields: object) -> None:
    """Change fields of the manifest, as an attacker or a bug would, and seal it again."""
    path = artefact / "MANIFEST.json"
    kept = json.loads(path.read_bytes())
    del kept["seal"]
    path.write_bytes(sealed(json.dumps({**kept, **fields}, indent=2).encode()))


def test_a_manifest_names_every_file_with_size_and_hash(artefact):
    expected = {"b.bin": bytes(range(256)), "part/a.txt": b"old"}
    assert read_manifest(artefact).files == {
        name: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        for name, content in expected.items()
    }


def test_an_undamaged_artefact_is_accepted(artefact):
    assert verify(artefact, kind="corpus").fingerprint == "old"


def test_success_replaces_the_old_artefact_and_leaves_nothing_else(artefact):
    write(artefact, "new")
    assert (artefact / "part" / "a.txt").read_text() == "new"
    assert verify(artefact).fingerprint == "new"
    assert names(artefact.parent) == ["artefact"]


def test_without_an_exchange_of_the_file_system_it_is_replaced_all_the_same(artefact, monkeypatch):
    monkeypatch.setattr(manifest, "_exchange", lambda one, other: False)
    write(artefact, "new")
    assert verify(artefact).fingerprint == "new"
    assert names(artefact.parent) == ["artefact"]


@pytest.mark.parametrize("error", [ValueError("mine"), KeyboardInterrupt(), OSError(errno.EBUSY, "no")])
def test_an_exception_leaves_the_old_artefact_and_nothing_else(artefact, error):
    with pytest.raises(type(error)), atomic_folder(artefact) as folder:  # noqa: PT012
        (folder / "half.txt").write_text("half")
        raise error
    assert verify(artefact).fingerprint == "old"
    assert names(artefact.parent) == ["artefact"]


def test_an_exception_leaves_nothing_where_nothing_was(tmp_path):
    with pytest.raises(ValueError, match="mine"), atomic_folder(tmp_path / "deep" / "new"):
        raise ValueError("mine")
    assert names(tmp_path / "deep") == []


def kill_at(event_number: int, target: Path) -> bool:
    """Write in a child that is killed before its so-manieth operation on a file; False if it ended before that."""
    child = os.fork()
    if not child:
        left = [event_number]

        def count(event: str, _: tuple[object, ...]) -> None:
            if event.startswith(("os.", "open", "shutil.", "ctypes.")):
                left[0] -= 1
                if left[0] < 0:
                    signal.raise_signal(signal.SIGKILL)

        try:
            sys.addaudithook(count)
            write(target, "new")
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


@pytest.mark.matrix("K8")
def test_a_kill_at_any_moment_leaves_the_old_artefact_or_the_new_one(artefact, row):
    moment, seen = 0, []
    while kill_at(moment, artefact):
        seen.append(verify(artefact).fingerprint)
        moment += 1
        if seen[-1] == "new":
            write(artefact, "old")
    assert moment > 20  # mkdir, open, fsync, rename, remove…
    assert seen == sorted(seen, reverse=True)  # old until the one moment of the exchange, new ever after
    assert set(seen) == {"old", "new"}
    row(trials=moment, note="before every operation of Python on a file")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has a device that is always full")
def test_a_full_disk_is_one_message_and_the_old_artefact(artefact):
    message = r"no space left .*artefact.*needs more than the [\d,]+ bytes that are free.*free some space"
    with pytest.raises(ResourceError, match=message), atomic_folder(artefact) as folder:  # noqa: PT012
        (folder / "big.bin").symlink_to("/dev/full")  # the kernel's own: every write finds no space
        (folder / "big.bin").write_bytes(b"much")
    assert verify(artefact).fingerprint == "old"
    assert names(artefact.parent) == ["artefact"]


def test_a_full_disk_found_when_flushing_is_the_same_message(artefact, monkeypatch):
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ResourceError, match="no space left"):
        write(artefact, "new")
    with pytest.raises(ResourceError, match="no space left"):
        write_atomic(artefact.parent / "file", "text")
    monkeypatch.undo()
    assert verify(artefact).fingerprint == "old"
    assert names(artefact.parent) == ["artefact"]


@pytest.mark.parametrize("content", ["näive\n", b"\x00\xff"])
def test_a_file_is_replaced_as_a_whole(tmp_path, content):
    path = tmp_path / "deep" / "file"
    for data in ("first", content):
        write_atomic(path, data)
    assert path.read_bytes() == (content.encode() if isinstance(content, str) else content)
    assert names(path.parent) == ["file"]


@pytest.mark.parametrize("name", ["b.bin", "part/a.txt"])
def test_one_flipped_bit_is_found(artefact, name):
    content = bytearray((artefact / name).read_bytes())
    content[1] ^= 4
    (artefact / name).write_bytes(content)
    with pytest.raises(DataError, match=f"{name} has sha256"):
        verify(artefact)
    verify(artefact, full=False)  # which compares sizes only


def test_a_changed_manifest_is_found_by_its_seal_with_both_hashes(artefact):
    path = artefact / "MANIFEST.json"
    sound = path.read_bytes()
    path.write_bytes(sound.replace(b'"name": "test"', b'"name": "tesu"'))
    body = sound[: sound.index(b',\n  "seal"')]
    with pytest.raises(DataError, match=rf"MANIFEST\.json has sha256 .* {hashlib.sha256(body).hexdigest()[:12]}"):
        read_manifest(artefact)


def test_a_manifest_from_before_there_were_seals_is_read(artefact):
    path = artefact / "MANIFEST.json"
    fields = json.loads(path.read_bytes())
    del fields["seal"]
    path.write_text(json.dumps(fields))
    assert verify(artefact).fingerprint == "old"


@pytest.mark.parametrize("end", [b"\n", b" ", b"{}"])
def test_a_manifest_that_goes_on_after_its_seal_is_refused(artefact, end):
    with (artefact / "MANIFEST.json").open("ab") as file:
        file.write(end)
    with pytest.raises(DataError, match="not a readable manifest"):
        read_manifest(artefact)


def test_a_truncated_file_is_found_by_its_size(artefact):
    (artefact / "b.bin").write_bytes(b"short")
    with pytest.raises(DataError, match=r"b\.bin has 5 bytes .* says 256"):
        verify(artefact, full=False)


@pytest.mark.parametrize("instead", ["nothing", "a folder", "a link"])
def test_a_file_that_is_not_there_is_found(artefact, instead):
    (artefact / "b.bin").rename(artefact.parent / "elsewhere")
    if instead == "a folder":
        (artefact / "b.bin").mkdir()
    if instead == "a link":
        (artefact / "b.bin").symlink_to(artefact.parent / "elsewhere")
    with pytest.raises(DataError, match=r"b\.bin .* is not a file here"):
        verify(artefact)


@pytest.mark.parametrize(
    "name", ["../x", "/etc/passwd", "part/../../x", "part\\a.txt", "a\0b", "", ".", "a//b", "a/./b"]
)
def test_a_name_that_leads_out_of_the_folder_is_refused(artefact, name):
    rewrite(artefact, files={name: {"bytes": 3, "sha256": "0" * 64}})
    with pytest.raises(DataError, match="names must stay inside the folder"):
        read_manifest(artefact)


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"null", b"7", b"\xff", b'{"kind": "corpus"}', b"[" * 100_000])
def test_a_manifest_that_is_none_is_refused(artefact, text):
    (artefact / "MANIFEST.json").write_bytes(text)
    with pytest.raises(DataError, match="is not a readable manifest"):
        read_manifest(artefact)


@pytest.mark.parametrize(
    "fields",
    [
        {"unknown": 1},
        {"files": ["b.bin"]},
        {"files": {"b.bin": 256}},
        {"files": {"b.bin": {"bytes": 256}}},
        {"files": {"b.bin": {"bytes": "256", "sha256": "0"}}},
        {"info": None},
        {"parents": []},
        {"settings": "text"},
    ],
    ids=str,
)
def test_a_manifest_of_another_form_is_refused(artefact, fields):
    rewrite(artefact, **fields)
    with pytest.raises(DataError, match="is not a readable manifest"):
        verify(artefact)


def test_a_folder_without_a_manifest_is_no_artefact(tmp_path):
    (tmp_path / "file").touch()
    for folder in (tmp_path, tmp_path / "nowhere", tmp_path / "file"):
        with pytest.raises(DataError, match=r"has no MANIFEST\.json"):
            read_manifest(folder)


def test_an_artefact_of_another_kind_is_refused(artefact):
    with pytest.raises(DataError, match="is a corpus, here a packed is needed"):
        verify(artefact, kind="packed")


def test_a_manifest_of_a_later_layout_is_refused(artefact):
    rewrite(artefact, schema_version=2)
    with pytest.raises(DataError, match="has schema 2, this Lumi reads 1"):
        read_manifest(artefact)


def test_a_fingerprint_does_not_depend_on_the_order_of_keys():
    assert fingerprint({"a": 1, "b": {"c": [1, 2], "d": None}}) == fingerprint({"b": {"d": None, "c": [1, 2]}, "a": 1})


def test_a_fingerprint_is_the_hash_of_canonical_json():
    expected = hashlib.sha256(b'{"a":[1,2.5,null],"b":"\\u00e9"}').hexdigest()
    assert fingerprint({"b": "é", "a": [1, 2.5, None]}) == expected


@pytest.mark.parametrize(
    "other", [{"a": 2}, {"a": "1"}, {"a": 1.5}, {"b": 1}, {"a": [1]}, {"a": 1, "b": None}], ids=str
)
def test_other_settings_have_another_fingerprint(other):
    assert fingerprint(other) != fingerprint({"a": 1})
