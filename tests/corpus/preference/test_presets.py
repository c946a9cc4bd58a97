"""Every preset of preference pairs on a small file with the real schema."""

import json

import pytest
from omegaconf import OmegaConf

from lumi.config import build
from lumi.corpus.document import Rejected
from lumi.corpus.preference import Pair, PairFiles, audit_lines, build_preference
from lumi.errors import ConfigError, DataError

GOOD, BAD = "Water boils at 100 °C.", "Who knows."
ROWS = {
    "orca_dpo": {"system": "Be brief.", "question": "When?", "chosen": GOOD, "rejected": BAD},
    "orca_messages": {
        "input": {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "When?"}]},
        "preferred_output": [{"role": "assistant", "content": GOOD}],
        "non_preferred_output": [{"role": "assistant", "content": BAD}],
    },
    "hh_rlhf": {
        "chosen": f"\n\nHuman: What boils?\n\nAssistant: Water.\n\nHuman: When?\n\nAssistant: {GOOD}",
        "rejected": f"\n\nHuman: What boils?\n\nAssistant: Water.\n\nHuman: When?\n\nAssistant: {BAD}",
    },
    "sharegpt_dpo": {
        "conversations": [{"from": "human", "value": "When?"}],
        "chosen": {"from": "gpt", "value": GOOD},
        "rejected": {"from": "gpt", "value": BAD},
    },
    "alpaca_dpo": {"instruction": "When?", "input": "", "output": GOOD, "chosen": GOOD, "rejected": BAD},
    "files": {"prompt": "When?", "chosen": GOOD, "rejected": BAD},
}
PROMPTS = {
    "orca_dpo": ["system: Be brief.", "user: When?"],
    "orca_messages": ["system: Be brief.", "user: When?"],
    "hh_rlhf": ["user: What boils?", "assistant: Water.", "user: When?"],
}


def write(path, rows):
    path.write_text(json.dumps(rows))
    return str(path)


@pytest.mark.parametrize("name", ROWS)
def test_a_preset_reads_its_schema(composed, tmp_path, name):
    path = write(tmp_path / "rows.json", [ROWS[name]])
    cfg = composed("train", "stage=dpo", f"+preference@data.sources.mine={name}", f"data.sources.mine.path='{path}'")
    source = build(OmegaConf.to_container(cfg.data.sources.mine, resolve=True), "data.sources.mine")
    (pair,) = source.pairs()
    assert isinstance(pair, Pair)
    assert [f"{message.role}: {message.content}" for message in pair.prompt] == PROMPTS.get(name, ["user: When?"])
    assert (pair.chosen, pair.rejected) == (GOOD, BAD)


TRANSCRIPTS = {
    "one is the beginning of the other": (
        "\n\nHuman: a\n\nAssistant: b", "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant: d", "same answers"
    ),
    "other prompts": ("\n\nHuman: a\n\nAssistant: b", "\n\nHuman: x\n\nAssistant: b", "no common prompt"),
    "no text": (None, "x", "missing field"),
    "numbers": (1, 2, "wrong type"),
}  # fmt: skip


@pytest.mark.parametrize("name", TRANSCRIPTS)
def test_transcripts_that_make_no_pair_are_named(tmp_path, name):
    chosen, rejected, reason = TRANSCRIPTS[name]
    path = write(tmp_path / "rows.json", [{"chosen": chosen, "rejected": rejected}])
    with pytest.raises(DataError, match=reason):
        list(PairFiles(path=path, transcripts=True).pairs())
    (found,) = PairFiles(path=path, transcripts=True, on_error="skip").pairs()
    assert isinstance(found, Rejected)


def test_equal_answers_and_duplicates_are_left_out(tmp_path):
    rows = [{"prompt": f"{n}", "chosen": GOOD, "rejected": BAD} for n in range(30)]
    rows += [rows[0], {"prompt": "x", "chosen": GOOD, "rejected": f" {GOOD}\n"}]
    source = PairFiles(path=write(tmp_path / "rows.json", rows), on_error="skip")
    manifest = build_preference(source, tmp_path / "pairs")
    assert manifest.info["rejected"] == {"duplicate": 1, "same answers": 1}
    card = (tmp_path / "pairs" / "DATA_CARD.md").read_text()
    assert "the chosen answer is the longer one in 100.0% of 30 pairs · a length bias: longer would" in card


def reasons(source):
    return [getattr(one, "reason", "kept") for one in source.pairs()]


def test_pairs_can_be_filtered(tmp_path):
    rows = [
        {"prompt": "a", "chosen": "yes it is", "rejected": "no", "high": 9, "low": 1},
        {"prompt": "b", "chosen": "yes it is indeed", "rejected": "no it is not", "high": 5, "low": 4},
    ]
    path = write(tmp_path / "rows.json", rows)
    assert reasons(PairFiles(path=path)) == ["kept", "kept"]
    assert reasons(PairFiles(path=path, min_chars=3)) == ["filtered", "kept"]
    assert reasons(PairFiles(path=path, max_chars=12)) == ["kept", "filtered"]
    assert reasons(PairFiles(path=path, max_length_ratio=2.0)) == ["filtered", "kept"]
    assert reasons(PairFiles(path=path, margin=["high", "low"], min_margin=2)) == ["kept", "filtered"]
    assert reasons(PairFiles(path=path, margin=["high", "none"])) == ["filtered", "filtered"]


@pytest.mark.parametrize("settings", [{}, {"path": "x", "max_length_ratio": 0.5}, {"path": "x", "margin": ["a"]}])
def test_settings_are_checked(settings):
    with pytest.raises(ConfigError):
        PairFiles(**settings)


def test_the_audit_says_what_else_the_pairs_would_teach(tmp_path):
    rows = [{"prompt": f"q{n}", "chosen": "long and right", "rejected": "wrong"} for n in range(7)]
    rows += [{"prompt": "same", "chosen": "same", "rejected": f"longer than that {n}"} for n in range(60)]
    path = write(tmp_path / "rows.json", rows)
    manifest = build_preference(PairFiles(name="mine", path=path), tmp_path / "mine")
    facts = manifest.info["audit"]
    assert facts["chosen_longer"] == 7 / 67
    assert facts["chosen_echoes"] == 60
    assert (facts["prompts"], facts["shared_prompts"]) == (8, 1)  # split by the hash of the whole pair
    lines = "\n".join(audit_lines(facts))
    assert "10.4% of 67 pairs · a length bias: shorter would be learnt as better" in lines
    assert "60 chosen answers repeat the question" in lines
    assert all(f"- {line}" in (tmp_path / "mine" / "DATA_CARD.md").read_text() for line in audit_lines(facts))


def test_a_mixture_of_public_preferences_has_its_weights(composed):
    sources = composed("train", "stage=dpo", "data=preference_mix").data.sources
    assert {name: source.weight for name, source in sources.items()} == {"hh_rlhf": 0.7, "orca_dpo": 0.3}
