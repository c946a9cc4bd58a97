"""What ``/metrics`` shows, in the form of Prometheus."""

from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_TOKEN_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class Metrics:
    """Counters of one server.

    Args:
        paths: routes by name; others are counted together, so that nobody can fill the memory with paths.
    """

    def __init__(self, paths: Sequence[str]) -> None:
        self.registry = CollectorRegistry()
        self._paths = frozenset(paths)
        self._gauges: dict[str, Gauge] = {}
        self._requests = Counter(
            "lumi_requests", "Requests by route and status.", ["path", "status"], registry=self.registry
        )
        self.prompt_tokens = Counter("lumi_prompt_tokens", "Tokens read.", ["model"], registry=self.registry)
        self.generated_tokens = Counter("lumi_generated_tokens", "Tokens written.", ["model"], registry=self.registry)
        self.first_token = Histogram(
            "lumi_time_to_first_token_seconds",
            "From a request to its first token.",
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.inter_token = Histogram(
            "lumi_inter_token_seconds",
            "From one token of an answer to the next.",
            buckets=_TOKEN_SECONDS,
            registry=self.registry,
        )

    def watch(self, name: str, running: Callable[[], float], waiting: Callable[[], float]) -> None:
        """Show how many requests of a model run and wait."""
        for label, function in (("running", running), ("waiting", waiting)):
            gauge = self._gauges.get(label)
            if gauge is None:
                gauge = Gauge(f"lumi_requests_{label}", f"Requests {label} now.", ["model"], registry=self.registry)
                self._gauges[label] = gauge
            gauge.labels(name).set_function(function)

    def counting(self, path: str, send: Send) -> Send:
        """The same, and the status is counted."""

        async def counted(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                self.count(path, message["status"])
            await send(message)

        return counted

    def count(self, path: str, status: int) -> None:
        """A request has been answered; any thread may say so."""
        self._requests.labels(path if path in self._paths else "other", status).inc()

    def text(self) -> bytes:
        """Everything."""
        return generate_latest(self.registry)
