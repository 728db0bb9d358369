"""`config.pbtxt` of a network and of the models around it, from what the engines' manifests say."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtime.errors import InputError
from runtime.images import Limits
from runtime.manifest import EngineTensor, Manifest
from serving.pbtxt import Word, entries

_TYPES = {
    **{f"{sign}int{bits}": f"TYPE_{sign.upper()}INT{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
    **{"float16": "TYPE_FP16", "float32": "TYPE_FP32", "float64": "TYPE_FP64", "bfloat16": "TYPE_BF16"},
    "bool": "TYPE_BOOL",
}
_MOST_GRAPHS = 16


@dataclass(frozen=True)
class Tuning:
    """How Triton runs the models: `instances` of each, how long a batch is waited for, how many requests may wait."""

    instances: int = 2
    gather_ms: float = 0.5
    queue: int = 256
    timeout: float = 10.0
    cuda_graphs: bool = True
    format: str = "png"
    quality: int | None = None

    def __post_init__(self) -> None:
        if not (1 <= self.instances <= 64 and 0 <= self.gather_ms <= 1000 and 1 <= self.queue <= 100_000):
            raise InputError("instances takes 1 to 64, gather 0 to 1000 ms, the queue 1 to 100000 requests")
        if not 0 < self.timeout <= 3600:
            raise InputError(f"timeout {self.timeout:g} s was given; expected more than 0, up to 3600")
        if self.quality is not None and (self.format == "png" or not 1 <= self.quality <= 100):
            raise InputError("quality takes 1 to 100, for jpeg and webp alone")


@dataclass(frozen=True)
class Network:
    """One checkpoint as engines for several compute capabilities ("9.0"), all with the same tensors and batches."""

    name: str
    engines: dict[str, tuple[Path, Manifest]]

    @property
    def manifest(self) -> Manifest:
        """Of any of them: what is asked of it is the same in all."""
        return next(iter(self.engines.values()))[1]

    @property
    def tensors(self) -> tuple[EngineTensor, ...]:
        return self.manifest.tensors

    @property
    def batched(self) -> bool:
        """Whether the first size is a batch that may vary; else Triton is told the whole shape."""
        return all(tensor.shape[:1] == (-1,) for tensor in self.tensors)

    @property
    def most_batch(self) -> int:
        return self.manifest.key.batch[2] if self.batched else 0

    def file_name(self, capability: str) -> str:
        """Of the plan for a compute capability, in the version's folder."""
        return f"model_sm{capability.replace('.', '')}.plan"

    @property
    def resolution(self) -> int | None:
        """Of an image network: one uint8 `[B,R,R,3]` in, and one out; None for any other."""
        ends = [[each for each in self.tensors if each.mode == mode] for mode in ("input", "output")]
        if any(len(end) != 1 for end in ends):
            return None
        (given,), (made,) = ends
        height, width, *rest = [*given.shape[1:], 0, 0]
        alike = given.dtype == made.dtype == "uint8" and given.shape[1:] == made.shape[1:]
        return height if alike and height == width > 0 and rest[:-2] == [3] else None


def network_config(network: Network, tuning: Tuning) -> dict[str, Any]:
    """Of the engine: backend tensorrt, tensors as they are, batches, instances, CUDA graphs, warm-up of every batch."""
    capabilities = sorted(network.engines, key=lambda each: [int(part) for part in each.split(".")])
    inputs = [each for each in network.tensors if each.mode == "input"]
    sizes = list(range(1, network.most_batch + 1)) if network.batched else [0]
    if len(sizes) > _MOST_GRAPHS:
        sizes = sorted({1 << power for power in range(16) if 1 << power < network.most_batch} | {network.most_batch})
    return {
        "name": network.name,
        "backend": "tensorrt",
        "max_batch_size": network.most_batch,
        "input": [_tensor(network, each) for each in inputs],
        "output": [_tensor(network, each) for each in network.tensors if each.mode == "output"],
        "instance_group": [{"count": tuning.instances, "kind": Word("KIND_GPU")}],
        "default_model_filename": network.file_name(capabilities[-1]),
        "cc_model_filenames": entries({each: network.file_name(each) for each in capabilities}),
        "dynamic_batching": _batching(tuning) if network.batched else None,
        "optimization": {
            "input_pinned_memory": {"enable": True},
            "output_pinned_memory": {"enable": True},
            "cuda": {
                "graphs": tuning.cuda_graphs,
                "output_copy_stream": True,
                "graph_spec": [_graph(network, inputs, size) for size in sizes] if tuning.cuda_graphs else [],
            },
        },
        "model_warmup": [_warm_up(network, inputs, size) for size in sizes],
    }


def decode_config(network: Network, tuning: Tuning, limits: Limits) -> dict[str, Any]:
    """Of the Python model before an image network."""
    (pixels,) = [each for each in network.tensors if each.mode == "input"]
    return {
        "name": f"{network.name}_decode",
        "backend": "python",
        "max_batch_size": network.most_batch,
        "input": [{"name": "image", "data_type": Word("TYPE_STRING"), "dims": [1]}],
        "output": [_tensor(network, pixels)],
        "instance_group": [{"count": tuning.instances, "kind": Word("KIND_CPU")}],
        "dynamic_batching": _batching(tuning) if network.batched else None,
        "parameters": _parameters(
            resolution=network.resolution, most_pixels=limits.pixels, most_bytes=limits.file_bytes
        ),
    }


def encode_config(network: Network, tuning: Tuning) -> dict[str, Any]:
    """Of the Python model after an image network."""
    (pixels,) = [each for each in network.tensors if each.mode == "output"]
    quality = {} if tuning.quality is None else {"quality": tuning.quality}
    return {
        "name": f"{network.name}_encode",
        "backend": "python",
        "max_batch_size": network.most_batch,
        "input": [_tensor(network, pixels)],
        "output": [{"name": "dog", "data_type": Word("TYPE_STRING"), "dims": [1]}],
        "instance_group": [{"count": tuning.instances, "kind": Word("KIND_CPU")}],
        "dynamic_batching": _batching(tuning) if network.batched else None,
        "parameters": _parameters(format=tuning.format, **quality),
    }


def picture_config(network: Network) -> dict[str, Any]:
    """Of the ensemble of the three: a picture's bytes in, the dog's bytes out."""
    steps = []
    for suffix, source, target in (
        ("_decode", ("image", "image"), (_name(network, "input"), "pixels")),
        ("", (_name(network, "input"), "pixels"), (_name(network, "output"), "drawn")),
        ("_encode", (_name(network, "output"), "drawn"), ("dog", "dog")),
    ):
        steps.append(
            {
                "model_name": f"{network.name}{suffix}",
                "model_version": -1,
                "input_map": entries(dict([source])),
                "output_map": entries(dict([target])),
            }
        )
    return {
        "name": f"{network.name}_picture",
        "platform": "ensemble",
        "max_batch_size": network.most_batch,
        "input": [{"name": "image", "data_type": Word("TYPE_STRING"), "dims": [1]}],
        "output": [{"name": "dog", "data_type": Word("TYPE_STRING"), "dims": [1]}],
        "ensemble_scheduling": {"step": steps},
    }


def check_name(name: str) -> str:
    """Raises InputError where a checkpoint's name cannot be a model's and a folder's."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,100}", name):
        raise InputError(f"checkpoint '{name[:60]}' cannot name a Triton model: letters, digits, '.', '_' and '-' can")
    return name


def _name(network: Network, mode: str) -> str:
    return next(each.name for each in network.tensors if each.mode == mode)


def _dims(network: Network, tensor: EngineTensor) -> list[int]:
    return list(tensor.shape[1:] if network.batched else tensor.shape)


def _type(tensor: EngineTensor) -> Word:
    if tensor.dtype not in _TYPES:
        raise InputError(f"tensor '{tensor.name}' is of type {tensor.dtype}, which Triton does not have")
    return Word(_TYPES[tensor.dtype])


def _tensor(network: Network, tensor: EngineTensor) -> dict[str, Any]:
    return {"name": tensor.name, "data_type": _type(tensor), "dims": _dims(network, tensor)}


def _batching(tuning: Tuning) -> dict[str, Any]:
    policy = {
        "timeout_action": Word("REJECT"),
        "default_timeout_microseconds": int(tuning.timeout * 1e6),
        "allow_timeout_override": True,
        "max_queue_size": tuning.queue,
    }
    return {"max_queue_delay_microseconds": int(tuning.gather_ms * 1000), "default_queue_policy": policy}


def _graph(network: Network, inputs: Sequence[EngineTensor], size: int) -> dict[str, Any]:
    return {"batch_size": size, "input": entries({each.name: {"dim": _dims(network, each)} for each in inputs})}


def _warm_up(network: Network, inputs: Sequence[EngineTensor], size: int) -> dict[str, Any]:
    given = {
        each.name: {"data_type": _type(each), "dims": _dims(network, each), "random_data": True} for each in inputs
    }
    return {"name": f"batch-{size}", "batch_size": size, "inputs": entries(given)}


def _parameters(**values: Any) -> list[dict[str, Any]]:
    return entries({name: {"string_value": str(value)} for name, value in values.items()})
