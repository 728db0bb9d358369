"""`python -m bench.worker`: one peer in a process of its own, which answers commands of the bench over pipes.

One JSON object a line: {"do": "open", …} in, {"ok": …} or {"error": one line} out. Pictures pass as `.npy` files. Runs
under any Python that has the peer's libraries: TensorRT 8.6 lives in 3.10 without torch.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

_WANTED_ROUND_MS = 1000.0


def main() -> int:
    """Serve until stdin ends or "close"."""
    # Libraries print where they like; the answers keep a channel of their own.
    channel = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    server: Server | None = None
    for line in sys.stdin:
        command = json.loads(line)
        try:
            if command["do"] == "open":
                server = Server(command)
            assert server is not None, "the first command is open"
            answer = {"ok": server.answer(command)}
        except BaseException as error:  # noqa: BLE001 (whatever a library raises is this peer's reason, told in one line)
            traceback.print_exc()
            answer = {"error": _one_line(error)}
        channel.write(json.dumps(answer) + "\n")
        if command["do"] == "close":
            break
    return 0


class Server:
    """Owns the peer."""

    def __init__(self, command: dict[str, Any]):
        from bench.peers.peer import Clock, make_peer
        from engines.answer import die_with_parent

        die_with_parent(command["parent"])
        self._clock = Clock(command["started"])
        self._clock.lap("python")
        self._peer = make_peer(command["spec"])
        self._codec: str = command["spec"].get("codec", ".jpg")
        self._images: Any = None
        self._batch = 1

    def answer(self, command: dict[str, Any]) -> Any:
        """What the command asks for."""
        commands: dict[str, Callable[[dict[str, Any]], Any]] = {
            "open": self._open,
            "prepare": self._prepare,
            "network": self._network,
            "host": self._host,
            "picture": self._picture,
            "stream": self._stream,
            "run": self._run,
            "facts": lambda _: {"python": platform.python_version(), **self._peer.facts()},
            "layers": lambda _: self._peer.layers(),
            "ceilings": lambda _: self._peer.ceilings(),
            "close": lambda _: self._peer.close(),
        }
        return commands[command["do"]](command)

    def _open(self, command: dict[str, Any]) -> dict[str, float]:
        import numpy as np

        self._images = np.load(command["images"])
        self._peer.open(self._images[:1], self._clock)
        return self._clock.seconds

    def _prepare(self, command: dict[str, Any]) -> None:
        self._batch = command["batch"]
        self._peer.prepare(self._batch)

    def _network(self, command: dict[str, Any]) -> list[float]:
        return _for(command["ms"], self._peer.network)

    def _host(self, command: dict[str, Any]) -> list[float]:
        import numpy as np

        from bench.timing import wall_ms

        count = len(self._images)
        sets = [np.stack([self._images[(first + i) % count] for i in range(self._batch)]) for first in range(3)]
        return _for(command["ms"], lambda repeats: wall_ms(lambda i: self._peer.run(sets[i % 3]), repeats))

    def _picture(self, command: dict[str, Any]) -> list[float]:
        """JPEG bytes to encoded bytes, one after the other."""
        from bench.timing import wall_ms

        jpegs, codec = self._pictures(command)

        def work(index: int) -> None:
            image = codec.decode(jpegs[index % len(jpegs)])
            codec.encode(self._peer.run(image[None])[0])

        return _for(command["ms"], lambda repeats: wall_ms(work, repeats))

    def _stream(self, command: dict[str, Any]) -> list[float]:
        """The same, many at once: milliseconds a picture, of as many as fill the time but at least three batches."""
        from bench.handoff import in_this_thread
        from runtime.stream import Steps, stream

        jpegs, codec = self._pictures(command)

        def pictures(count: int, run: Callable[[Any], Any]) -> float:
            steps = Steps(codec.decode, run, lambda _, dog: codec.encode(dog), self._batch)
            began = time.perf_counter()
            for outcome in stream([jpegs[index % len(jpegs)] for index in range(count)], steps):
                if outcome.fault:
                    raise outcome.fault
            return (time.perf_counter() - began) * 1000 / count

        def ms_a_picture(count: int) -> float:
            # PyTorch keeps what it compiled, and whether it records gradients, for each thread.
            return in_this_thread(self._run_whole, lambda run: pictures(count, run))

        least = 3 * self._batch
        first = ms_a_picture(least)
        wanted = min(int(command["ms"] / first), 2000) // self._batch * self._batch
        return [ms_a_picture(wanted)] if wanted > least else [first]

    def _run_whole(self, images: Any) -> Any:
        assert len(images) == self._batch  # streams are cut to whole batches
        return self._peer.run(images).copy()

    def _pictures(self, command: dict[str, Any]) -> tuple[list[bytes], Any]:
        from bench.codec_paths import codec_path

        return [Path(path).read_bytes() for path in command["jpegs"]], codec_path(self._codec, self._images.shape[1])

    def _run(self, command: dict[str, Any]) -> None:
        """Every image alone, at batch 1, into a file."""
        import numpy as np

        if self._batch != 1:
            self._peer.prepare(1)
        # Copied: a peer may answer in the same array each time.
        answers = [self._peer.run(self._images[i : i + 1]).copy() for i in range(len(self._images))]
        np.save(command["into"], np.concatenate(answers))
        if self._batch != 1:
            self._peer.prepare(self._batch)


def _for(milliseconds: float, times: Callable[[int], list[float]]) -> list[float]:
    """As many repeats as fill so many milliseconds, but no fewer than 2; where one takes a second, that one alone.

    The first ones are not counted: clocks sink while another peer, on another device, has its turn.
    """
    first = times(1)
    if first[0] >= _WANTED_ROUND_MS:
        return first
    fitting = int(milliseconds / max(first[0], 1e-3))
    times(min(fitting // 6, 300))
    return times(min(max(2, fitting), 2000))


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split()) or "no message"
    kind = type(error).__name__
    # The toolchain's own errors speak for themselves.
    own = type(error).__module__.startswith("runtime")
    return text[:400] if own else f"{kind}: {text[:400]}"


if __name__ == "__main__":
    sys.exit(main())
