"""Builder settings, one place for every flavor and version. Runs in the build process: knows TensorRT, nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engines.timing_cache import read_timing_cache
from runtime.errors import InputError

_MIB = 1 << 20


def major(trt: Any) -> int:
    """Major version of a flavor's module; TensorRT-RTX 1.x counts as 10, whose API it has."""
    number = int(str(trt.__version__).split(".")[0])
    return max(number, 10) if hasattr(trt, "__name__") and "rtx" in trt.__name__ else number


def create_network(trt: Any, builder: Any) -> Any:
    """An empty network. Types are those of the graph: strongly typed from 10 on (always so from 11)."""
    flags = trt.NetworkDefinitionCreationFlag
    if major(trt) < 10:
        return builder.create_network(1 << int(flags.EXPLICIT_BATCH))
    # 11 is strongly typed without being asked; the flag stays for 10 and TensorRT-RTX.
    strong = getattr(flags, "STRONGLY_TYPED", None)
    return builder.create_network(0 if strong is None else 1 << int(strong))


def configure(
    trt: Any, builder: Any, network: Any, request: Mapping[str, Any], monitor: Any, hold: str = "graph"
) -> Any:
    """A builder configuration for `request`; `hold` is one of `precision_holds`.

    Raises InputError for what the flavor cannot do.
    """
    config = builder.create_builder_config()
    options = request["options"]
    if options.get("workspace_mib") is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, int(options["workspace_mib"]) * _MIB)
    if options.get("optimization_level") is not None:
        config.builder_optimization_level = int(options["optimization_level"])
    if options.get("refit"):
        config.set_flag(trt.BuilderFlag.REFIT)
    # The inspector needs this to say which kernel and precision each layer got.
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    if monitor is not None and hasattr(config, "progress_monitor"):
        config.progress_monitor = monitor
    if major(trt) < 10:
        _precision_flags(trt, network, config, request, hold)
    _profile(trt, builder, network, config, request["profile"])
    _targets(trt, config, request["targets"])
    _timing_cache(config, request["timing_cache"])
    return config


def precision_holds(trt: Any, request: Mapping[str, Any]) -> tuple[str, ...]:
    """How layers are held to their precisions, in the order to try: values of `hold` of `configure`.

    Only TensorRT 8.6 in FP16 has a choice. `graph`: each layer that computes is held to its type in the graph. Where
    8.6 finds no implementation of that (seen on an H200 around layer norms and shuffles that were held, too), `free`
    lets it choose FP16 or FP32 for every layer, islands of the policy or not, and the gate judges what comes of it; and
    `fp32` holds every layer to FP32, which it did build there: right, and slow.
    """
    return ("graph", "free", "fp32") if major(trt) < 10 and request["precision"] == "fp16" else ("graph",)


def _precision_flags(trt: Any, network: Any, config: Any, request: Mapping[str, Any], hold: str) -> None:
    """TensorRT 8.6 knows precisions as wishes: allow FP16, then hold layers to the types that `hold` says."""
    if request["precision"] == "bf16":
        raise InputError(f"TensorRT {trt.__version__} has no BF16: use --precision fp16, or TensorRT 10 or newer")
    # cuBLAS and cuDNN are not in the wheel; asked for, they fail to load.
    sources = (trt.TacticSource.JIT_CONVOLUTIONS, trt.TacticSource.EDGE_MASK_CONVOLUTIONS)
    config.set_tactic_sources(sum(1 << int(source) for source in sources))
    if request["precision"] == "fp32":
        config.clear_flag(trt.BuilderFlag.TF32)
        return
    config.set_flag(trt.BuilderFlag.FP16)
    if hold == "free":
        return
    config.set_flag(trt.BuilderFlag.OBEY_PRECISION_CONSTRAINTS)
    names = {"fp32": trt.DataType.FLOAT, "fp16": trt.DataType.HALF}
    untyped = _left_untyped(trt, hold)
    known: dict[str, Any] = {}  # tensor name to type, as far as the graph's own names tell
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        named = names.get(request["layer_types"].get(layer.name, ""))
        dtype = named if named is not None else _type_of_inputs(layer, known)
        if hold == "fp32":
            dtype = trt.DataType.FLOAT
        outputs = [layer.get_output(output) for output in range(layer.num_outputs)]
        # The network's own type says FP32 of everything that is not whole numbers.
        if dtype is None or not outputs or outputs[0].dtype not in names.values():
            continue
        known.update({tensor.name: dtype for tensor in outputs})
        if layer.type in untyped:
            continue
        layer.precision = dtype
        for output, tensor in enumerate(outputs):
            if tensor.dtype in names.values():
                layer.set_output_type(output, dtype)


def _left_untyped(trt: Any, hold: str) -> tuple[Any, ...]:
    """Kinds of layers that are held to nothing.

    A plugin says itself which types it takes: held to one, 8.6 finds no format for kernels with FP32 gains or tables.
    Layers that only move data take the type of what they move. A norm computes in FP32 by an attribute of its own.
    """
    kinds = ["CONSTANT", "SHAPE", "CAST", "IDENTITY", "PLUGIN_V2"]
    if hold == "graph":
        kinds += ["SHUFFLE", "SLICE", "CONCATENATION", "GATHER", "NORMALIZATION"]
    return tuple(getattr(trt.LayerType, kind) for kind in kinds)


def _type_of_inputs(layer: Any, known: Mapping[str, Any]) -> Any:
    """For a layer that is no node of the graph (the parser adds shuffles, and calls no norm by its name)."""
    inputs = [layer.get_input(index) for index in range(layer.num_inputs)]
    return next((known[tensor.name] for tensor in inputs if tensor is not None and tensor.name in known), None)


def _profile(trt: Any, builder: Any, network: Any, config: Any, profile: Mapping[str, list[int]]) -> None:
    """One optimisation profile over the batch, for the inputs that are dynamic."""
    least, tuned, most = profile["batch"]
    dynamic = [network.get_input(index) for index in range(network.num_inputs)]
    dynamic = [tensor for tensor in dynamic if -1 in tuple(tensor.shape)]
    if not dynamic:
        return
    shapes = builder.create_optimization_profile()
    for tensor in dynamic:
        sizes = [tuple(batch if size == -1 else size for size in tensor.shape) for batch in (least, tuned, most)]
        shapes.set_shape(tensor.name, *sizes)
    config.add_optimization_profile(shapes)
    # Each batch size is run in a context of its own; before TensorRT 10, which always allows it, contexts share a
    # profile only where the engine was built for that.
    if major(trt) < 10:
        config.set_preview_feature(trt.PreviewFeature.PROFILE_SHARING_0806, True)


def _targets(trt: Any, config: Any, targets: list[str]) -> None:
    if not targets:
        return
    if not hasattr(config, "set_compute_capability"):
        raise InputError(f"TensorRT {trt.__version__} builds only for the GPU it runs on; leave out --targets")
    config.num_compute_capabilities = len(targets)
    for index, target in enumerate(targets):
        name = f"SM{target.replace('.', '')}"
        capability = getattr(trt.ComputeCapability, name, None)
        if capability is None:
            known = ", ".join(n[2:-1] + "." + n[-1] for n in dir(trt.ComputeCapability) if n.startswith("SM"))
            raise InputError(
                f"TensorRT {trt.__version__} does not build for compute capability {target}; it knows {known}"
            )
        config.set_compute_capability(capability, index)


def _timing_cache(config: Any, path: str | None) -> None:
    if not path:
        return
    cache = config.create_timing_cache(read_timing_cache(path))
    # A foreign cache is refused by TensorRT itself: measure afresh, which costs time and no correctness.
    if cache is None or not config.set_timing_cache(cache, False):
        config.set_timing_cache(config.create_timing_cache(b""), False)
