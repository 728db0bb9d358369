"""`python -m bench.serving_load`: start `cat2dog serve`, put load on it, write a result file.

Server and clients share the machine, so that its clients' work is part of every number.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.machine import machine, versions
from runtime import files
from runtime.errors import ToolchainError

_PACKAGES = ("nvidia-pytriton", "tritonclient", "onnxruntime", "tensorrt", "numpy", "pillow", "simplejpeg")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure; returns the exit code of the load."""
    parser = argparse.ArgumentParser(prog="python -m bench.serving_load", description="Load on a served checkpoint.")
    parser.add_argument("--model", type=Path, default=Path("models/tiny-128"))
    parser.add_argument("--image", type=Path, default=Path("images/img1.jpg"))
    parser.add_argument("--clients", nargs="*", default=["1", "4", "16", "64"])
    parser.add_argument("--rates", nargs="*", default=["10", "20", "40", "200"])
    parser.add_argument("--seconds", default="8")
    parser.add_argument("--serve", nargs=argparse.REMAINDER, default=[], help="more options of cat2dog serve, last")
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args(arguments)
    from cli.serve_command import serving_python

    python = serving_python()
    words = [sys.executable, "-m", "cli", "serve", "--model", str(args.model), *_any_ports(), *args.serve]
    with subprocess.Popen(words, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as server:
        try:
            events = _until_ready(server)
            rounds = ["--clients", *args.clients, "--rates", *args.rates, "--seconds", args.seconds]
            url = f"127.0.0.1:{events['ready']['grpc']}"
            load = subprocess.run(
                [python, "-m", "serving.load", "--url", url, "--image", str(args.image), *rounds],
                stdout=subprocess.PIPE,
                text=True,
            )
            if server.poll() is not None:
                raise ToolchainError(f"the server ended while it was measured, with {server.returncode}: {events}")
        finally:
            server.terminate()
            server.wait(120)  # its log is read to the end meanwhile
    result = {
        **machine(),
        "versions": _versions(python),
        "model": args.model.name,
        "network": events["set-up"].get("network"),
        "note": "clients and server share the machine; the server's log went to a pipe that is read",
        **json.loads(load.stdout),
    }
    files.write_text(args.output, json.dumps(result, indent=2) + "\n")
    for each in result["rounds"]:
        offered = f"{each.get('clients', '')}{each.get('offered_per_second', '')}"
        print(
            f"{each['loop']} {offered}: {each['answered_per_second']}/s, {each['answer_ms']}, {each['refused']} refused"
        )
    return load.returncode


def _any_ports() -> list[str]:
    return [word for door in ("page", "http", "grpc", "metrics") for word in (f"--{door}-port", "0")]


def _until_ready(server: subprocess.Popen[str]) -> dict[str, dict[str, Any]]:
    """The first event of each kind, until the server is ready; its log is read on in a thread, and dropped."""
    events: dict[str, dict[str, Any]] = {}
    assert server.stderr is not None
    for line in server.stderr:
        if line.startswith("{"):
            event = json.loads(line)
            events.setdefault(event["event"], event)
        if "ready" in events:
            threading.Thread(target=_read_on, args=(server, events), daemon=True).start()
            return events
    raise ToolchainError("the server did not start: `cat2dog serve` says why")


def _read_on(server: subprocess.Popen[str], events: dict[str, dict[str, Any]]) -> None:
    """A pipe that is not read would hold the server up. What is not about a request is kept as the last of its kind."""
    for line in server.stderr or ():
        event = json.loads(line) if line.startswith("{") else {"event": "line", "text": line.strip()}
        if event["event"] not in ("request", "response"):
            events[event["event"]] = event


def _versions(python: str) -> dict[str, str]:
    program = f"import json; from bench.machine import versions; print(json.dumps(versions({_PACKAGES!r})))"
    done = subprocess.run([python, "-c", program], capture_output=True, text=True)
    return json.loads(done.stdout) if done.returncode == 0 else versions(_PACKAGES)


if __name__ == "__main__":
    sys.exit(main())
