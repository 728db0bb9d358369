"""A recipe's module in PyTorch as a peer, eager or compiled: pictures in, whatever its one output is out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from bench.machine import versions
from bench.peers.peer import Clock, host_bytes
from bench.timing import wall_ms

_SETS, _WARM_UP, _WARM_UP_CPU = 3, 20, 2


class RecipePeer:
    """`spec`: `recipe`, as `package.module:factory`; `device`, "cuda" or "cpu"; `precision`; `mode` of torch.compile,
    "" for eager. FP16 and BF16 are by autocast: not every module bears its weights being cast.
    """

    def __init__(self, spec: Mapping[str, Any]):
        self._spec = spec
        self._inputs: list[Any] = []
        self._turn = 0

    def open(self, image: np.ndarray, clock: Clock) -> None:
        """Recipe → device → one picture."""
        import torch

        from export.recipe import load_recipe
        from export.trace import wrapped_module

        clock.lap("import")
        module = wrapped_module(load_recipe(self._spec["recipe"])).to(self._spec["device"]).requires_grad_(False)
        mode = self._spec["mode"]
        self._call = torch.compile(module, mode=mode, dynamic=False) if mode else module
        clock.lap("load")
        self._inputs = [torch.from_numpy(image).to(self._spec["device"])]
        self.run(image)
        clock.lap("first run")

    def prepare(self, batch: int) -> None:
        """Compile for this batch size, and warm up."""
        import torch

        shape = (batch, *self._inputs[0].shape[1:])
        drawn = [np.random.default_rng(seed).integers(0, 256, shape, np.uint8) for seed in range(_SETS)]
        self._inputs = [torch.from_numpy(images).to(self._spec["device"]) for images in drawn]
        self.network(_WARM_UP if self._spec["device"] == "cuda" else _WARM_UP_CPU)

    def network(self, repeats: int) -> list[float]:
        """GPU milliseconds by events; on a CPU the wall's."""
        import torch

        if self._spec["device"] != "cuda":
            return wall_ms(lambda index: self._forward(self._next()), repeats)
        first, second = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        times = []
        for _ in range(repeats):
            first.record()
            self._forward(self._next())
            second.record()
            second.synchronize()
            times.append(first.elapsed_time(second))
        return times

    def run(self, images: np.ndarray) -> np.ndarray:
        """Host memory to host memory."""
        import torch

        answer = self._forward(torch.from_numpy(np.ascontiguousarray(images)).to(self._spec["device"]))
        return np.asarray(answer.cpu().numpy())

    def facts(self) -> dict[str, Any]:
        """Versions, and the memory that torch's allocator took (on a CPU the process's peak)."""
        import torch

        on_gpu = self._spec["device"] == "cuda"
        taken = torch.cuda.max_memory_reserved() if on_gpu else host_bytes()
        return {"versions": versions(("torch", "triton", "numpy")), "device_bytes": int(taken)}

    def layers(self) -> list[dict[str, Any]]:
        """None: a profile of PyTorch is of operators."""
        return []

    def ceilings(self) -> dict[str, Any]:
        """What large products and copies reach here."""
        from bench import ceilings

        on_gpu = self._spec["device"] == "cuda"
        return ceilings.gpu_ceilings(self._spec["precision"]) if on_gpu else ceilings.cpu_ceilings()

    def close(self) -> None:
        """The process ends with it."""
        self._inputs = []

    def _next(self) -> Any:
        self._turn += 1
        return self._inputs[self._turn % len(self._inputs)]

    def _forward(self, images: Any) -> Any:
        import torch

        kind = {"fp16": torch.float16, "bf16": torch.bfloat16}.get(self._spec["precision"])
        with torch.no_grad(), torch.autocast(self._spec["device"], kind, enabled=kind is not None):
            answer = self._call(images)
        answer = answer[0] if isinstance(answer, (tuple, list)) else answer
        return answer.float() if answer.is_floating_point() else answer
