"""Runs an engine for `engines.elsewhere`, under the flavor's own Python: `python -m engines.runner_child`.

One JSON object a line: the engine first, then files of arrays to run, until stdin ends.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from engines.answer import die_with_parent
from engines.elsewhere import load_arrays, save_arrays
from runtime.errors import ToolchainError


def main() -> int:
    """Answer every request; an engine that cannot be loaded ends it with 1."""
    # Libraries print where they like; the answers keep a channel of their own.
    channel = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)

    def send(**event: Any) -> None:
        channel.write(json.dumps(event) + "\n")

    opening = json.loads(sys.stdin.readline() or "{}")
    if not opening:
        return 1
    die_with_parent(opening["parent"])
    try:
        runner = _open(opening["engine"])
    except ToolchainError as error:
        send(**_failed(error))
        return 1
    with runner:
        send(event="done", inputs=[asdict(spec) for spec in runner.inputs], outputs=list(map(asdict, runner.outputs)))
        for line in sys.stdin:
            try:
                _run(runner, json.loads(line))
            except ToolchainError as error:
                send(**_failed(error))
                continue
            except OSError as error:
                send(**_failed(ToolchainError(f"cannot write {error.filename}: {error.strerror or error}")))
                continue
            send(event="done")
    return 0


def _open(engine: str) -> Any:
    from runtime.tensorrt_runner import TensorRTRunner

    return TensorRTRunner(engine, lanes=1)


def _run(runner: Any, request: Mapping[str, str]) -> None:
    save_arrays(Path(request["got"]), runner.infer(load_arrays(Path(request["given"]), runner.inputs)))


def _failed(error: ToolchainError) -> dict[str, Any]:
    return {"event": "failed", "text": str(error), "exit_code": error.exit_code}


if __name__ == "__main__":
    sys.exit(main())
