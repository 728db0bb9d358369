"""Triton Python model: uint8 pixels, as the network beside it gives them → the bytes of a picture's file.

Copied into a model repository by `cat2dog triton-repo`, with `runtime/` beside it.
"""

from __future__ import annotations

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb_utils

sys.path.insert(0, str(Path(__file__).resolve().parent))

from runtime.images import encode_image
from runtime.stream import default_workers


class TritonPythonModel:
    """What Triton's Python backend loads."""

    def initialize(self, args):
        """Reads the file's format from the configuration's parameters."""
        config = json.loads(args["model_config"])
        parameters = {name: each["string_value"] for name, each in config["parameters"].items()}
        self._suffix = f".{parameters['format']}"
        self._quality = int(parameters["quality"]) if "quality" in parameters else None
        self._input = config["input"][0]["name"]
        self._batched = config["max_batch_size"] > 0
        self._threads = ThreadPoolExecutor(default_workers())

    def execute(self, requests):
        """One response for each request."""
        return list(self._threads.map(self._response, requests))

    def finalize(self):
        """Let the threads end."""
        self._threads.shutdown()

    def _response(self, request):
        images = pb_utils.get_input_tensor_by_name(request, self._input).as_numpy()
        files = np.empty(len(images), object)  # numpy's own byte strings lose zeros at their end
        files[:] = [encode_image(image, self._suffix, self._quality) for image in images]
        shape = (len(images), 1) if self._batched else (len(images),)
        return pb_utils.InferenceResponse([pb_utils.Tensor("dog", files.reshape(shape))])
