"""A runner in the denoiser's place: an engine or an ONNX file does the denoising, the pipeline does the rest."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch

from runtime.errors import InputError
from runtime.runner import Runner
from zoo.text2image.calls import Call, as_array
from zoo.text2image.parts import denoiser_name, size_of_output


class RunnerDenoiser(torch.nn.Module):
    """Stands where a pipeline has its UNet or transformer, and has of it what pipelines read, but no weights.

    It takes what the replaced one took, and runs `runner` on those tensors that are the runner's inputs. The runner is
    the caller's to close. Raises InputError for a network that is not of this denoiser.
    """

    def __init__(self, runner: Runner, replaced: Any):
        super().__init__()
        self.runner = runner
        self.config = replaced.config
        self.dtype, self.device = replaced.dtype, replaced.device
        self._parameters_of = inspect.signature(replaced.forward)
        self._specs = {spec.name: spec for spec in runner.inputs}
        if len(runner.outputs) != 1:
            raise InputError(f"the network has {len(runner.outputs)} outputs; a denoiser has one")
        unknown = [name for name in self._specs if name not in _leaves(self._parameters_of)]
        if unknown:
            raise InputError(
                f"the network takes '{unknown[0]}', which this pipeline's {type(replaced).__name__} does not"
            )
        # Width and height of pictures in pixels; None for a network that does not say.
        self.picture_size = size_of_output(runner.outputs[0].name)
        if hasattr(replaced, "add_embedding"):  # SDXL's pipeline asks it for its width
            self.add_embedding = replaced.add_embedding

    def forward(self, *arguments: Any, return_dict: bool = True, **named: Any) -> Any:
        call = Call.of(self._parameters_of, arguments, named)
        given = {name: call.tensors[path] for path, name in call.names.items()}
        for name in given:
            if name not in self._specs:
                raise InputError(f"the network takes no '{name}', which the pipeline gives: export the denoiser again")
        feed = {name: as_array(tensor).astype(self._specs[name].dtype, copy=False) for name, tensor in given.items()}
        answer = torch.from_numpy(self._infer(feed)).to(self.device, self.dtype)
        if not return_dict:
            return (answer,)
        from diffusers.models.modeling_outputs import Transformer2DModelOutput

        return Transformer2DModelOutput(sample=answer)

    def cache_context(self, name: str) -> AbstractContextManager[None]:
        """What newer pipelines wrap each call in, for caches between steps; here there are none."""
        return nullcontext()

    def _infer(self, feed: Mapping[str, np.ndarray]) -> np.ndarray:
        """As many samples at once as the network takes: guidance asks for two."""
        batch = len(next(iter(feed.values())))
        _, most = next(iter(self._specs.values())).sizes(0)
        output = self.runner.outputs[0].name
        try:
            answers = [
                self.runner.infer(
                    {name: np.ascontiguousarray(array[start : start + (most or batch)]) for name, array in feed.items()}
                )
                for start in range(0, batch, most or batch)
            ]
        except InputError as error:
            raise InputError(f"{error} (a denoiser is built for one size of pictures)") from error
        return np.concatenate([answer[output] for answer in answers])


def open_denoiser(path: str | Path) -> Runner:
    """The runner of an engine, or of an ONNX file on the CPU. Raises InputError for anything else."""
    path = Path(path)
    if path.suffix == ".engine":
        from runtime.tensorrt_runner import TensorRTRunner

        return TensorRTRunner(path)
    if path.suffix == ".onnx":
        from runtime.onnxruntime_runner import OnnxRuntimeRunner

        return OnnxRuntimeRunner(path)
    raise InputError(f"{path} is neither an engine nor an ONNX file; expected a file ending in .engine or .onnx")


def swap(pipeline: Any, runner: Runner) -> torch.nn.Module:
    """Put `runner` in the denoiser's place, and return what was there. Raises InputError where it does not fit."""
    name = denoiser_name(pipeline)
    replaced = getattr(pipeline, name)
    setattr(pipeline, name, RunnerDenoiser(runner, replaced))
    return replaced


def _leaves(parameters: inspect.Signature) -> set[str]:
    # Names within dictionaries are the pipeline's own: SDXL's added conditions.
    return {*parameters.parameters, "text_embeds", "time_ids", "image_embeds", "resolution", "aspect_ratio"}
