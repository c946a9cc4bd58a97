"""Every preset on a small file with the real schema; what is wrong with a row is named with its file and line."""

import dataclasses
import gzip
import json
import sys
import types

import pytest
from omegaconf import OmegaConf

from lumi.config import build
from lumi.corpus import hub
from lumi.corpus.chat import ChatFiles, ChatTree, Conversation, PydocsChat, build_chat, read_chat
from lumi.corpus.document import Rejected
from lumi.errors import ConfigError, DataError

ANSWER = "Water boils."
ROWS = {
    "alpaca": {"instruction": "What happens?", "input": "100 °C", "output": ANSWER, "text": "…"},
    "dolly": {"instruction": "What happens?", "context": "100 °C", "response": ANSWER, "category": "open_qa"},
    "gsm8k": {"question": "What happens?\n\n100 °C", "answer": ANSWER},
    "prompt_response": {"prompt": "What happens?\n\n100 °C", "response": ANSWER},
    "messages": {
        "id": "7",
        "messages": [{"role": "user", "content": "What happens?\n\n100 °C"}, {"role": "assistant", "content": ANSWER}],
    },
    "sharegpt": {
        "conversations": [{"from": "human", "value": "What happens?\n\n100 °C"}, {"from": "gpt", "value": ANSWER}]
    },
}


def write(path, rows):
    path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))
    return str(path)


def preset(composed, name, path):
    cfg = composed("train", "stage=sft", f"+chat@data.sources.mine={name}", f"data.sources.mine.path='{path}'")
    node = OmegaConf.to_container(cfg.data.sources.mine, resolve=True)
    return build(node, "data.sources.mine")


@pytest.mark.parametrize("name", ROWS)
def test_a_preset_reads_its_schema(composed, tmp_path, name):
    source = preset(composed, name, write(tmp_path / "rows.jsonl.gz", [ROWS[name]]))
    (found,) = source.conversations()
    assert isinstance(found, Conversation)
    assert [(message.role, message.content) for message in found.messages] == [
        ("user", "What happens?\n\n100 °C"),
        ("assistant", ANSWER),
    ]


def node(key, parent, text, role, *, rank=None, lang="en", deleted=False):
    return {
        "message_id": key, "parent_id": parent, "user_id": "u", "text": text, "role": role, "lang": lang, "rank": rank,
        "deleted": deleted, "review_result": True, "tree_state": "ready_for_export",
    }  # fmt: skip


TREE = [
    node("q1", None, "What boils?", "prompter"),
    node("a1", "q1", "Milk.", "assistant", rank=1),
    node("a0", "q1", "Water.", "assistant", rank=0),
    node("q2", "a0", "When?", "prompter"),
    node("a2", "q2", "At 100 °C.", "assistant", rank=0),
    node("ax", "q2", "Never.", "assistant", rank=None),
    node("q3", "a1", "Why milk?", "prompter"),
    node("e1", None, "Say it.", "prompter"),
    node("e2", "e1", "Say it.", "assistant", rank=0),
    node("g1", None, "Was kocht?", "prompter", lang="de"),
    node("g2", "g1", "Wasser.", "assistant", lang="de"),
    node("o1", "gone", "Lost.", "assistant"),
    node("n1", None, "Anybody?", "prompter"),
    node("d1", None, "Again?", "prompter"),
    node("d2", "d1", "No.", "assistant", rank=0, deleted=True),
    node("d3", "d1", "Yes.", "assistant", rank=1),
]


@pytest.mark.parametrize("backwards", [False, True])
def test_a_tree_gives_the_path_of_best_answers(composed, tmp_path, backwards):
    rows = TREE[::-1] if backwards else TREE
    source = preset(composed, "oasst1", write(tmp_path / "tree.jsonl.gz", rows))
    found = list(source.conversations())
    kept = [[message.content for message in one.messages] for one in found if isinstance(one, Conversation)]
    assert kept == [["What boils?", "Water.", "When?", "At 100 °C."], ["Again?", "Yes."]]
    reasons = sorted(one.reason for one in found if isinstance(one, Rejected))
    assert reasons == ["echo", "filtered", "no answer", "orphan"]


def test_all_paths_of_a_tree(tmp_path):
    source = ChatTree(path=write(tmp_path / "tree.jsonl.gz", TREE), all_paths=True, on_error="skip")
    kept = {
        " | ".join(m.content for m in one.messages) for one in source.conversations() if isinstance(one, Conversation)
    }
    assert kept == {
        "What boils? | Water. | When? | At 100 °C.",
        "What boils? | Water. | When? | Never.",
        "What boils? | Milk.",
        "Was kocht? | Wasser.",
        "Again? | Yes.",
    }


BAD = {
    "no answer": ({"instruction": "x"}, "missing field"),
    "empty": ({"instruction": "x", "output": "  "}, "empty turn"),
    "number": ({"instruction": "x", "output": 3}, "wrong type"),
    "list": (["x"], "not a JSON object"),
    "nul": ({"instruction": "x\0", "output": "y"}, "not text"),
    "surrogate": ({"instruction": "x", "output": "\ud800"}, "not text"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_row_is_named_or_counted(tmp_path, name):
    row, reason = BAD[name]
    path = write(tmp_path / "rows.jsonl.gz", [ROWS["alpaca"], row])
    with pytest.raises(DataError, match=rf"rows.jsonl.gz:2 · .*{reason}"):
        list(ChatFiles(path=path).conversations())
    found = list(ChatFiles(path=path, on_error="skip").conversations())
    assert [type(one) for one in found] == [Conversation, Rejected]


@pytest.mark.parametrize(
    ("roles", "reason"),
    [(("assistant", "user"), "role order"), (("user", "user"), "role order"), (("user", "judge"), "unknown role")],
)
def test_turns_out_of_order_are_refused(tmp_path, roles, reason):
    turns = [{"role": role, "content": "x"} for role in roles]
    path = write(tmp_path / "rows.jsonl.gz", [{"messages": turns}])
    with pytest.raises(DataError, match=reason):
        list(ChatFiles(path=path, messages="messages").conversations())


def test_rows_can_be_filtered_by_value_and_score(tmp_path):
    rows = [
        {**ROWS["alpaca"], "lang": lang, "meta": {"score": score}} for lang, score in (("en", 3), ("de", 9), ("en", 8))
    ]
    path = write(tmp_path / "rows.jsonl.gz", rows)
    source = ChatFiles(path=path, keep={"lang": "en"}, score="meta.score", min_score=5)
    assert [getattr(one, "reason", "kept") for one in source.conversations()] == ["filtered", "filtered", "kept"]


def test_a_sample_is_seeded_and_in_order(tmp_path):
    path = write(tmp_path / "rows.jsonl.gz", [{"instruction": f"{n:03d}", "output": "x"} for n in range(50)])

    def asked(**settings):
        return [one.messages[0].content for one in ChatFiles(path=path, **settings).conversations()]  # pyright: ignore[reportAttributeAccessIssue]

    some = asked(limit=10)
    assert len(some) == 10
    assert some == sorted(some) == asked(limit=10)
    assert some != asked(limit=10, seed=1)
    assert 5 <= len(asked(limit=400, limit_by="characters")) <= 11


def test_the_fingerprint_covers_the_bytes_of_the_files(tmp_path):
    path = write(tmp_path / "rows.jsonl.gz", [ROWS["alpaca"]])
    before = ChatFiles(path=path).settings()
    write(tmp_path / "rows.jsonl.gz", [ROWS["alpaca"], ROWS["alpaca"]])
    assert ChatFiles(path=path).settings() != before


def test_where_a_file_lies_and_its_weight_decide_nothing(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    one, other = (write(tmp_path / place / "rows.jsonl.gz", [ROWS["alpaca"]]) for place in ("", "elsewhere"))
    plain = ChatFiles(path=one).settings()
    assert ChatFiles(path=other, weight=0.2, on_error="skip").settings() == plain
    assert PydocsChat(weight=0.1).settings() == PydocsChat(weight=0.2).settings()


def test_many_faulty_rows_are_a_wrong_setting(tmp_path):
    rows = [{"instruction": f"{n}", "output": "x"} for n in range(90)] + [{"question": f"{n}"} for n in range(10)]
    source = ChatFiles(name="mine", path=write(tmp_path / "rows.jsonl.gz", rows), on_error="skip")
    with pytest.raises(DataError, match=r"mine: 10.0% of its rows are faulty \(10 missing field\)"):
        build_chat(source, tmp_path / "chat")
    kept = build_chat(dataclasses.replace(source, max_rejected_ratio=0.1), tmp_path / "chat")
    assert sum(kept.info["rows"].values()) == 90


def test_a_small_source_has_something_to_validate_on(tmp_path):
    rows = [{"instruction": f"{n}", "output": "x"} for n in range(3)]
    manifest = build_chat(ChatFiles(path=write(tmp_path / "rows.jsonl.gz", rows)), tmp_path / "chat")
    assert manifest.info["rows"] == {"train": 2, "val": 1, "test": 0}


def test_a_sample_of_a_tree_is_of_conversations(tmp_path):
    source = ChatTree(path=write(tmp_path / "tree.jsonl.gz", TREE), langs=["en"], on_error="skip", limit=1)
    found = list(source.conversations())
    assert sum(isinstance(one, Conversation) for one in found) == 1
    assert [one.reason for one in found if isinstance(one, Rejected)].count("orphan") == 1


def test_duplicates_are_left_out_and_counted(tmp_path):
    path = write(
        tmp_path / "rows.jsonl.gz", [ROWS["alpaca"]] * 3 + [{"instruction": f"{n}", "output": "x"} for n in range(30)]
    )
    manifest = build_chat(ChatFiles(path=path), tmp_path / "chat")
    assert manifest.info["rejected"] == {"duplicate": 2}
    assert sum(manifest.info["rows"].values()) == 31
    assert len(list(read_chat(tmp_path / "chat", "train"))) == manifest.info["rows"]["train"]


class Hub(types.ModuleType):
    """Stands for the package `datasets`, remembers how it was called, and fails as often as it is told to."""

    def __init__(self, failures=0):
        super().__init__("datasets")
        self.calls, self.failures = [], failures

    def disable_progress_bars(self):
        pass

    def get_dataset_config_names(self, name, revision=None):
        return ["b", "a"]

    def load_dataset(self, *args, **kwargs):
        self.calls.append((args, kwargs))
        if self.failures:
            self.failures -= 1
            raise ConnectionError("no route")
        return [ROWS["alpaca"], {**ROWS["alpaca"], "input": args[1] or "none"}]


@pytest.fixture
def patient(monkeypatch):
    pauses = []
    monkeypatch.setattr(hub.time, "sleep", pauses.append)
    return pauses


def test_the_hub_is_read_streaming_with_retries(monkeypatch, patient, composed):
    fake = Hub(failures=2)
    monkeypatch.setitem(sys.modules, "datasets", fake)
    cfg = composed("train", "stage=sft", "+chat@data.sources.mine=alpaca", "data.sources.mine.revision=abc")
    source = build(OmegaConf.to_container(cfg.data.sources.mine, resolve=True), "mine")
    found = list(source.conversations())
    assert [one.id for one in found] == ["tatsu-lab/alpaca:train:0", "tatsu-lab/alpaca:train:1"]
    assert fake.calls[-1] == (("tatsu-lab/alpaca", None), {"split": "train", "revision": "abc", "streaming": True})
    assert patient == [2.0, 4.0]
    assert source.settings()["revision"] == "abc"


def test_all_subsets_are_read_by_name(monkeypatch, patient):
    monkeypatch.setitem(sys.modules, "datasets", Hub())
    rows = [row["input"] for _, row in hub.hub_rows("x/y", "*", "train", None, offline="path=FILE")]
    assert rows == ["100 °C", "a", "100 °C", "b"]


def test_without_a_network_the_way_out_is_named(monkeypatch, patient):
    monkeypatch.setitem(sys.modules, "datasets", Hub(failures=99))
    with pytest.raises(DataError, match=r"no route.*needs a network · data.sources.chat_files.path=FILE"):
        list(ChatFiles(dataset="x/y").conversations())


def test_without_the_package_its_installation_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ConfigError, match=r"pip install 'lumi\[hub\]'"):
        list(ChatFiles(dataset="x/y").conversations())


@pytest.mark.parametrize(
    "settings",
    [{}, {"path": "x", "on_error": "ignore"}, {"path": "x", "limit": 0}, {"path": "x", "limit_by": "tokens"},
     {"path": "x", "roles": {"a": "judge"}}, {"path": "x", "score": "s"}],
)  # fmt: skip
def test_settings_are_checked(settings):
    with pytest.raises(ConfigError):
        ChatFiles(**settings)


def test_python_answers_with_whole_sentences():
    found = list(PydocsChat(n_conversations=30).conversations())
    assert len(found) == 30
    for one in found:
        answer = one.messages[1].content
        assert answer[0].isupper()
        assert answer.endswith(".")
        assert len(answer) <= 160
    assert found == list(PydocsChat(n_conversations=30).conversations())
    assert dataclasses.asdict(found[0])["messages"][0]["role"] == "user"


def test_a_mixture_of_public_conversations_has_its_weights(composed):
    sources = composed("train", "stage=sft", "data=chat_mix").data.sources
    assert {name: source.weight for name, source in sources.items()} == {"alpaca": 0.4, "dolly": 0.3, "oasst1": 0.3}
