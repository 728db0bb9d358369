"""What a worker process asks of a peer, whatever runs the network."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np


class Clock:
    """Seconds of the stages of a start-up, in order; the first one begins at `started`, the time the process was."""

    def __init__(self, started: float):
        self._last = started
        self.seconds: dict[str, float] = {}

    def lap(self, stage: str) -> None:
        """The stage that ends now."""
        now = time.time()  # another process's clock began it, so it is the wall's
        self.seconds[stage] = self.seconds.get(stage, 0.0) + max(0.0, now - self._last)
        self._last = now


class Peer(Protocol):
    """One way to run a network of uint8 `[B,R,R,3]` in and out. Every error is a ToolchainError of one line."""

    def open(self, image: np.ndarray, clock: Clock) -> None:
        """Import, load, and run one image, uint8 `[1,R,R,3]`, until a second one would run at full speed."""

    def prepare(self, batch: int) -> None:
        """Do all that happens once at this batch size, and warm up."""

    def network(self, repeats: int) -> list[float]:
        """Milliseconds of the network alone at the batch prepared last; input and output stay on its device."""

    def run(self, images: np.ndarray) -> np.ndarray:
        """uint8 `[B,R,R,3]` in and out of host memory, at the batch prepared last."""

    def facts(self) -> dict[str, Any]:
        """`versions`, `device_bytes` taken by now (None: not known), and `engine` where there is one."""

    def layers(self) -> list[dict[str, Any]]:
        """Name and `us` of each layer at the batch prepared last; empty where nothing tells."""

    def ceilings(self) -> dict[str, Any]:
        """`tflops` and `gb_per_s` that the device reaches; empty where this peer cannot tell."""

    def close(self) -> None:
        """Free everything."""


Factory = Callable[[Mapping[str, Any]], Peer]


def make_peer(spec: Mapping[str, Any]) -> Peer:
    """The peer that `spec["kind"]` names; only its own libraries are imported."""
    if spec["kind"] == "torch":
        from bench.peers.torch_peer import TorchPeer

        return TorchPeer(spec)
    if spec["kind"] == "recipe":
        from bench.peers.recipe_peer import RecipePeer

        return RecipePeer(spec)
    if spec["kind"] == "onnxruntime":
        from bench.peers.onnxruntime_peer import OnnxRuntimePeer

        return OnnxRuntimePeer(spec)
    if spec["kind"] == "tensorrt":
        from bench.peers.tensorrt_peer import TensorRTPeer

        return TensorRTPeer(spec)
    raise ValueError(f"no peer is of kind {spec['kind']!r}")


def host_bytes() -> int:
    """Peak memory of this process in bytes."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
