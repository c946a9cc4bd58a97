"""A file of requests: every line has its answer, once, whatever happens in between."""

import json
from pathlib import Path

import pytest

from lumi import serving
from lumi.errors import DataError

HELLO = {"messages": [{"role": "user", "content": "Where does Vesna Lambourne live?"}], "max_tokens": 4, "seed": 1}


@pytest.fixture
def answer(composed, stages, tmp_path):
    """Answer the lines; returns the rows by name."""
    model = stages["dpo"][-1].removeprefix("init_from=").strip("'")

    def run(lines):
        source, out = tmp_path / "requests.jsonl", tmp_path / "answers.jsonl"
        source.write_text("".join(json.dumps(line) + "\n" for line in lines))
        files = (f"input='{source}'", f"out='{out}'")
        serving.serve(composed("serve", "mode=batch", f"model='{model}'", "device=cpu", "slots=2", *files))
        rows = [json.loads(line) for line in out.read_text().splitlines()]
        assert len(rows) == len({row["custom_id"] for row in rows})
        return {row["custom_id"]: row for row in rows}

    return run


def line(name, **fields):
    return {"custom_id": name, "method": "POST", "url": "/v1/chat/completions", "body": {**HELLO, **fields}}


def text(row):
    return row["response"]["body"]["choices"][0]["message"]["content"]


def test_every_line_has_the_answer_of_its_own_seed(answer):
    rows = answer([line(str(number), seed=number % 3) for number in range(9)])
    assert {row["response"]["status_code"] for row in rows.values()} == {200}
    for number in range(9):
        assert text(rows[str(number)]) == text(rows[str(number % 3)])
    completion = {"custom_id": "c", "url": "/v1/completions", "body": {"prompt": "Once", "max_tokens": 3}}
    assert answer([*(line(str(n), seed=n % 3) for n in range(9)), completion])["c"]["response"]["status_code"] == 200


def test_a_file_that_was_cut_short_is_gone_on_with(answer, tmp_path):
    first = answer([line("a"), line("b")])
    out = tmp_path / "answers.jsonl"
    kept = out.read_bytes()
    out.write_bytes(kept + b'{"custom_id": "c", "respo')
    again = answer([line("a"), line("b"), line("c")])
    assert out.read_bytes().startswith(kept)
    assert [again["a"], again["b"]] == [first["a"], first["b"]]
    assert text(again["c"]) == text(first["a"])


def test_what_cannot_be_answered_says_so_in_its_row(answer, tmp_path):
    with pytest.raises(DataError, match="3 requests"):
        answer([line("good"), line("hot", temperature=-1), line("stream", stream=True), line("odd", foo=1)])
    rows = {row["custom_id"]: row for row in map(json.loads, (tmp_path / "answers.jsonl").read_text().splitlines())}
    assert rows["good"]["error"] is None
    assert {name: rows[name]["error"]["param"] for name in ("hot", "stream", "odd")} == (
        {"hot": "temperature", "stream": "stream", "odd": "foo"}
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("nonsense\n", ":1 · is no request"),
        ('{"custom_id": "a", "url": "/v1/embeddings", "body": {}}\n', "url=/v1/embeddings"),
        ('{"custom_id": "a", "url": "/v1/completions", "body": {}}\n' * 2, ":2 has custom_id='a'"),
    ],
)
def test_a_line_that_is_no_request_is_named_before_anything_is_answered(tmp_path, content, message):
    from lumi.serve.batch import answer_file

    source = tmp_path / "requests.jsonl"
    source.write_text(content)
    with pytest.raises(DataError, match=message):
        answer_file(None, source, Path(tmp_path / "out"), n_rows=1)  # pyright: ignore[reportArgumentType]  # not reached
