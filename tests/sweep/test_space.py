"""What a command sweeps over, read from Hydra's own syntax."""

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from lumi.errors import ConfigError
from lumi.sweep.space import Dimension, Space, number_text, read_space


def space(*words: str) -> Space:
    return read_space(OverridesParser.create().parse_overrides(list(words)))


def test_what_all_jobs_share_stands_apart_as_it_was_typed() -> None:
    found = space(
        "arch=nano,micro", "budget.tokens=1e6", "+x='a, b'", "~logger", "slots=2", "study=mine", "sweep.trials=4"
    )
    assert found.arguments == ("budget.tokens=1e6", "+x='a, b'", "~logger")
    assert found.dimensions == (Dimension(key="arch", choices=("nano", "micro")),)
    assert found.typed == ("arch=nano,micro", "budget.tokens=1e6", "+x='a, b'", "~logger")


def test_a_grid_is_every_combination_with_the_last_key_the_fastest() -> None:
    found = space("optim.lr=1e-3,0.02", "x=1", "seed=range(0,2)")
    assert [*found.grid()] == [
        ["optim.lr=1e-3", "seed=0"],
        ["optim.lr=1e-3", "seed=1"],
        ["optim.lr=0.02", "seed=0"],
        ["optim.lr=0.02", "seed=1"],
    ]


def test_a_command_without_values_to_choose_from_is_one_job() -> None:
    assert list(space("seed=1").grid()) == [[]]


def test_a_key_that_is_typed_twice_has_its_last_values() -> None:
    assert space("seed=1,2", "seed=3").dimensions == ()


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("x=interval(1e-4,1e-2)", Dimension(key="x", low=1e-4, high=1e-2)),
        ("x=tag(log,interval(1e-4,1e-2))", Dimension(key="x", low=1e-4, high=1e-2, log=True)),
        ("x=int(interval(4,32))", Dimension(key="x", low=4, high=32)),
        ("x=true,null,'a b',[1,2]", Dimension(key="x", choices=("true", "null", "'a b'", "[1,2]"))),
        ("+corpus@data.b=one,two", Dimension(key="+corpus@data.b", choices=("one", "two"))),
        ("x=range(0,1,0.5)", Dimension(key="x", choices=("0.0", "0.5"))),
    ],
)
def test_each_form_of_a_sweep_is_understood(typed: str, expected: Dimension) -> None:
    (found,) = space(typed).dimensions
    assert found == expected
    assert found.is_whole == (typed == "x=int(interval(4,32))")


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("optim.lr=interval(2,1)", "optim.lr=interval(2,1) · must go from a number to a greater one"),
        ("x=tag(log,interval(0,1))", "a logarithmic interval begins above 0"),
        ("x=tag(lg,interval(1,2))", "has an unknown tag 'lg'"),
        ("x=1,2,1", "x=1,2,1 · names a value twice · each value once"),
        ("x=shuffle(range(3))", "a study keeps its order"),
        ("slots=1,2", "slots=1,2 · belongs to the study, so it has one value"),
        ("x=range(1,1)", "holds no value"),
    ],
)
def test_what_makes_no_sense_is_refused(typed: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        space(typed)
    assert message in str(caught.value)


def test_a_grid_refuses_an_interval() -> None:
    with pytest.raises(ConfigError, match=r"x=interval\(1e-4,1.0\) · a grid needs values .* sweep=optuna"):
        list(space("x=interval(1e-4,1.0)").grid())


@pytest.mark.parametrize(
    ("number", "text"),
    [(3e-4, "3e-4"), (0.003217, "3.217e-3"), (0.01, "0.01"), (2.0, "2.0"), (12, "12"), (-1e-5, "-1e-5"), (1e6, "1e6")],
)
def test_numbers_are_written_as_people_type_them(number: float, text: str) -> None:
    assert number_text(number) == text
    assert float(text) == number
