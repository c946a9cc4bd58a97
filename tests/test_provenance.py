"""What every manifest says of the code that made it."""

from pathlib import Path

import pytest

from lumi.provenance import source_sha256


@pytest.mark.parametrize("name", ["a.py", "native/step.cpp"])
def test_one_hash_names_the_code_and_what_is_in_cpp_belongs_to_it(name: str, tmp_path: Path) -> None:
    for each in ("a.py", "native/step.cpp", "page/style.css"):
        path = tmp_path / each
        path.parent.mkdir(exist_ok=True)
        path.write_text("before")
    before = source_sha256(tmp_path)
    (tmp_path / "page" / "style.css").write_text("after")
    assert source_sha256(tmp_path) == before
    (tmp_path / name).write_text("after")
    assert source_sha256(tmp_path) != before
