"""``evaluate.py compare=…``, composed as the command line composes it."""

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from lumi.errors import ConfigError
from lumi.evaluate import evaluate

CONF = Path(__file__).parents[3] / "conf"


def call(*words):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        evaluate(compose("evaluate", list(words)))


def test_a_study_needs_no_model_and_its_baseline_is_one_word_of_the_command(two_by_two, tmp_path):
    call("compare=multirun/rates", "baseline={optim.lr: 1e-3}", "out=here")
    text = (tmp_path / "here" / "report.md").read_text()
    assert "| arch=nano, optim.lr=0.003 " in text
    assert "'baseline={optim.lr: 0.001}'" in text


def test_a_misspelt_key_beside_it_is_refused(two_by_two):
    with pytest.raises(ConfigError, match="metrik='x' · is not a setting · did you mean 'metric'"):
        call("compare=multirun/rates", "+metrik=x")
