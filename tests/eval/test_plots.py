"""The columns that are drawn; how they look is judged by eye."""

import numpy as np
import pytest

from lumi.errors import DataError
from lumi.eval.plots import plot_comparison, plot_loss, read_metrics


def write(path, text):
    path.write_text(text)
    return path


def test_empty_cells_are_no_points(tmp_path):
    path = write(tmp_path / "m.csv", "step,progress/tokens,train/loss,val/loss\r\n1,10,5,\r\n2,20,4,4.5\r\n")
    tokens, loss = read_metrics(path)["val/loss"]
    assert (tokens.tolist(), loss.tolist()) == ([20], [4.5])


def test_a_row_without_tokens_stands_between_its_neighbours(tmp_path):
    path = write(tmp_path / "m.csv", "step,progress/tokens,val/loss\n1,10,\n2,,4\n3,30,\n")
    assert read_metrics(path)["val/loss"][0].tolist() == [20]


def test_a_last_row_that_a_kill_cut_is_left_out(tmp_path):
    path = write(tmp_path / "m.csv", "step,progress/tokens,val/loss\n1,10,4\n2,2")
    assert read_metrics(path)["progress/tokens"][1].tolist() == [10]


def test_without_tokens_steps_are_drawn(tmp_path):
    path = write(tmp_path / "m.csv", "step,train/loss\n5,3\n7,2\n")
    assert read_metrics(path)["train/loss"][0].tolist() == [5, 7]


@pytest.mark.parametrize("text", ["a,b\n1,2\n", "step,x\none,2\n", "step,x\n1,two\n"])
def test_another_table_is_refused(tmp_path, text):
    with pytest.raises(DataError, match="not a table of metrics"):
        read_metrics(write(tmp_path / "m.csv", text))


def test_a_missing_table_is_named(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        read_metrics(tmp_path / "m.csv")


@pytest.mark.parametrize(
    "columns", [["train/loss"], ["val/bits_per_byte"], ["val/bits_per_byte/a", "val/bits_per_byte/b"], []]
)
def test_whatever_was_logged_gives_a_picture(columns):
    series = (np.array([1.0, 2.0]), np.array([3.0, 2.5]))
    levels = {"a": {"xz": 2.0, "exact": None}, "b": {}}
    assert plot_loss(dict.fromkeys(columns, series), levels).startswith(b"\x89PNG")


def test_a_comparison_without_references_gives_a_picture():
    assert plot_comparison({"one": {"a": 1.0}, "two": {"b": 2.0}}, {}).startswith(b"\x89PNG")
