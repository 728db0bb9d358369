"""Runs the accuracy gate on an engine, under the flavor's own Python: `python -m engines.gate_child`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engines.answer import serve
from engines.validation import Validation, gate


def run_gate(request: Mapping[str, Any], progress: Any) -> dict[str, Any]:
    """State and scores of the engine; a score may be infinite, so scores travel as texts."""
    from runtime.tensorrt_runner import TensorRTRunner

    validation = Validation.load(request["validation"])
    with TensorRTRunner(request["engine"], flavor=request["flavor"], lanes=1) as runner:
        progress(phase="running the accuracy gate", step=0, steps=0)
        most = [size for spec in runner.inputs if (size := spec.sizes(0)[1])]
        verdict = gate(runner, validation, min(most, default=1))
    return {"state": verdict.state, "scores": [str(score) for score in verdict.scores]}


if __name__ == "__main__":
    serve(run_gate)
