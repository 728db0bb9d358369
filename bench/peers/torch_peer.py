"""PyTorch as a peer: eager, captured in a CUDA graph, or compiled."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.machine import versions
from bench.peers.peer import Clock, host_bytes
from bench.timing import wall_ms
from runtime.errors import ToolchainError

if TYPE_CHECKING:
    import torch

    from cat2dog.model import Cat2Dog

MODES = ("eager", "graph", "default", "reduce-overhead", "max-autotune")
_SETS, _WARM_UP, _WARM_UP_CPU = 3, 20, 2
_HALF_RANGE = 127.5


class TorchPeer:
    """`spec`: `model`, a checkpoint folder; `device`, "cuda" or "cpu"; `precision`; `attention`, "naive" or "sdpa";
    `mode`, one of MODES; `io`, "uint8", or "float": normalised by numpy before, clamped and rounded by numpy after.

    Weights and activations are in `precision`, norms' sums in FP32 as the model itself has them.
    """

    def __init__(self, spec: Mapping[str, Any]):
        if spec["mode"] not in MODES:
            raise ValueError(f"mode {spec['mode']!r} is not one of {', '.join(MODES)}")
        self._spec = spec
        self._on_gpu = spec["device"] == "cuda"
        self._float = spec.get("io", "uint8") == "float"
        self._call: Callable[[torch.Tensor], torch.Tensor] | None = None
        self._inputs: list[torch.Tensor] = []
        self._graphs: list[tuple[Any, torch.Tensor]] = []
        self._turn = 0

    def open(self, image: np.ndarray, clock: Clock) -> None:
        """Checkpoint → device → one image; then its graph, or the second call of what was compiled."""
        import torch

        from cat2dog.checkpoint import load

        clock.lap("import")
        if self._on_gpu:
            torch.cuda.init()
            clock.lap("CUDA")
        dtype = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[self._spec["precision"]]
        # No gradients, by the model and not by the process, which other code may share.
        model = load(self._spec["model"]).to(self._spec["device"], dtype).requires_grad_(False)
        clock.lap("load")
        self._call = self._forward(model, dtype)
        self._prepare(image)
        self.run(image)
        clock.lap("first run")
        if self._spec["mode"] not in ("eager", "default"):
            self._capture()
            self.run(image)
            clock.lap("graph")

    def prepare(self, batch: int) -> None:
        """Compile or capture for this batch size, and warm up."""
        side = self._side
        images = [
            np.random.default_rng(seed).integers(0, 256, (batch, side, side, 3), np.uint8) for seed in range(_SETS)
        ]
        self._prepare(*images)
        self._capture()
        self.network(_WARM_UP if self._on_gpu else _WARM_UP_CPU)
        for image in images:
            self.run(image)

    def network(self, repeats: int) -> list[float]:
        """GPU milliseconds by events, each run waited for; on a CPU the wall's."""
        if not self._on_gpu:
            times = wall_ms(lambda index: self._replay(self._turn + index), repeats)
            self._turn += repeats
            return times
        import torch

        first, second = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        times = []
        for _ in range(repeats):
            first.record()
            self._replay(self._turn)
            second.record()
            second.synchronize()
            times.append(first.elapsed_time(second))
            self._turn += 1
        return times

    def run(self, images: np.ndarray) -> np.ndarray:
        """Through pinned memory; with float I/O from pageable memory, as research code does."""
        import torch

        assert self._call is not None
        if self._float:
            floats = torch.from_numpy(_normalised(images)).to(self._spec["device"])
            return _denormalised(self._call(floats).float().cpu().numpy())
        # By a buffer also on a CPU: strides of a foreign array may differ where a size is 1, which compiles anew.
        into, out = self._staging
        into.numpy()[...] = images
        if not self._on_gpu:
            return self._call(into).numpy()
        if self._graphs:
            self._inputs[0].copy_(into, non_blocking=True)
        else:
            self._inputs[0] = into.to("cuda", non_blocking=True)
        out.copy_(self._replay(0), non_blocking=True)
        torch.cuda.current_stream().synchronize()
        return out.numpy()

    def facts(self) -> dict[str, Any]:
        """Versions, and the memory that torch's allocator took (on a CPU the process's peak)."""
        import torch

        taken = torch.cuda.max_memory_reserved() if self._on_gpu else host_bytes()
        return {"versions": versions(("torch", "triton", "numpy")), "device_bytes": int(taken)}

    def layers(self) -> list[dict[str, Any]]:
        """None: a profile of PyTorch is of operators, not of the network's layers."""
        return []

    def ceilings(self) -> dict[str, Any]:
        """What large products and copies reach here."""
        from bench import ceilings

        return ceilings.gpu_ceilings(self._spec["precision"]) if self._on_gpu else ceilings.cpu_ceilings()

    def close(self) -> None:
        """The process ends with it."""
        self._graphs, self._inputs = [], []

    def _forward(self, model: Cat2Dog, dtype: torch.dtype) -> Callable[[torch.Tensor], torch.Tensor]:
        import torch

        from cat2dog.pixels import denormalise, normalise

        attend = _naive if self._spec["attention"] == "naive" else None
        self._side: int = model.config.resolution

        def uint8(images: torch.Tensor) -> torch.Tensor:
            return denormalise(model(normalise(images, dtype), attend))

        def floats(images: torch.Tensor) -> torch.Tensor:
            return model(images.to(dtype), attend)

        forward = floats if self._float else uint8
        if self._spec["mode"] in ("eager", "graph"):
            return forward
        return torch.compile(forward, mode=self._spec["mode"], dynamic=False)

    def _prepare(self, *images: np.ndarray) -> None:
        """These images on the device; a graph of another batch size is let go."""
        import torch

        self._graphs = []
        arrays = [_normalised(image) if self._float else image for image in images]
        self._inputs = [torch.from_numpy(array).to(self._spec["device"]) for array in arrays]
        into, out = (torch.empty(images[0].shape, dtype=torch.uint8, pin_memory=self._on_gpu) for _ in range(2))
        self._staging = (into, out)

    def _capture(self) -> None:
        """A graph for each set of inputs, in one pool of memory."""
        if self._spec["mode"] != "graph":
            return
        import torch

        assert self._call is not None
        if not self._on_gpu:
            raise ToolchainError("CUDA graphs need a GPU")
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                self._call(self._inputs[0])
        torch.cuda.current_stream().wait_stream(stream)
        pool = torch.cuda.graph_pool_handle()
        for images in self._inputs:
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=pool):
                answer = self._call(images)
            self._graphs.append((graph, answer))

    def _replay(self, turn: int) -> torch.Tensor:
        """One run over one set of inputs; its answer stays on the device."""
        if self._graphs:
            graph, answer = self._graphs[turn % len(self._graphs)]
            graph.replay()
            return answer
        assert self._call is not None
        if self._on_gpu and self._spec["mode"] in ("reduce-overhead", "max-autotune"):
            import torch

            torch.compiler.cudagraph_mark_step_begin()
        return self._call(self._inputs[turn % len(self._inputs)])


def _naive(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """softmax(QK^T / sqrt(d)) V, each step a kernel and the N x N matrix in memory: what research code writes."""
    scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
    return scores.softmax(dim=-1) @ v


def _normalised(images: np.ndarray) -> np.ndarray:
    """uint8 `[B,R,R,3]` to float32 `[B,3,R,R]` in -1..1."""
    return np.ascontiguousarray((images.astype(np.float32) / _HALF_RANGE - 1).transpose(0, 3, 1, 2))


def _denormalised(images: np.ndarray) -> np.ndarray:
    """float32 `[B,3,R,R]` in -1..1 to uint8 `[B,R,R,3]`."""
    pixels = np.rint((np.clip(images, -1, 1) + 1) * _HALF_RANGE).astype(np.uint8)
    return np.ascontiguousarray(pixels.transpose(0, 2, 3, 1))
