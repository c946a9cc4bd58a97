"""schemathesis against the server's own OpenAPI document: what it describes is taken, what it does not is refused."""

import collections
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest
import schemathesis
from schemathesis.config import SchemathesisConfig
from schemathesis.engine import events, from_schema

from .live import Live, note, running

SETTINGS = {
    "seed": 1,
    "continue-on-failure": True,
    "request-timeout": 5,
    "checks": {"negative_data_rejection": {"expected-statuses": [400, 404, 405, 413, 415]}},
    "generation": {"mode": "all", "deterministic": True, "database": "none", "no-shrink": True, "allow-x00": True},
}
UNTOLD = {
    "roles", "context_length_exceeded", "unknown_token", "min_above_max", "same_answers", "too_many_answers", "too_large",
}  # fmt: skip
"""Why a body can be refused that the document allows: JSON Schema has no words for it."""
OPERATIONS = {
    "POST /v1/chat/completions", "POST /v1/completions", "POST /v1/preferences", "GET /v1/models", "GET /v1/models/{name}",
    "GET /health", "GET /metrics",
}  # fmt: skip

LINKED = {"POST /v1/chat/completions", "POST /v1/completions", "POST /v1/preferences", "GET /v1/models/{name}"}
"""What the answer of another operation leads to."""


@dataclasses.dataclass
class Findings:
    """What a run of schemathesis saw."""

    document: dict[str, Any]
    n_cases: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    n_linked: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    statuses: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    slowest_seconds: float = 0.0
    refused: list[tuple[str, Any, dict[str, Any]]] = dataclasses.field(default_factory=list)
    failures: list[str] = dataclasses.field(default_factory=list)

    def read(self, recorder: Any) -> None:
        for number, node in recorder.cases.items():
            case = node.value
            self.n_cases[case.operation.label] += 1
            self.n_linked[case.operation.label] += node.transition is not None
            response = recorder.interactions[number].response
            if response is None:
                self.failures.append(f"{case.operation.label}: no answer to {case.body!r}")
                continue
            self.statuses[response.status_code] += 1
            self.slowest_seconds = max(self.slowest_seconds, response.elapsed)
            for check in recorder.checks.get(number, []):
                if check.failure_info is not None:
                    self._note(check, case, response)

    def _note(self, check: Any, case: Any, response: Any) -> None:
        if check.name == "positive_data_acceptance" and response.status_code in (400, 413):
            self.refused.append((case.operation.label, case.body, response.json()["error"]))
        else:
            self.failures.append(
                f"{case.operation.label}: {check.failure_info.failure} {case.body!r} {response.content!r}"
            )

    def describes(self, operation: str, body: Any) -> bool:
        """Whether the document allows a body, by another validator, which compares numbers of any size exactly."""
        described = self.document["paths"][operation.removeprefix("POST ")]["post"]
        schema = described["requestBody"]["content"]["application/json"]["schema"]
        whole = {**schema, "components": self.document["components"]}
        return jsonschema.Draft202012Validator(whole).is_valid(json.loads(json.dumps(body)))


def explore(live: Live, n_examples: int) -> Findings:
    """All phases, what is allowed and what is not."""
    generation = {**SETTINGS["generation"], "max-examples": n_examples}
    config = SchemathesisConfig.from_dict({**SETTINGS, "generation": generation})
    address = f"{live.address}/openapi.json"
    findings = Findings(httpx.get(address).json())
    for event in from_schema(schemathesis.openapi.from_url(address, config=config)).execute():
        if isinstance(event, events.ScenarioFinished):
            findings.read(event.recorder)
        elif isinstance(event, events.NonFatalError | events.FatalError):
            findings.failures.append(str(event))
    return findings


def repeat(live: Live, findings: Findings, n: int) -> None:
    """An operation without parameters has one case: that one so often."""
    schema = schemathesis.openapi.from_url(f"{live.address}/openapi.json")
    for label in ("GET /health", "GET /metrics", "GET /v1/models"):
        case = schema[label.removeprefix("GET ")]["GET"].Case()
        for _ in range(n - findings.n_cases[label]):
            response = case.call_and_validate()
            findings.n_cases[label] += 1
            findings.statuses[response.status_code] += 1
            findings.slowest_seconds = max(findings.slowest_seconds, response.elapsed)


@pytest.fixture(scope="module")
def explored(live_parts: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with running(*live_parts, preferences=tmp_path_factory.mktemp("pairs") / "pairs.jsonl") as live:
        yield live


@pytest.mark.matrix("S1")
@pytest.mark.parametrize("n_examples", [100, pytest.param(1000, marks=pytest.mark.faults)])
def test_every_request_is_answered_as_the_document_says(explored, n_examples, row):
    before = reference(explored)
    findings = explore(explored, n_examples)
    repeat(explored, findings, n_examples)
    unexplained = [one for one in findings.refused if one[2]["code"] not in UNTOLD and findings.describes(*one[:2])]
    wrong = [*findings.failures, *map(str, unexplained)]
    linked = findings.n_linked.total()
    figures = f"slowest {findings.slowest_seconds:.3f} s; {dict(findings.n_cases)}, of these by links {linked}"
    note(f"{figures}, {dict(findings.statuses)}")
    said = "; ".join(one[:600] for one in wrong)
    row(trials=findings.n_cases.total(), failures=len(wrong), seed=SETTINGS["seed"], note=f"{figures} {said}".strip())
    assert max(findings.statuses) < 500
    assert findings.slowest_seconds < 5
    assert set(findings.n_cases) == OPERATIONS
    assert min(findings.n_cases.values()) >= n_examples
    linked_to = {label for label, n in findings.n_linked.items() if n}
    # Which links are followed is drawn: in a hundred cases one of them may not be.
    assert linked_to == LINKED if n_examples >= 1000 else linked_to
    assert linked_to <= LINKED
    assert {200, 201} <= set(findings.statuses)
    explored.wait_until_idle()
    assert reference(explored) == before == explored.answered("badoké li")


def reference(live: Live) -> str:
    body = {"messages": [{"role": "user", "content": "badoké li"}], "temperature": 0, "max_tokens": 16}
    return httpx.post(f"{live.address}/v1/chat/completions", json=body).json()["choices"][0]["message"]["content"]


def test_the_document_promises_nothing_that_is_never_sent(live):
    document = httpx.get(f"{live.address}/openapi.json").json()
    assert not {"HTTPValidationError", "ValidationError"} & set(document["components"]["schemas"])
    for path, operations in document["paths"].items():
        for operation in operations.values():
            assert "422" not in operation["responses"], path


def test_pairs_that_were_kept_are_rows_of_json(explored):
    path = Path(explored.server.settings.preferences)
    rows = [json.loads(line, parse_constant=pytest.fail) for line in path.read_text().strip("\n").split("\n")]
    assert rows
    assert all({"prompt", "chosen", "rejected"} <= set(row) for row in rows)
