"""CUDA graphs around a network of fixed batch: one launch for inference, one for a training step."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from runtime.errors import InputError, ToolchainError

# PyTorch's advice: before a capture, run on a side stream, so that libraries have chosen and allocated.
_WARM_UP = 3


class InferenceGraph:
    """`network` captured for images like `image`, which are copied in; the answer is overwritten by the next call.

    Weights are read where they were when it was captured: change them in place. Raises ToolchainError without a GPU.
    """

    def __init__(self, network: Callable[[Tensor], Tensor], image: Tensor):
        self.image = _on_gpu(image).clone(memory_format=torch.preserve_format)

        def work() -> None:
            self.answer = network(self.image)

        with torch.no_grad():
            self._graph = _captured(work)

    def __call__(self, image: Tensor) -> Tensor:
        """Raises InputError for images of another shape or type."""
        _fill(self.image, image)
        self._graph.replay()
        return self.answer

    def replay(self) -> None:
        """Again with the images that are there."""
        self._graph.replay()


class TrainingGraph:
    """A training step captured: forward, backward from a given gradient of the features, and `optimizer`'s step if any.

    Gradients are in the parameters' `grad`, at the same addresses each time; every step sets them anew. An optimizer
    must be capturable (`capturable=True`, where it has state on the host). Raises ToolchainError without a GPU.
    """

    def __init__(
        self, network: nn.Module, image: Tensor, gradient: Tensor, optimizer: torch.optim.Optimizer | None = None
    ):
        self.image, self.gradient = _on_gpu(image).clone(), _on_gpu(gradient).clone()
        self.answer = torch.empty(0)

        def work() -> None:
            self.answer = network(self.image)
            self.answer.backward(self.gradient)
            if optimizer is not None:
                optimizer.step()

        def work_anew() -> None:
            network.zero_grad(set_to_none=True)
            work()

        before = [parameter.detach().clone() for parameter in network.parameters()] if optimizer else []
        self._graph = _captured(work_anew)
        with torch.no_grad():  # what warming up learnt is not what the caller wanted
            for parameter, value in zip(network.parameters(), before, strict=bool(before)):
                parameter.copy_(value)

    def __call__(self, image: Tensor, gradient: Tensor) -> Tensor:
        """The features of `image`. Raises InputError for tensors of other shapes or types."""
        _fill(self.image, image)
        _fill(self.gradient, gradient)
        self._graph.replay()
        return self.answer

    def replay(self) -> None:
        """Again with what is there."""
        self._graph.replay()


def _captured(work: Callable[[], None]) -> torch.cuda.CUDAGraph:
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(_WARM_UP):
            work()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    return graph


def _on_gpu(x: Tensor) -> Tensor:
    if not x.is_cuda:
        raise ToolchainError(
            f"a CUDA graph needs its tensors on a GPU, not on {x.device}; without one, call the network"
        )
    return x


def _fill(target: Tensor, source: Tensor) -> None:
    if target.shape != source.shape or target.dtype != source.dtype:
        raise InputError(
            f"the graph was captured for {target.dtype} {list(target.shape)}, not {source.dtype} {list(source.shape)}"
        )
    target.copy_(source)
