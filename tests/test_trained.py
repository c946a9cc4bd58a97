"""What a path can mean where a model is wanted; exports are tested in tests/export."""

from pathlib import Path

import pytest

from lumi.errors import CheckpointError, ConfigError
from lumi.initial import initial_model
from lumi.trained import find_checkpoint, load_trained


def test_a_base_goes_with_an_adapter_only(stages):
    run = next(Path(word.partition("=")[2].strip("'")) for word in stages["sft"] if word.startswith("init_from="))
    with pytest.raises(ConfigError, match="goes with an adapter"):
        load_trained(run, base=run)


def test_a_gguf_folder_is_not_read(tmp_path):
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    with pytest.raises(CheckpointError, match="writes but does not read"):
        find_checkpoint(tmp_path)


@pytest.mark.parametrize("name", ["config.json", "adapter_config.json"])
def test_training_does_not_begin_from_what_was_made_for_other_programs(tmp_path, name):
    (tmp_path / name).write_text("{}")
    with pytest.raises(ConfigError, match=r"init_from=.* is an export for other programs.* give the run"):
        initial_model({"init_from": str(tmp_path)}, None, None)
