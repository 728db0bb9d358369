"""`python -m bench.serving_load`: start `cat2dog serve`, put load on it, write a result file.

    python -m bench.serving_load --model models/tiny-128 --output bench/results/serving/tiny-128_serving_cpu.json
    python -m bench.serving_load --engine FILE.engine --pixels 1 4 8 --shares 0.5 0.9 --output result.json

Files of pictures go in and come out (`--clients`, `--rates`); with `--pixels` batches of pixels, too, held against what
the network does without a server. Server and clients share the machine, so that the clients' work is part of every
number.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.machine import machine, versions
from bench.schema import SCHEMA, write_result
from runtime.errors import ToolchainError

_PACKAGES = ("nvidia-pytriton", "tritonclient", "onnxruntime", "tensorrt", "numpy", "pillow", "simplejpeg")
_METHOD = (
    "clients over Triton's gRPC on the server's own machine, a closed loop asks again when it is answered, an open one "
    "at a rate; times from asking to the whole answer; the server's log goes to a pipe that is read"
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure; 0 where all answers were alike, and pixels as without a server, else 1."""
    parser = argparse.ArgumentParser(prog="python -m bench.serving_load", description="Load on a served network.")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--model", type=Path, default=Path("models/tiny-128"))
    what.add_argument("--engine", type=Path, metavar="FILE.engine")
    parser.add_argument("--image", type=Path, default=Path("images/img1.jpg"))
    parser.add_argument("--clients", nargs="*", default=["1", "4", "16", "64"], help="closed loops of files")
    parser.add_argument("--rates", nargs="*", default=["10", "20", "40", "200"], help="open loops of files")
    parser.add_argument("--pixels", nargs="*", default=[], metavar="CLIENTS", help="closed loops of pixels")
    parser.add_argument(
        "--shares",
        nargs="*",
        type=float,
        default=[],
        help="open loops of pixels: shares of the rate without a server",
    )
    parser.add_argument("--batch", type=int, default=8, help="of --pixels (default: 8)")
    parser.add_argument("--processes", default="1", help="that the clients are shared out over (default: 1)")
    parser.add_argument("--seconds", type=float, default=8, help="of each round (default: 8)")
    parser.add_argument("--serve", nargs=argparse.REMAINDER, default=[], help="more options of cat2dog serve, last")
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args(arguments)
    try:
        result = measured(args)
    except ToolchainError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    write_result(args.output, result)
    for load in result["serving"]["loads"]:
        for each in load["rounds"]:
            print(_line(load["function"], each))
    serving = result["serving"]
    print(*serving["bare"], f"best share: {serving.get('best_share')}, as bare: {serving.get('as_bare')}", sep="\n")
    wrong = any(each["wrong"] for load in result["serving"]["loads"] for each in load["rounds"])
    return 1 if wrong or result["serving"].get("as_bare") is False else 0


def measured(args: argparse.Namespace) -> dict[str, Any]:
    """A result of the bench's schema. Raises ToolchainError where the server does not start, or ends too soon."""
    from cli.serve_command import serving_python

    python = serving_python()
    source = ["--engine", str(args.engine)] if args.engine else ["--model", str(args.model)]
    words = [sys.executable, "-m", "cli", "serve", *source, *_any_ports(), *(["--tensors"] if args.pixels else [])]
    loads, bare = [], []
    if args.pixels and args.engine:  # before the server has the GPU
        bare = _bare(python, args.engine, args.batch)
    with _served([*words, *args.serve]) as events:
        network, url = Path(events["set-up"]["network"]), f"127.0.0.1:{events['ready']['grpc']}"
        common = ["--url", url, "--processes", args.processes, "--seconds", str(args.seconds)]
        if args.pixels:
            best = max((each["pictures_per_second"] for each in bare), default=0.0)
            rates = [f"{share * best / args.batch:.2f}" for share in args.shares if best]
            pixels = ["--pixels", str(events["set-up"]["resolution"]), "--batch", str(args.batch)]
            loads.append(_load(python, [*common, *pixels, "--clients", *args.pixels, "--rates", *rates]))
        if args.clients or args.rates:
            files = ["--image", str(args.image), "--clients", *args.clients, "--rates", *args.rates]
            loads.append(_load(python, [*common, *files]))
    if args.pixels and not args.engine:  # the file is known when it is served
        bare = _bare(python, network, args.batch)
    return {
        "schema": SCHEMA,
        "kind": "serving",
        "complete": True,
        "machine": {**machine(), "versions": _versions(python)},
        "method": _METHOD,
        "serving": {"network": network.name, "bare": bare, **_share(bare, loads), "loads": loads},
    }


def _share(bare: Sequence[Mapping[str, Any]], loads: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    digests = {each["sha256"] for each in bare}
    digests |= {load["sha256"] for load in loads if "pixels" in load}
    closed = [
        each["pictures_per_second"]
        for load in loads
        if "pixels" in load
        for each in load["rounds"]
        if each["loop"] == "closed"
    ]
    if not bare or not closed:
        return {}
    best = max(each["pictures_per_second"] for each in bare)
    return {"best_share": round(max(closed) / best, 4), "as_bare": len(digests) == 1}


def _bare(python: str, network: Path, batch: int) -> list[dict[str, Any]]:
    words = [python, "-m", "bench.serving_bare", "--network", str(network), "--batch", str(batch)]
    return list(_json_of(words))


def _load(python: str, words: Sequence[str]) -> dict[str, Any]:
    return dict(_json_of([python, "-m", "serving.load", *words]))


def _json_of(words: Sequence[str]) -> Any:
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True)
    if not done.stdout.strip():
        raise ToolchainError(f"{' '.join(words[1:4])} ended with {done.returncode} and said nothing")
    return json.loads(done.stdout)


@contextlib.contextmanager
def _served(words: Sequence[str]) -> Iterator[dict[str, dict[str, Any]]]:
    """A server of these words; the first event of each kind so far."""
    with subprocess.Popen(words, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as server:
        try:
            events = _until_ready(server)
            yield events
            if server.poll() is not None:
                raise ToolchainError(f"the server ended while it was measured, with {server.returncode}: {events}")
        finally:
            server.terminate()
            server.wait(120)  # its log is read to the end meanwhile


def _any_ports() -> list[str]:
    return [word for door in ("page", "http", "grpc", "metrics") for word in (f"--{door}-port", "0")]


def _until_ready(server: subprocess.Popen[str]) -> dict[str, dict[str, Any]]:
    """The first event of each kind, until the server is ready; its log is read on in a thread, and dropped."""
    events: dict[str, dict[str, Any]] = {}
    said: list[str] = []
    assert server.stderr is not None
    for line in server.stderr:
        if line.startswith("{"):
            event = json.loads(line)
            events.setdefault(event["event"], event)
            said += [event["text"]] if event["event"] in ("triton", "library") else []
        else:
            said.append(line.strip())
        if "ready" in events:
            threading.Thread(target=_read_on, args=(server,), daemon=True).start()
            return events
    raise ToolchainError(f"the server did not start: {' | '.join(said[-5:]) or 'its log does not say why'}")


def _read_on(server: subprocess.Popen[str]) -> None:
    """A pipe that is not read would hold the server up."""
    for _ in server.stderr or ():
        pass


def _versions(python: str) -> dict[str, str]:
    program = f"import json; from bench.machine import versions; print(json.dumps(versions({_PACKAGES!r})))"
    done = subprocess.run([python, "-c", program], capture_output=True, text=True)
    return json.loads(done.stdout) if done.returncode == 0 else versions(_PACKAGES)


def _line(function: str, each: Mapping[str, Any]) -> str:
    offered = f"{each.get('clients', '')}{each.get('offered_per_second', '')}"
    rate = f"{each['answered_per_second']}/s ({each['pictures_per_second']} pictures)"
    return f"{function} {each['loop']} {offered}: {rate}, {each['answer_ms']}, {each['refused']} refused"


if __name__ == "__main__":
    sys.exit(main())
