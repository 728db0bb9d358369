"""Ways to run the network in PyTorch, each ready to be timed at one batch size after the other."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from zoo.convnext.fused import fused
from zoo.convnext.model import ConvNeXt
from zoo.convnext.recipe import Classifier

_SETS, _WARM_UP, _WARM_UP_CPU = 3, 10, 1


@dataclass(frozen=True)
class Form:
    """How the network is run. `mode` is torch.compile's, "" for eager; `graph` captures it in a CUDA graph.

    `activation` replaces the network's own: another network, which is timed and not judged.
    """

    name: str
    about: str
    half: bool = False
    mode: str = ""
    channels_last: bool = False
    fused: bool = False
    graph: bool = False
    activation: str = ""

    @property
    def precision(self) -> str:
        """As results have it."""
        return "fp16" if self.half else "fp32"


FORMS = (
    Form("eager-fp32", "PyTorch as it is"),
    Form("eager-fp16", "weights and activations FP16", half=True),
    Form("eager-fp16-channels-last", "the same, channels last", half=True, channels_last=True),
    Form("graph-fp16", "eager FP16 in a CUDA graph", half=True, graph=True),
    Form("fused-fp16", "blocks of our operators, in a CUDA graph", half=True, graph=True, fused=True),
    Form("compile-fp32", "torch.compile", mode="default"),
    Form("compile-fp32-relu", "torch.compile, ReLU in place of GELU", mode="default", activation="relu"),
    Form("compile-fp16", "torch.compile with CUDA graphs, FP16", half=True, mode="reduce-overhead"),
    Form("compile-fp16-channels-last", "channels last, too", half=True, mode="reduce-overhead", channels_last=True),
    Form("compile-fp16-relu", "the same with ReLU", half=True, mode="reduce-overhead", activation="relu"),
    Form("max-autotune-fp16", "torch.compile, max-autotune", half=True, mode="max-autotune"),
)  # fmt: skip


def obstacle(form: Form, device: str) -> str:
    """Why a form cannot run there, "" where it can."""
    if device == "cuda":
        return ""
    if form.graph or form.mode in ("reduce-overhead", "max-autotune"):
        return "CUDA graphs need a GPU"
    return "PyTorch's half precision is for GPUs: on a CPU it runs in software" if form.half else ""


class TorchRow:
    """One form of `network` on `device`. Input and output stay there; the pixels' way in is part of what is timed."""

    def __init__(self, form: Form, network: ConvNeXt, device: str):
        self.form, self.device = form, device
        if form.activation:
            other = ConvNeXt(replace(network.config, activation=form.activation))
            other.load_state_dict(network.state_dict())
            network = other
        model = copy.deepcopy(network).eval().requires_grad_(False)
        model = (fused(model) if form.fused else model).to(device)
        self._model: nn.Module = _Rounded(Classifier(model), form).to(device)
        if form.channels_last:
            self._model = self._model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._side = network.config.resolution
        self._call: Callable[[Tensor], Tensor] = (
            torch.compile(self._model, mode=form.mode, dynamic=False) if form.mode else self._model
        )
        self._inputs: list[Tensor] = []
        self._graphs: list[torch.cuda.CUDAGraph] = []
        self._turn = 0

    def prepare(self, batch: int) -> None:
        """Compile or capture for this batch size, and warm up."""
        shape = (batch, self._side, self._side, 3)
        drawn = [np.random.default_rng(seed).integers(0, 256, shape, np.uint8) for seed in range(_SETS)]
        self._graphs = []
        self._inputs = [torch.from_numpy(images).to(self.device) for images in drawn]
        if self.form.graph:
            self._graphs = [self._captured(images) for images in self._inputs]
        self.times(_WARM_UP if self.device == "cuda" else _WARM_UP_CPU)

    def times(self, repeats: int) -> list[float]:
        """Milliseconds of each of so many runs: between events on a GPU, by the clock on a CPU."""
        from bench.timing import wall_ms

        if self.device != "cuda":
            return wall_ms(lambda index: self._run(), repeats)
        first, second = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        times = []
        for _ in range(repeats):
            first.record()
            self._run()
            second.record()
            second.synchronize()
            times.append(first.elapsed_time(second))
        return times

    def answers(self, images: np.ndarray, batch: int) -> np.ndarray:
        """Logits, float32 `[N,classes]`, of uint8 `[N,R,R,3]`, by the model itself: neither compiled nor captured."""
        parts = []
        with torch.inference_mode():
            for start in range(0, len(images), batch):
                part = torch.from_numpy(images[start : start + batch]).to(self.device)
                parts.append(self._model(part).float().cpu().numpy())
        return np.concatenate(parts)

    def _run(self) -> None:
        turn, self._turn = self._turn % _SETS, self._turn + 1
        if self._graphs:
            self._graphs[turn].replay()
            return
        with torch.no_grad():
            if self.form.mode in ("reduce-overhead", "max-autotune"):
                torch.compiler.cudagraph_mark_step_begin()
            self._call(self._inputs[turn])

    def _captured(self, images: Tensor) -> torch.cuda.CUDAGraph:
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.no_grad(), torch.cuda.stream(stream):
            for _ in range(3):
                self._call(images)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.no_grad(), torch.cuda.graph(graph):
            self._kept = self._call(images)
        return graph


class _Rounded(nn.Module):
    """The classifier with its network in FP16 where asked for; pixels are normalised in FP32 either way."""

    def __init__(self, classifier: Classifier, form: Form):
        super().__init__()
        self.pixels_in, self.network = classifier.pixels_in, classifier.network
        self.kind = torch.float16 if form.half else torch.float32
        self.layout = torch.channels_last if form.channels_last else torch.contiguous_format
        self.network.to(self.kind)

    def forward(self, image: Tensor) -> Tensor:
        """uint8 `[B,R,R,3]` to logits."""
        # Pixels come channels last, and would make convolutions run so where that was not asked for.
        return self.network(self.pixels_in(image).to(self.kind).contiguous(memory_format=self.layout))
