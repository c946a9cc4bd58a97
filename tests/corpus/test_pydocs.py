"""Prose from source files, without importing them."""

import re
import sys
from pathlib import Path

import pytest
import yaml

from lumi.corpus import Document, PyDocs, Rejected
from lumi.errors import ConfigError

PROSE = "A sentence of plain prose that says something about the thing it stands under. " * 3


@pytest.fixture(scope="module")
def stdlib() -> list[Document]:
    items = list(PyDocs().documents())
    assert all(isinstance(item, Document) for item in items)
    return [item for item in items if isinstance(item, Document)]


@pytest.fixture
def package(tmp_path, monkeypatch) -> Path:
    """An importable package that must not be imported, beside a standard library of one module."""
    (tmp_path / "stdlib").mkdir()
    (tmp_path / "stdlib" / "only.py").write_text(f'"""Only. {PROSE}"""\n')
    monkeypatch.setattr("sysconfig.get_path", lambda _: str(tmp_path / "stdlib"))
    folder = tmp_path / "dangerous"
    (folder / "tests").mkdir(parents=True)
    (folder / "__init__.py").write_text(f'"""{PROSE}"""\nraise SystemExit("imported")\n')
    (folder / "tests" / "inner.py").write_text(f'"""Test. {PROSE}"""\n')
    monkeypatch.syspath_prepend(tmp_path)
    return folder


def of_package(source: PyDocs) -> list[Document | Rejected]:
    items = source.documents()
    return [item for item in items if getattr(item, "id", getattr(item, "where", "")).startswith("dangerous")]


def texts(source: PyDocs) -> list[str]:
    return [item.text for item in of_package(source) if isinstance(item, Document)]


def test_the_standard_library_holds_more_than_a_megabyte(stdlib):
    assert sum(len(item.text.encode()) for item in stdlib) > 1_200_000
    assert min(len(item.text) for item in stdlib) >= 200


def test_ids_and_texts_are_unique(stdlib):
    assert len({item.id for item in stdlib}) == len(stdlib)
    assert len({item.text for item in stdlib}) >= len(stdlib) - 3


def test_the_language_reference_comes_first_as_whole_topics(stdlib):
    assert stdlib[0].id == "pydoc_data.topics:1"
    assert re.match(r'The "assert" statement\n\*+\n\nAssert statements are', stdlib[0].text)


def test_texts_are_clean(stdlib):
    joined = "\n".join(item.text for item in stdlib)
    assert re.search(r"[\x00-\x08\x0b-\x1f\x7f]|[ \t]+$|\n\n\n", joined, flags=re.MULTILINE) is None


def test_a_package_is_read_and_not_imported(package):
    assert texts(PyDocs(packages=["dangerous"])) == [f"dangerous\n\n{PROSE.strip()}"]
    assert "dangerous" not in sys.modules


def test_docstrings_of_classes_and_functions_stand_under_their_names(package):
    method = f'    if True:\n        async def f(self):\n            """{PROSE} f"""\n'
    (package / "m.py").write_text(f'class A:\n    """{PROSE} A"""\n{method}\ndef g():\n    """{PROSE} g"""\n')
    text = texts(PyDocs(packages=["dangerous"]))[1]
    assert re.findall(r"^dangerous\.m\S+$", text, flags=re.MULTILINE) == [f"dangerous.m.{x}" for x in ("A", "A.f", "g")]


def test_repeated_and_numeric_docstrings_are_left_out(package):
    numbers = ">>> f(1.0, 2.0)\\n3.0\\n" * 30
    (package / "m.py").write_text(f'"""{PROSE}"""\ndef f():\n    """{numbers}"""\n')
    assert len(texts(PyDocs(packages=["dangerous"]))) == 1


def test_a_long_module_becomes_several_documents(package):
    functions = [f'def f{i}():\n    """Number {i}. {PROSE}"""\n' for i in range(40)]
    (package / "m.py").write_text("".join(functions))
    lengths = [len(text) for text in texts(PyDocs(packages=["dangerous"]))[1:]]
    assert sum(lengths) > 40 * len(PROSE)
    assert max(lengths) < 4100


@pytest.mark.parametrize("source", ["def broken(:\n", "x = '\0'\n"])
def test_a_file_that_is_not_python_is_counted(package, source):
    (package / "bad.py").write_text(source)
    found = of_package(PyDocs(packages=["dangerous"]))
    assert [(item.where, item.reason) for item in found if isinstance(item, Rejected)] == [
        ("dangerous.bad", "not parsable")
    ]


@pytest.mark.usefixtures("package")
def test_a_package_that_is_not_installed_is_skipped_with_a_warning(caplog):
    source = PyDocs(packages=["no_such_package"])
    assert source.settings()["packages"] == {"no_such_package": None}
    next(source.documents())
    assert "no_such_package is not installed" in caplog.text


def test_settings_change_with_versions_and_content(package):
    before = PyDocs(packages=["dangerous", "numpy"]).settings()
    assert before["python"] == sys.version.split()[0]
    assert before["packages"]["numpy"] == sys.modules["numpy"].__version__
    assert before == PyDocs(packages=["numpy", "dangerous"]).settings()
    (package / "new.py").write_text("")
    assert PyDocs(packages=["dangerous", "numpy"]).settings()["content_sha256"] != before["content_sha256"]


@pytest.mark.parametrize(
    "settings", [{"packages": "torch"}, {"packages": ["a.b"]}, {"packages": [1]}, {"min_chars": 0}, {"min_chars": "2"}]
)
def test_a_wrong_setting_is_refused(settings):
    with pytest.raises(ConfigError, match=next(iter(settings))):
        PyDocs(**settings)


def test_the_configuration_shows_the_defaults_of_the_class():
    path = Path(__file__).parents[2] / "conf" / "source" / "pydocs.yaml"
    shown = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert shown.pop("_target_") == "lumi.corpus.PyDocs"
    assert shown == vars(PyDocs())
