"""What is measured beside what: each way to run the network or to train it, made when its turn comes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from zoo.se_resnet9.fast import FastSEResNet9
from zoo.se_resnet9.folded import FORMS, Folded
from zoo.se_resnet9.graphs import InferenceGraph, TrainingGraph
from zoo.se_resnet9.network import SEResNet9

INFERENCE, TRAINING = "inference", "training step"
LEVELS = {INFERENCE: "network", TRAINING: "training step"}
# The goals: how many times as fast as which.
GOALS = {INFERENCE: ("TorchScript fp16", 4.0), TRAINING: ("eager fp16", 2.0)}


class Ready(NamedTuple):
    """What runs once and answers features, and the module whose parameters then have the gradients, if any."""

    run: Callable[[], Tensor]
    module: nn.Module


@dataclass(frozen=True)
class Case:
    """`make(network, image, gradient)` gets a network of its own to change."""

    name: str
    about: str
    precision: str
    make: Callable[[SEResNet9, Tensor, Tensor], Ready]


def cases(what: str, forms: tuple[str, ...] = FORMS) -> list[Case]:
    """Those of INFERENCE or TRAINING, what is compared with first, the slow to prepare last."""
    work = _inference if what == INFERENCE else _training
    shared = [
        Case("eager fp32", "plain module, TF32 off", "fp32", work(_plain)),
        Case("eager fp16", "plain module", "fp16", work(_plain)),
        Case("channels-last fp16", "plain module, weights and images channels-last", "fp16", work(_channels_last)),
        Case("TorchScript fp16", "plain module, traced, frozen for inference", "fp16", work(_scripted)),
        Case("fast fp16", "fast class, launch by launch", "fp16", work(FastSEResNet9.of)),
    ]
    if what == TRAINING:
        graphs = [Case("fast fp16, graph", "fast class in a CUDA graph", "fp16", _training_graph(FastSEResNet9.of))]
    else:
        graphs = [Case("fast fp16, graph", "fast class in a CUDA graph", "fp16", _inference_graph(FastSEResNet9.of))]
        graphs += [
            Case(f"folded {form} fp16, graph", f"folded, form '{form}', in a CUDA graph", "fp16", _folded_graph(form))
            for form in forms
        ]
    compiled = [
        Case("torch.compile fp16", "plain module, compiled, channels-last", "fp16", work(_compiled)),
        Case("torch.compile fp16, graph", "the same with mode reduce-overhead", "fp16", work(_compiled_graph)),
    ]
    return [*shared, *graphs, *compiled]


def _plain(network: SEResNet9) -> nn.Module:
    return network


def _channels_last(network: SEResNet9) -> nn.Module:
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def _scripted(network: SEResNet9) -> Any:
    return network  # made with an image at hand, below


def _compiled(network: SEResNet9) -> Any:
    return torch.compile(_channels_last(network))


def _compiled_graph(network: SEResNet9) -> Any:
    return torch.compile(_channels_last(network), mode="reduce-overhead")


def _inference(arrange: Callable[[SEResNet9], Any]) -> Any:
    def make(network: SEResNet9, image: Tensor, gradient: Tensor) -> Ready:
        image = _laid_out(arrange, image)
        ready = arrange(network.eval())
        if arrange is _scripted:
            with torch.no_grad():
                ready = torch.jit.optimize_for_inference(
                    torch.jit.freeze(torch.jit.trace(network, image, check_trace=False))
                )

        def run() -> Tensor:
            with torch.no_grad():
                return ready(image)

        return Ready(run, network)

    return make


def _training(arrange: Callable[[SEResNet9], Any]) -> Any:
    def make(network: SEResNet9, image: Tensor, gradient: Tensor) -> Ready:
        image = _laid_out(arrange, image)
        ready = (
            torch.jit.trace(network.train(), image, check_trace=False)
            if arrange is _scripted
            else arrange(network.train())
        )
        # What torch.compile and TorchScript make shares its parameters with the plain module.
        module = ready if isinstance(ready, FastSEResNet9) else network

        def run() -> Tensor:
            module.zero_grad(set_to_none=True)
            features = ready(image)
            features.backward(gradient)
            return features

        return Ready(run, module)

    return make


def _laid_out(arrange: Any, image: Tensor) -> Tensor:
    wants = arrange in (_channels_last, _compiled, _compiled_graph)
    return image.contiguous(memory_format=torch.channels_last) if wants else image


def _inference_graph(arrange: Callable[[SEResNet9], Any]) -> Any:
    def make(network: SEResNet9, image: Tensor, gradient: Tensor) -> Ready:
        return _replayed(InferenceGraph(arrange(network.eval()), image), network)

    return make


def _folded_graph(form: str) -> Any:
    def make(network: SEResNet9, image: Tensor, gradient: Tensor) -> Ready:
        return _replayed(InferenceGraph(Folded(network.eval(), len(image), form), image), network)

    return make


def _training_graph(arrange: Callable[[SEResNet9], Any]) -> Any:
    def make(network: SEResNet9, image: Tensor, gradient: Tensor) -> Ready:
        module = arrange(network.train())
        return _replayed(TrainingGraph(module, image, gradient), module)

    return make


def _replayed(graph: InferenceGraph | TrainingGraph, module: nn.Module) -> Ready:
    def run() -> Tensor:
        graph.replay()
        return graph.answer

    return Ready(run, module)
