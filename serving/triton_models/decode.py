"""Triton Python model: the bytes of a picture's file → uint8 pixels, as the network beside it takes them.

Copied into a model repository by `cat2dog triton-repo`, with `runtime/` beside it; the pixels are those that
`cat2dog run` reads. A picture that cannot be read is an error of its own request alone.
"""

from __future__ import annotations

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb_utils

sys.path.insert(0, str(Path(__file__).resolve().parent))

from runtime.errors import InputError
from runtime.images import Limits, read_image
from runtime.stream import default_workers


class TritonPythonModel:
    """What Triton's Python backend loads."""

    def initialize(self, args):
        """Reads resolution and limits from the configuration's parameters."""
        config = json.loads(args["model_config"])
        parameters = {name: each["string_value"] for name, each in config["parameters"].items()}
        self._resolution = int(parameters["resolution"])
        self._limits = Limits(pixels=int(parameters["most_pixels"]), file_bytes=int(parameters["most_bytes"]))
        self._output = config["output"][0]["name"]
        self._threads = ThreadPoolExecutor(default_workers())

    def execute(self, requests):
        """One response for each request, whatever is wrong with another."""
        return list(self._threads.map(self._response, requests))

    def finalize(self):
        """Let the threads end."""
        self._threads.shutdown()

    def _response(self, request):
        files = pb_utils.get_input_tensor_by_name(request, "image").as_numpy().reshape(-1)
        try:
            pixels = np.stack([read_image(bytes(file), self._resolution, self._limits) for file in files])
        except InputError as error:
            refusal = pb_utils.TritonError(str(error), pb_utils.TritonError.INVALID_ARG)
            return pb_utils.InferenceResponse(error=refusal)
        return pb_utils.InferenceResponse([pb_utils.Tensor(self._output, pixels)])
