"""Counts and times of what was answered, for Prometheus: Triton's own metrics know neither reasons nor steps."""

from __future__ import annotations

from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from serving.function import Value

_SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60)
_STEP = "_ms"
_TOTAL = "total_ms"


class Tally:
    """Counters of one server. Any thread may count."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "cat2dog_requests", "Requests by status (HTTP's meaning)", ["function", "status"], registry=self._registry
        )
        self._left = Counter(
            "cat2dog_clients_left", "Clients that went away before their answer", ["function"], registry=self._registry
        )
        self.under_way = Gauge("cat2dog_under_way", "Requests that the front has now", registry=self._registry)
        self._seconds = Histogram(
            "cat2dog_request_seconds",
            "From accepting a request to its answer",
            ["function"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._steps = Histogram(
            "cat2dog_step_seconds",
            "Each step of an answer, waiting (queue) among them",
            ["function", "step"],
            buckets=_SECONDS,
            registry=self._registry,
        )

    def count(self, function: str, status: int, log: Mapping[str, Value]) -> None:
        """One request; `total_ms` of `log` is its time, what else is called `…_ms` are its steps."""
        log = dict(log)
        self._requests.labels(function, str(status)).inc()
        self._seconds.labels(function).observe(float(log.pop(_TOTAL)) / 1000)
        for name, value in log.items():
            if name.endswith(_STEP) and isinstance(value, (int, float)):
                self._steps.labels(function, name.removesuffix(_STEP)).observe(value / 1000)

    def left(self, function: str) -> None:
        """A client went away before its answer."""
        self._left.labels(function).inc()

    def text(self) -> bytes:
        """Prometheus' text format."""
        return generate_latest(self._registry)
