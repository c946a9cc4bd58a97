"""From a config to objects: every mistake in one message, and nothing foreign is ever imported."""

import sys
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from lumi.arch import DecoderConfig
from lumi.config import build, check_keys, collect, differences, resolve, violations
from lumi.errors import ConfigError
from lumi.optim import WSD, AdamW, Cosine

COSINE = {"_target_": "lumi.optim.Cosine", "warmup_steps": 10}
ARCH = {
    "_target_": "lumi.arch.DecoderConfig",
    "n_layers": 2,
    "d_model": 32,
    "n_heads": 4,
    "n_kv_heads": 2,
    "d_ff": 64,
    "max_seq_len": 64,
}


def adamw(**changes: Any) -> dict[str, Any]:
    return {"_target_": "lumi.optim.AdamW", "lr": 1e-3, "schedule": COSINE, **changes}


def test_a_node_becomes_the_object_it_names_children_first():
    expected = AdamW(lr=1e-3, schedule=Cosine(warmup_steps=10), betas=(0.8, 0.9))
    assert build(adamw(betas=[0.8, 0.9]), "optim") == expected


def test_a_plain_value_stays_what_it_is():
    assert build({"a": [1, {"b": None}]}, "paths") == {"a": [1, {"b": None}]}
    assert build(None, "logger") is None


def test_an_unknown_key_comes_with_the_nearest_known_one():
    with pytest.raises(ConfigError, match=r"arch\.n_layer=3 · is not a setting · did you mean 'n_layers'\?"):
        build({**ARCH, "n_layer": 3}, "arch", vocab_size=64)


@pytest.mark.parametrize(
    ("key", "value", "rule"),
    [
        ("n_layers", "seven", "a whole number"),
        ("n_layers", 2.5, "a whole number"),
        ("n_layers", True, "a whole number"),
        ("n_layers", None, "a whole number"),
        ("n_layers", float("inf"), "a whole number"),
        ("rope_theta", "1e4", "a number"),
        ("rope_theta", False, "a number"),
        ("rope_theta", float("nan"), "a number"),
        ("tied", 1, "true or false"),
        ("tied", "yes", "true or false"),
        ("attention", "fast", "one of auto, flash, varlen, native, sdpa, reference"),
        ("rope_scaling", "yarn", "one of linear, llama3 or null"),
        ("rope_original_len", [1], "a whole number or null"),
    ],
)
def test_a_value_of_another_type_is_refused_with_the_one_that_is_needed(key, value, rule):
    with pytest.raises(ConfigError, match=rf"^arch\.{key}=.* · must be {rule}$"):
        build({**ARCH, key: value}, "arch", vocab_size=64)


def test_a_whole_float_is_taken_for_a_whole_number():
    config = build({**ARCH, "n_layers": 1e1, "rope_theta": 500}, "arch", vocab_size=4e3)
    assert (config.n_layers, config.rope_theta) == (10, 500.0)
    assert [type(value) for value in (config.n_layers, config.rope_theta)] == [int, float]


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"betas": [0.9]}, r"optim\.betas=\[0\.9\] · must be a list of 2 values"),
        ({"betas": 0.9}, r"optim\.betas=0\.9 · must be a list of 2 values"),
        ({"betas": [0.9, "high"]}, r"optim\.betas=.* · must be a list of 2 values"),
        ({"clip_norm": "none"}, r"optim\.clip_norm=none · must be a number or null"),
        ({"schedule": "cosine"}, r"optim\.schedule=cosine · must be a node with its own _target_ \(a Schedule\)"),
        ({"schedule": None}, r"optim\.schedule=null · must be a node"),
        ({"schedule": {"warmup_steps": 1}}, r"optim\.schedule=.* · must be a node"),
    ],
)
def test_a_value_of_another_structure_is_refused(changes, rule):
    with pytest.raises(ConfigError, match=rule):
        build(adamw(**changes), "optim")


def test_a_missing_value_says_what_to_add():
    with pytest.raises(ConfigError, match=r"arch\.d_ff=\?\?\? · needs a value · add arch\.d_ff=… to the command"):
        build({**ARCH, "d_ff": "???"}, "arch", vocab_size=64)


def test_a_key_that_is_left_out_and_needed_is_named():
    node = {key: value for key, value in ARCH.items() if key != "d_ff"}
    with pytest.raises(ConfigError, match=r"arch\.d_ff · is needed by lumi\.arch\.DecoderConfig"):
        build(node, "arch", vocab_size=64)


def test_all_violations_come_in_one_error():
    schedule = {"_target_": "lumi.optim.WSD", "shape": "cubic", "warmup": 3, "decay_ratio": "???"}
    with pytest.raises(ConfigError) as caught:
        build(adamw(lr="fast", schedule=schedule, weight_dekay=0.1), "optim")
    message = str(caught.value)
    assert "5 settings need a change" in message
    expected = ("optim.lr=fast", "schedule.shape=cubic", "schedule.warmup=3", "decay_ratio=???", "optim.weight_dekay")
    assert all(part in message for part in expected)


def test_what_a_constructor_refuses_is_a_config_error_too():
    with pytest.raises(ConfigError, match=r"optim\.lr=-1"):
        build(adamw(lr=-1), "optim")


@pytest.mark.parametrize(
    "target",
    ["os.system", "subprocess.run", "builtins.eval", "torch.load", "lumi_evil.x", "lumi", "", "system", 7, None],
)
def test_a_target_outside_lumi_is_refused(target):
    with pytest.raises(ConfigError, match=r"_target_=.* · must be one of Lumi's own classes"):
        build({"_target_": target, "command": "true"}, "stage")


def test_a_foreign_module_is_not_even_imported(tmp_path, monkeypatch):
    (tmp_path / "foreign_module.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    for target in ("foreign_module.x", "lumi.optim.foreign_module.x", "lumi..foreign_module.x"):
        with pytest.raises(ConfigError):
            build({"_target_": target}, "stage")
    assert "foreign_module" not in sys.modules


def test_a_foreign_target_deep_inside_is_found_before_anything_is_built(tmp_path):
    evil = {"_target_": "pathlib.Path.touch", "self": str(tmp_path / "touched")}
    with pytest.raises(ConfigError, match=r"optim\.schedule\.extra\[1\]\.x\._target_=pathlib\.Path\.touch"):
        build(adamw(schedule={**COSINE, "extra": [1, {"x": evil}]}), "optim")
    assert not (tmp_path / "touched").exists()


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("lumi.optim.AdamX", r"lumi\.optim has no such class · did you mean 'AdamW'\?"),
        ("lumi.optim.recipe.split_decay", r"lumi\.optim\.recipe has no such class"),  # a function
        ("lumi.manifest.Path", r"lumi\.manifest has no such class"),  # a class, but not of Lumi's own
        ("lumi.run._Run", r"lumi\.run has no such class"),
        ("lumi.optim.__all__", r"lumi\.optim has no such class"),
        ("lumi.nowhere.X", r"there is no module lumi\.nowhere"),
        ("lumi.optim.nowhere.X", r"there is no module lumi\.optim\.nowhere"),
    ],
)
def test_a_target_that_is_no_class_of_lumi_is_refused(target, message):
    with pytest.raises(ConfigError, match=message):
        build({"_target_": target}, "optim")


def test_a_package_that_is_not_installed_is_not_taken_for_a_wrong_name(tmp_path, monkeypatch):
    (tmp_path / "broken.py").write_text("import a_package_that_nobody_has")
    monkeypatch.setattr("lumi.optim.__path__", [*sys.modules["lumi.optim"].__path__, str(tmp_path)])
    with pytest.raises(ModuleNotFoundError, match="a_package_that_nobody_has"):
        build({"_target_": "lumi.optim.broken.X"}, "optim")


def test_what_is_offered_is_used_where_the_node_leaves_it_out():
    assert build(ARCH, "arch", vocab_size=64, unused=1) == DecoderConfig(
        vocab_size=64, n_layers=2, d_model=32, n_heads=4, n_kv_heads=2, d_ff=64, max_seq_len=64
    )


def test_what_the_node_says_wins_over_what_is_offered():
    assert build({**ARCH, "vocab_size": 100}, "arch", vocab_size=64).vocab_size == 100


def test_what_is_offered_reaches_the_top_node_only():
    built = build(adamw(schedule={"_target_": "lumi.optim.WSD"}), "optim", min_ratio=0.5, weight_decay=0.3)
    assert (built.weight_decay, built.schedule) == (0.3, WSD())
    with pytest.raises(ConfigError, match=r"nested\.arch\.vocab_size · is needed"):
        build({"arch": ARCH}, "nested", vocab_size=64)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"sequence": [1e3, 2]}, {"sequence": [1000, 2]}),
        ({"pair": [1, 2.0]}, {"pair": (1.0, 2)}),
        ({"any_length": [3.0, 4]}, {"any_length": (3, 4)}),
        ({"mapping": {"a": 1, "b": 2e0}}, {"mapping": {"a": 1.0, "b": 2.0}}),
        ({"paths": ["a", "b/c"]}, {"paths": [Path("a"), Path("b/c")]}),
        ({"table": {"x": [1.0]}}, {"table": {"x": [1]}}),
        ({"nodes": [COSINE]}, {"nodes": [Cosine(warmup_steps=10)]}),
        ({"named": {"a": COSINE}}, {"named": {"a": Cosine(warmup_steps=10)}}),
        ({"path": "x"}, {"path": Path("x")}),
    ],
)
def test_lists_and_mappings_arrive_in_the_annotated_types(shapes, values, expected):
    given = build({"_target_": shapes, **values}, "key").given
    assert given == expected
    assert repr(given) == repr(expected)  # 1 and 1.0 are equal, but not the same


@pytest.mark.parametrize(
    "values",
    [
        {"sequence": [1, "x"]},
        {"sequence": "12"},
        {"sequence": {"a": 1}},
        {"any_length": [1.5]},
        {"mapping": [1.0]},
        {"mapping": {"a": "x"}},
        {"table": {"x": 1}},
        {"table": {"x": ["y"]}},
        {"paths": [1]},
        {"path": 1},
        {"nodes": [1]},
    ],
    ids=str,
)
def test_a_wrong_value_within_a_list_or_mapping_is_found(shapes, values):
    found = violations({"_target_": shapes, **values}, "key", set())
    assert [error.found.partition("=")[0] for error in found] == [f"key.{next(iter(values))}"]


@pytest.fixture
def shapes(tmp_path, monkeypatch):
    """The path of a class of Lumi's that takes every kind of list and mapping, and keeps what it was given."""
    (tmp_path / "shapes.py").write_text(
        "from collections.abc import Mapping, Sequence\n"
        "from pathlib import Path\n"
        "from lumi.optim import Schedule\n"
        "class Shapes:\n"
        "    def __init__(self, *, sequence: Sequence[int] = (), pair: tuple[float, int] | None = None,\n"
        "                 any_length: tuple[int, ...] = (), mapping: Mapping[str, float] | None = None,\n"
        "                 paths: list[Path] | None = None, table: dict[str, list[int]] | None = None,\n"
        "                 nodes: Sequence[Schedule] = (), named: Mapping[str, Schedule | None] | None = None,\n"
        "                 path: Path | None = None) -> None:\n"
        "        given = {name: value for name, value in locals().items() if name != 'self'}\n"
        "        self.given = {name: value for name, value in given.items() if value not in (None, ())}\n"
    )
    monkeypatch.setattr("lumi.__path__", [*sys.modules["lumi"].__path__, str(tmp_path)])
    yield "lumi.shapes.Shapes"
    sys.modules.pop("lumi.shapes", None)


def test_an_unknown_key_at_the_root_comes_with_the_nearest_known_one():
    with pytest.raises(ConfigError, match=r"sed=1 · is not a setting · did you mean 'seed'\?"):
        check_keys({"seed": 0, "sed": 1}, ["seed", "name"])


def test_several_checks_are_reported_together():
    with pytest.raises(ConfigError) as caught:
        collect(
            lambda: build({**ARCH, "n_heads": 3}, "arch", vocab_size=64),
            lambda: build(adamw(), "optim"),
            lambda: build(adamw(lr=0.0), "optim"),
        )
    assert all(part in str(caught.value) for part in ("2 settings", "arch.d_model=32", "optim.lr=0.0"))


def test_interpolations_are_resolved_to_plain_values():
    plain = resolve(OmegaConf.create({"a": {"b": [1, "${c}"]}, "c": 2}))
    assert plain == {"a": {"b": [1, 2]}, "c": 2}
    assert [type(plain["a"]), type(plain["a"]["b"])] == [dict, list]


def test_an_interpolation_that_leads_nowhere_is_named():
    with pytest.raises(ConfigError, match=r"data\.name .*cannot be resolved.*sauce"):
        resolve(OmegaConf.create({"data": {"name": "${sauce.name}"}, "source": {"name": "x"}}))


def test_differences_name_every_leaf_that_changed():
    before = {"seed": 0, "optim": {"lr": 0.1, "betas": [0.9, 0.95]}, "gone": 1}
    after = {"seed": 0, "optim": {"lr": 0.2, "betas": [0.9, 0.99]}, "new": {"x": 1}}
    assert differences(before, after) == [
        "optim.lr: 0.1 -> 0.2",
        "optim.betas: [0.9, 0.95] -> [0.9, 0.99]",
        "gone: 1 -> (absent)",
        "new: (absent) -> {'x': 1}",
    ]
