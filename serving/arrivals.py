"""When the front accepted a request, for whoever computes it: Triton does not say how long a request waited."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Iterator, Mapping
from typing import Any

_PARAMETER = "arrival"


class Arrivals:
    """Times (`time.monotonic()`) by a key that travels with the request. Any thread may ask.

    The key is secret and known only while its request is under way, so that no client can claim a time of its own.
    """

    def __init__(self) -> None:
        self._times: dict[str, float] = {}
        self._taken: set[str] = set()

    @contextlib.contextmanager
    def noted(self) -> Iterator[dict[str, str]]:
        """The parameter to send along; the time is now, and forgotten afterwards."""
        key = secrets.token_hex(16)
        self._times[key] = time.monotonic()
        try:
            yield {_PARAMETER: key}
        finally:
            del self._times[key]
            self._taken.discard(key)

    def of(self, parameters: Mapping[str, Any]) -> float | None:
        """When the request with these parameters was accepted; None where it did not come through the front."""
        key = parameters.get(_PARAMETER)
        if not isinstance(key, str) or key not in self._times:
            return None
        self._taken.add(key)
        return self._times.get(key)

    def is_over(self, parameters: Mapping[str, Any]) -> bool:
        """Whether a request that `of` knew is none any more: it was answered, or its client has left."""
        return parameters.get(_PARAMETER) not in self._times

    def is_taken(self, parameters: Mapping[str, str]) -> bool:
        """Whether `of` was asked about it: then Triton has handed the request on."""
        return parameters[_PARAMETER] in self._taken
