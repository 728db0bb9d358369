"""The process that runs the gate on an engine, under the flavor's own Python: `python -m engines.gate_child`."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from engines.child import die_with_parent
from engines.validation import Validation, gate
from runtime.errors import ToolchainError


def main() -> None:
    """Serve the one request on stdin and exit: 0 done, 1 failed."""
    die_with_parent()
    channel = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    request = json.loads(sys.stdin.read())
    try:
        answer: dict[str, Any] = {"event": "done", **run(request)}
    except ToolchainError as error:
        answer = {"event": "failed", "text": str(error), "exit_code": error.exit_code}
    channel.write(json.dumps(answer) + "\n")
    sys.exit(0 if answer["event"] == "done" else 1)


def run(request: dict[str, Any]) -> dict[str, Any]:
    """State and scores of the engine; a score may be infinite, so scores travel as texts."""
    from runtime.tensorrt_runner import TensorRTRunner

    validation = Validation.load(request["validation"])
    with TensorRTRunner(request["engine"], flavor=request["flavor"]) as runner:
        most = [spec.sizes(0)[1] for spec in runner.inputs]
        verdict = gate(runner, validation, min(size for size in most if size) if any(most) else 1)
    return {"state": verdict.state, "scores": [str(score) for score in verdict.scores]}


if __name__ == "__main__":
    main()
