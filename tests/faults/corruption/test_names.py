"""C7: whatever names a manifest brings, nothing outside its folder is opened; seen from inside a child by an audit hook."""

import json
import os
import sys
from pathlib import Path

import pytest

from lumi.errors import DataError
from lumi.manifest import MANIFEST, sealed, sha256_bytes, verify, write_manifest

SECRET = b"not for you"
ENTRY = {"bytes": len(SECRET), "sha256": sha256_bytes(SECRET)}
PLAIN = {
    "up": "../x",
    "two up": "../../x",
    "absolute": "/etc/passwd",
    "absolute twice": "//etc/passwd",
    "up in the middle": "a/../../b",
    "up at the end": "a/..",
    "itself": ".",
    "through itself": "./../x",
    "nothing": "",
    "an empty part": "a//b",
    "a slash at the end": "a/",
    "NUL": "good\0/../../x",
    "NUL at the end": "good.bin\0",
    "backslash": "..\\x",
    "a drive": "C:\\x",
    "UNC": "\\\\host\\share",
    "300 characters": "x" * 300,
    "300 bytes of 150 characters": "é" * 150,
    "a long path": "/".join(["part"] * 400),
    "newline": "a\n../x",
    "right to left": "a\u202e/nib.b",
    "zero width": "go\u200bod.bin",
    "byte order mark": "\ufeffgood.bin",
    "half a surrogate pair": "\ud800",
    "a device by its path": "/dev/zero",
    "a process": "/proc/self/environ",
}
TWINS = {
    "case twins": ["A.bin", "a.bin"],
    "Unicode twins": ["caf\u00e9", "cafe\u0301"],
    "sharp s": ["stra\u00dfe", "STRASSE"],
}
LINKS = ("a link out", "a folder that is a link", "a link to a device", "a pipe", "the manifest is a link")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An artefact with one good file, and a secret two levels above and beside it."""
    folder = tmp_path / "outer" / "artefact"
    folder.mkdir(parents=True)
    for place in (tmp_path / "x", tmp_path / "outer" / "x", tmp_path / "outer" / "b"):
        place.write_bytes(SECRET)
    (folder / "good.bin").write_bytes(SECRET)
    write_manifest(folder, kind="corpus", name="t", fingerprint="f")
    return folder


def rewrite(folder: Path, names: list[str]) -> None:
    fields = json.loads((folder / MANIFEST).read_bytes())
    del fields["seal"]
    fields["files"] = dict.fromkeys(names, ENTRY)
    (folder / MANIFEST).write_bytes(sealed(json.dumps(fields, indent=2).encode()))


def link(folder: Path, kind: str) -> str:
    """Put a link or a device where a file should be; returns the name that the manifest gives it."""
    outside = folder.parent / "x"
    match kind:
        case "a link out":
            (folder / "link").symlink_to(outside)
        case "a folder that is a link":
            (folder / "sub").symlink_to(folder.parent)
            return "sub/x"
        case "a link to a device":
            (folder / "link").symlink_to("/dev/zero")
        case "a pipe":
            os.mkfifo(folder / "link")
        case _:
            (folder / MANIFEST).rename(folder.parent / "manifest")
            (folder / MANIFEST).symlink_to(folder.parent / "manifest")
            return "good.bin"
    return "link"


def opened_outside(folder: Path) -> tuple[str, list[str]]:
    """What `verify` says in a child, and what that child opened that is not in the folder."""
    read, write = os.pipe()
    if child := os.fork():
        os.close(write)
        with os.fdopen(read) as answer:
            said = json.load(answer)
        assert os.waitpid(child, 0)[1] == 0, "the child must end well"
        return said["message"], said["opened"]
    opened: list[str] = []
    inside = f"{folder}{os.sep}"
    sys.addaudithook(lambda event, facts: opened.append(str(facts[0])) if event == "open" else None)
    message = "!accepted"
    try:
        verify(folder)
    except DataError as error:
        message = f"{error}"
    except BaseException as error:  # noqa: BLE001  # whatever it is, the parent has to hear of it
        message = f"!{type(error).__name__}: {error}"
    outside = [path for path in opened if not os.path.normpath(path).startswith(inside)]  # not resolved: links count
    os.write(write, json.dumps({"message": message, "opened": outside}).encode())
    os._exit(0)


@pytest.mark.matrix("C7")
@pytest.mark.parametrize("case", [*PLAIN, *TWINS, *LINKS])
def test_no_name_of_a_manifest_opens_anything_outside_its_folder(row, folder, case):
    if case in LINKS:
        name = link(folder, case)
        if case != "the manifest is a link":
            rewrite(folder, ["good.bin", name])
    else:
        rewrite(folder, TWINS[case] if case in TWINS else [PLAIN[case]])
        for twin in TWINS.get(case, ()):
            (folder / twin).write_bytes(SECRET)
    message, opened = opened_outside(folder)
    assert not message.startswith("!"), message
    assert opened == []
    row(trials=1, note=case)
