"""What part of a network's time each node takes, as ONNX Runtime measures it: a stand-in where there is no GPU."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np

# FP32 takes about twice as long as half precision: twice the bytes for what is bound by memory, and half the rate of
# the tensor cores (TF32) for matrix products. An assumption, and the whole of what an estimate knows about a GPU.
FP32_FACTOR = 2.0
_RUNS = 3
_KERNEL = "_kernel_time"


def time_shares(fp32: Path, feed: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Share of each node, by name, in the time of an FP32 graph; they add up to 1.

    Measured by ONNX Runtime's profiler on this CPU, over three runs of `feed` after one to warm up, with every node on
    its own. `fp32` is a graph that ONNX Runtime runs.
    """
    import onnxruntime

    with tempfile.TemporaryDirectory(prefix="cat2dog-profile-") as folder:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "profile")
        # Fused nodes would carry the names of none of the nodes they come from.
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        session = onnxruntime.InferenceSession(str(fp32), options, providers=["CPUExecutionProvider"])
        for _ in range(_RUNS + 1):
            session.run(None, dict(feed))
        events = json.loads(Path(session.end_profiling()).read_text())
    durations: dict[str, list[float]] = {}
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith(_KERNEL):
            durations.setdefault(event["name"].removesuffix(_KERNEL), []).append(float(event["dur"]))
    spent = {name: sum(times[1:]) for name, times in durations.items()}
    total = sum(spent.values())
    return {name: time / total for name, time in spent.items()}


def relative_time(held: Collection[str], shares: Mapping[str, float]) -> float:
    """Estimated time with the nodes `held` in FP32, relative to none: 1.0 with none, near `FP32_FACTOR` with all.

    What an attention node was lowered to bears names that begin with the node's own.
    """
    share = sum(
        share for name, share in shares.items() if name in held or any(name.startswith(f"{node}.") for node in held)
    )
    return 1.0 + (FP32_FACTOR - 1.0) * share
