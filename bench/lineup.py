"""Which peers there are for a checkpoint on this machine; those that cannot run are listed with the reason."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.conductor import Entry
from bench.subject import has_fused_layers
from engines.form import choose_form, choose_linear
from runtime.engine_file import engine_manifest
from runtime.errors import InputError, ToolchainError
from runtime.flavors import FLAVORS, Flavor, python_variable
from runtime.gpu import find_gpus, no_gpu_reason
from runtime.manifest import Manifest

# Torch peers on a GPU: name, what it is, attention, mode, whether its start-up is measured alone.
_TORCH = (
    ("torch-naive", "PyTorch eager, attention written out", "naive", "eager", False),
    ("torch-sdpa", "PyTorch eager, scaled_dot_product_attention", "sdpa", "eager", True),
    ("torch-graph", "PyTorch eager in a CUDA graph", "sdpa", "graph", False),
    ("torch-compile", "torch.compile, default", "sdpa", "default", False),
    ("torch-compile-reduce-overhead", "torch.compile, reduce-overhead", "sdpa", "reduce-overhead", False),
    ("torch-compile-max-autotune", "torch.compile, max-autotune", "sdpa", "max-autotune", False),
)
_FORMS = ("decomposed", "native", "plugin", "plugin-linear")


@dataclass(frozen=True)
class Subject:
    """What every peer runs: `onnx` is the neutral file of `precision`, `onnx_cpu` the one for CPUs; None: not exported.

    `engines` is the folder that engines are filed in.
    """

    model: Path
    checkpoint: str
    precision: str
    onnx: Path | None
    onnx_cpu: Path | None
    precision_cpu: str
    engines: Path


def lineup(
    subject: Subject, flavors: Sequence[Flavor], given: Sequence[tuple[str, Path]] = (), only: Sequence[str] = ()
) -> list[Entry]:
    """Every peer. `given` are labelled engines beside those filed; `only` names the peers wanted, none meaning all.

    Without a GPU the torch peers and ONNX Runtime run on the CPU in FP32, which is what they are fastest in there.
    """
    on_gpu = bool(find_gpus())
    entries = [*_torch(subject, on_gpu), *_onnxruntime(subject, on_gpu), *_tensorrt(subject, flavors, given, on_gpu)]
    return [entry for entry in entries if not only or entry.name in only]


def filed_engines(subject: Subject) -> dict[str, list[tuple[Path, Manifest]]]:
    """Engines under `subject.engines` of this checkpoint and precision, by "flavor form", the newest first.

    With linear layers in kernels of ours, the form is "plugin-linear".

    Damaged ones are passed over: `cat2dog build` says what is wrong with them, and builds them again.
    """
    found: dict[str, list[tuple[Path, Manifest]]] = {}
    for path in sorted(subject.engines.glob("*/*.engine"), key=lambda path: -path.stat().st_mtime_ns):
        try:
            manifest = engine_manifest(path)
        except ToolchainError:
            continue
        key = manifest.key
        if (key.checkpoint, key.precision) == (subject.checkpoint, subject.precision):
            linear = "-linear" if has_fused_layers(manifest) else ""
            found.setdefault(f"{key.flavor} {key.attention}{linear}", []).append((path, manifest))
    return found


def _torch(subject: Subject, on_gpu: bool) -> Iterator[Entry]:
    precision = subject.precision if on_gpu else "fp32"
    for name, about, attention, mode, alone in _TORCH:
        spec: dict[str, Any] | None = {
            "kind": "torch",
            "model": str(subject.model),
            "device": "cuda" if on_gpu else "cpu",
            "precision": precision,
            "attention": attention,
            "mode": mode,
        }
        reason = ""
        if importlib.util.find_spec("torch") is None:
            reason = "torch is not installed: pip install 'cat2dog[torch]'"
        elif not on_gpu and mode in ("graph", "reduce-overhead"):
            reason = f"CUDA graphs need a GPU: {no_gpu_reason()}"
        elif on_gpu and not _torch_sees_gpu():
            reason = "this torch is built for CPUs only"
        device = "gpu" if on_gpu else "cpu"
        spec = None if reason else spec
        # Once: importing torch and moving weights takes long, and is not what is being made fast here.
        yield Entry(name, about, device, precision, sys.executable, spec, reason, alone, startups=1)


def _torch_sees_gpu() -> bool:
    import torch

    return bool(torch.backends.cuda.is_built())


def _onnxruntime(subject: Subject, on_gpu: bool) -> Iterator[Entry]:
    for provider in ("cpu", "cuda"):
        precision = subject.precision if provider == "cuda" else subject.precision_cpu
        onnx = subject.onnx if provider == "cuda" else subject.onnx_cpu
        reason = _onnxruntime_obstacle(provider, onnx, on_gpu)
        spec = None if reason else {"kind": "onnxruntime", "onnx": str(onnx), "provider": provider}
        about = f"ONNX Runtime, {provider.upper()} provider"
        device = "gpu" if provider == "cuda" else "cpu"
        # Beside GPUs a CPU needs seconds a batch: one image says enough.
        most = 1 if on_gpu and provider == "cpu" else None
        name = f"onnxruntime-{provider}"
        yield Entry(name, about, device, precision, sys.executable, spec, reason, most_batch=most)


def _onnxruntime_obstacle(provider: str, onnx: Path | None, on_gpu: bool) -> str:
    if importlib.util.find_spec("onnxruntime") is None:
        return "onnxruntime is not installed"
    if provider == "cuda":
        if not on_gpu:
            return no_gpu_reason()
        import onnxruntime

        if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
            return "this ONNX Runtime has no CUDA provider (the package onnxruntime-gpu has it)"
    return "" if onnx is not None else "no ONNX file was exported for it"


def _tensorrt(
    subject: Subject, flavors: Sequence[Flavor], given: Sequence[tuple[str, Path]], on_gpu: bool
) -> Iterator[Entry]:
    by_name = {flavor.name: flavor for flavor in flavors}
    filed = filed_engines(subject)
    for name in FLAVORS:
        flavor = by_name.get(name)
        for form in _FORMS:
            engines = filed.get(f"{name} {form}", [])
            if flavor is None or (flavor.version is None and not engines):
                continue
            yield _engine_entry(f"{name}-{form}", subject, flavor, engines, on_gpu, form)
    for label, path in given:
        manifest = engine_manifest(path)
        yield _engine_entry(label, subject, by_name.get(manifest.key.flavor), [(path, manifest)], on_gpu)


def _engine_entry(
    name: str,
    subject: Subject,
    flavor: Flavor | None,
    engines: Sequence[tuple[Path, Manifest]],
    on_gpu: bool,
    form: str = "",
) -> Entry:
    from bench.peers.tensorrt_peer import engine_facts

    extra: Mapping[str, Any] = {}
    about = f"TensorRT, {form} attention"
    if engines:
        key = engines[0][1].key
        linear = ", fused linear layers" if has_fused_layers(engines[0][1]) else ""
        about = f"{key.flavor} {key.flavor_version}, {key.attention} attention{linear}"
        extra = {"engine": engine_facts(engines[0][1])}
    reason = ""
    if not engines:
        reason = _unbuilt(subject, flavor, form)
    elif not on_gpu:
        reason = no_gpu_reason()
    elif flavor is None or not flavor.can_run:
        reason = flavor.reason if flavor else "its flavor is unknown here"
    python = (os.environ.get(python_variable(flavor.name)) if flavor else None) or sys.executable
    spec = None if reason else {"kind": "tensorrt", "engines": [str(path) for path, _ in engines]}
    return Entry(name, about, "gpu", subject.precision, python, spec, reason, extra=dict(extra))


def _unbuilt(subject: Subject, flavor: Flavor | None, form: str) -> str:
    """Why there is no engine of this form: it cannot be, or nobody built it."""
    assert flavor is not None
    gpus = find_gpus()
    attention, _, linear = form.partition("-")
    try:
        choose_form(attention, flavor, subject.precision, gpus[0] if gpus else None)
        if linear:
            choose_linear("plugin", flavor, subject.precision, gpus[0] if gpus else None)
    except InputError as obstacle:
        return str(obstacle)
    words = f"--model {subject.model} --precision {subject.precision} --attention {attention} --flavor {flavor.name}"
    return f"no engine is filed: cat2dog build {words}{' --linear plugin' if linear else ''}"
