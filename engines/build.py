"""ONNX in, engine out: found in the store, or built in a child process, gated and filed."""

from __future__ import annotations

import contextlib
import datetime
import os
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from engines import linear_times
from engines.attention import LoweredNode
from engines.batch import BatchProfile
from engines.form import (
    choose_form,
    choose_linear,
    fallback_form,
    kernels_identity,
    linear_planner_for,
    pixels_planner_for,
    planner_for,
)
from engines.fused_linear import Choice
from engines.kernels.linear_problem import LinearPlanner
from engines.kernels.pixels_problem import PixelsPlanner
from engines.kernels.problem import Planner
from engines.linear_choice import COLD_BYTES, LinearChooser
from engines.lowering import Choose, Lowered, lower
from engines.overflow import check_range, fixed_batch
from engines.pixels_refused import pixels_nodes, refusal_of_pixels
from engines.process import Progress, run_child
from engines.proxy import proxy_gate
from engines.refit import OPTION as REFIT
from engines.refit import structure_sha256
from engines.store import DEFAULT_ROOT, engine_path, find_engine
from engines.validation import Validation
from runtime.errors import AccuracyError, EngineMismatch, InputError, ToolchainError
from runtime.files import exclusive, remove_leftovers, sha256_file, sha256_text
from runtime.flavors import TENSORRT_RTX, Flavor, find_flavor, find_flavors
from runtime.gpu import Gpu, find_gpus
from runtime.hashes import cached_sha256
from runtime.manifest import (
    AttentionChoice,
    Build,
    EngineKey,
    EngineTensor,
    Gate,
    LinearChoice,
    Manifest,
    manifest_path,
    read_manifest,
    write_manifest,
)

# What TensorRT-RTX plans are built for where no GPU says otherwise: A100, RTX 30, RTX 40, RTX 50.
AHEAD_OF_TIME_TARGETS = ("8.0", "8.6", "8.9", "12.0")
# The code that decides what a plan holds; a change in any of these makes a new key.
_DECIDING = (
    *(
        "attention.py",
        "constants.py",
        "graph.py",
        "qkv_split.py",
        "lowering.py",
        "opset.py",
        "configure.py",
        "form.py",
        "layer_types.py",
        "child.py",
        "refit.py",
    ),
    *("fused_attention.py", "fused_node.py", "fused_problem.py"),
    *("fold.py", "fold_layout.py", "fold_norm.py", "fold_rope.py", "new_data.py"),
    *("fused_linear.py", "fused_linear_activation.py", "fused_linear_layers.py", "fused_linear_node.py"),
    *("fused_linear_norm.py", "fused_linear_plan.py", "fused_linear_turning.py", "fused_linear_weights.py"),
    *("fused_pixels.py", "fused_pixels_match.py", "fused_pixels_node.py", "fused_pixels_walk.py"),
    *("linear_choice.py", "linear_units.py", "measure_child.py"),
    *("kernels/launch.py", "kernels/problem.py", "kernels/linear_problem.py", "kernels/sizes.py"),
    "kernels/pixels_problem.py",
)

# And how candidates of linear layers are built and timed: what older ones measured is of other engines.
_TIMING = ("child.py", "configure.py", "layer_types.py", "measure_child.py")


@dataclass(frozen=True)
class BuildRequest:
    """What to build. `validation` is the gate's, needed to build and not to find; `command` builds it again.

    `attention` is one of `engines.attention.FORMS` or `auto`; `linear` one of `engines.form.LINEAR_FORMS`; `flavor` a
    flavor, its name or `auto`; `targets` are compute capabilities to build ahead of time for, none to let the machine
    decide; `refit` makes an engine that takes new weights (`engines.refit`); `judge` is the metric and threshold that a
    filed engine must have been judged by to be taken, None to take any.
    """

    onnx: Path
    checkpoint: str
    precision: str
    validation: Validation | None
    batch: BatchProfile = field(default_factory=lambda: BatchProfile(1, 1, 1))
    attention: str = "auto"
    linear: str = "tensorrt"
    flavor: str | Flavor = "auto"
    targets: tuple[str, ...] = ()
    workspace_mib: int | None = None
    optimization_level: int | None = None
    refit: bool = False
    root: Path = DEFAULT_ROOT
    judge: tuple[str, float] | None = None
    command: str = ""
    verbose: bool = False
    force: bool = False


@dataclass(frozen=True)
class Built:
    """An engine, its manifest, and whether it had to be built."""

    path: Path
    manifest: Manifest
    fresh: bool


def find(request: BuildRequest) -> Built | None:
    """The engine of `request` if it is filed and up to date, judged by size and time stamps.

    Raises InputError for what cannot be built here, AccuracyError for an engine that the gate refused.
    """
    flavor = choose_flavor(request.flavor)
    path = engine_path(request.root, engine_key(request, flavor))
    manifest = _filed(path, flavor, request)
    return Built(path, manifest, fresh=False) if manifest else None


def _filed(path: Path, flavor: Flavor, request: BuildRequest, verify_hash: bool = False) -> Manifest | None:
    """The sound engine at `path` that was judged as asked; raises AccuracyError where that judgement refused it."""
    if request.judge is not None and path.exists():
        with contextlib.suppress(EngineMismatch):  # without a sound manifest it is built again
            gate = read_manifest(path).gate
            if (gate.metric, gate.threshold) != (request.judge[0], float(request.judge[1])):
                return None
    return find_engine(path, flavor, verify_hash=verify_hash)


def build(request: BuildRequest, progress: Progress = lambda phase, fraction: None) -> Built:
    """The engine of `request`: from the store if it is there, else built, gated and filed.

    Two processes asked for one engine build it once. Raises InputError for what cannot be built here, ToolchainError
    when the builder fails (nothing is filed), AccuracyError when the gate refuses the engine.
    """
    flavor = choose_flavor(request.flavor)
    request = replace(request, flavor=flavor)  # asking a flavor what it can costs a process
    try:
        return _found_or_built(request, flavor, progress)
    except OSError as error:
        where = error.filename or request.root
        raise ToolchainError(f"cannot write {where}: {error.strerror or error}; nothing was filed") from error


def _found_or_built(request: BuildRequest, flavor: Flavor, progress: Progress) -> Built:
    if not request.force and (found := find(request)):
        return found
    key = engine_key(request, flavor)
    path = engine_path(request.root, key)
    with exclusive(path, on_wait=lambda lock: progress("waiting for another build of this engine", None)):
        # Another process may have built it meanwhile; what the listing would trust is not enough after a wait.
        if not request.force and (manifest := _filed(path, flavor, request, verify_hash=True)):
            return Built(path, manifest, fresh=False)
        manifest = _build(request, key, path, flavor, progress)
    refuse_failed(path, manifest)
    return Built(path, manifest, fresh=True)


def choose_flavor(name: str | Flavor) -> Flavor:
    """The flavor to build with: the one given or named, or TensorRT where it runs, else TensorRT-RTX.

    Raises InputError, with the way to mend it, where it cannot build here.
    """
    if name != "auto":
        flavor = name if isinstance(name, Flavor) else find_flavor(name)
        if not flavor.can_build:
            raise InputError(f"{flavor.name} cannot build here: {flavor.reason}")
        return flavor
    flavors = find_flavors()
    for flavor in flavors:
        if flavor.can_build:
            return flavor
    raise InputError(
        "no TensorRT here can build: " + "; ".join(f"{flavor.name}: {flavor.reason}" for flavor in flavors)
    )


def engine_key(request: BuildRequest, flavor: Flavor) -> EngineKey:
    """Everything that changes the plan."""
    gpu = target_gpu(flavor, request.targets)
    form, linear = _forms(request, flavor, gpu)
    targets = () if gpu else (request.targets or AHEAD_OF_TIME_TARGETS)
    if targets and flavor.name != TENSORRT_RTX:
        raise InputError(f"{flavor.name} builds only for the GPU it runs on; leave out --targets")
    if targets and request.refit:
        raise InputError(
            f"{flavor.name} {flavor.version} makes engines that take new weights only on the GPU that runs them: leave "
            "out --refit, or build there without --targets"
        )
    memo = request.root.parent / "hashes.json"
    data = request.onnx.with_name(f"{request.onnx.name}.data")
    options: dict[str, Any] = {
        "workspace_mib": request.workspace_mib,
        "optimization_level": request.optimization_level,
        "linear": linear if linear != "tensorrt" else None,
        REFIT: structure_sha256(request.onnx) if request.refit else None,
        "builder_code": _deciding_code(),
    }
    return EngineKey(
        checkpoint=request.checkpoint,
        onnx_sha256=cached_sha256(request.onnx, memo),
        weights_sha256=cached_sha256(data, memo) if data.exists() else sha256_text(""),
        precision=request.precision,
        attention=form,
        flavor=flavor.name,
        flavor_version=flavor.version or "",
        batch=(request.batch.least, request.batch.tuned, request.batch.most),
        gpu=gpu.name if gpu else None,
        compute_capability=gpu.compute_capability if gpu else None,
        targets=targets,
        kernels=kernels_identity() if form == "plugin" or linear != "tensorrt" else (),
        options={name: value for name, value in options.items() if value is not None},
    )


def _forms(request: BuildRequest, flavor: Flavor, gpu: Gpu | None) -> tuple[str, str]:
    """Of attention and of linear layers. With `refit` those of TensorRT's own: fused kernels' weights are turned and
    folded on lowering, in ways that depend on the weights, and are fields of plugins then, which no refitter knows.
    """
    if not request.refit:
        form = choose_form(request.attention, flavor, request.precision, gpu)
        return form, choose_linear(request.linear, flavor, request.precision, gpu)
    if request.attention == "plugin" or request.linear == "plugin":
        raise InputError("an engine with kernels of ours takes no new weights: leave out --refit, or the plugin form")
    attention = fallback_form(flavor) if request.attention == "auto" else request.attention
    return choose_form(attention, flavor, request.precision, gpu), "tensorrt"


def target_gpu(flavor: Flavor, targets: Sequence[str]) -> Gpu | None:
    """The GPU that a plan is built for; None for one built ahead of time."""
    return next(iter(find_gpus()), None) if flavor.can_run and not targets else None


@lru_cache(maxsize=1)
def _deciding_code() -> str:
    return _sha256_of(_DECIDING)


def _sha256_of(names: Sequence[str]) -> str:
    return sha256_text("".join(sha256_file(Path(__file__).parent / name) for name in names))[:16]


def _build(request: BuildRequest, key: EngineKey, path: Path, flavor: Flavor, progress: Progress) -> Manifest:
    if request.validation is None:
        raise InputError(f"no validation inputs were given to judge {path.name} by")
    _refuse_altered(request.onnx, key)
    progress("lowering the graph", None)
    planners = _planners(key)
    notes: list[str] = []
    choose = _chooser(request, key, flavor, progress, notes).choose if key.options.get("linear") == "auto" else None
    lowered = _lower(request, key, request.batch, planners, flavor, choose)
    for folder in (path.parent, request.onnx.parent):
        remove_leftovers(folder)
    if request.precision != "fp32":
        progress("looking for overflow", None)
        one = _of_one_sample(request, key, lowered, planners, flavor)
        notes += check_range(one, request.validation, f"{path.name} was not built")
    with _temporary_plan(path) as plan:

        def built(graph: Lowered) -> dict[str, Any]:
            asked = _child_request(request, key, graph, plan)
            return run_child(flavor.python, "engines.child", asked, progress, request.verbose)

        try:
            answer = built(lowered)
        except ToolchainError as refused:
            if not (reason := refusal_of_pixels(lowered, refused)):
                raise
            notes.append(f"pixels: TensorRT's own layers after all, since it refused ours: {reason}")
            progress("building again, with TensorRT's own layers for pixels", None)
            plain = replace(planners, pixels=None)
            lowered = _lower(request, key, request.batch, plain, flavor, choose)  # its times are kept
            answer = built(lowered)
        notes += [f"pixels of '{node}': {form}: {why}" for node, form, why, _ in map(_choice, lowered.pixels)]
        gate = _first_gate(request, request.validation, key, lowered, flavor, progress)
        answer["notes"] = [*notes, *answer["notes"]]
        manifest = _manifest(request, key, path, plan, lowered, answer, gate)
        if engine_key(request, flavor) != key:
            raise ToolchainError(f"{request.onnx} changed while the engine was built from it: run the command again")
        _file(plan, path, manifest)
    if flavor.can_run and not key.targets:
        manifest = run_gate(path, request.validation, flavor, progress, request.verbose)
    return manifest


def _refuse_altered(onnx: Path, key: EngineKey) -> None:
    """The key takes a file's hash from a memo, by size and time stamp; what is built from is hashed in full."""
    known = {onnx: key.onnx_sha256}
    if (data := onnx.with_name(f"{onnx.name}.data")).exists():
        known[data] = key.weights_sha256
    for path, sha256 in known.items():
        if sha256_file(path) != sha256:
            raise InputError(f"{path} was altered after it was written, or is damaged: export it again")


@dataclass(frozen=True)
class _Planners:
    attention: Planner | None
    linear: LinearPlanner | None
    pixels: PixelsPlanner | None


def _planners(key: EngineKey) -> _Planners:
    """Where the kernels come from, for the forms that take kernels of ours."""
    gpu = (key.compute_capability or "", key.gpu or "")
    return _Planners(
        planner_for(*gpu) if key.attention == "plugin" else None,
        linear_planner_for(*gpu) if "linear" in key.options else None,
        pixels_planner_for(*gpu) if "linear" in key.options else None,
    )


def _chooser(
    request: BuildRequest, key: EngineKey, flavor: Flavor, progress: Progress, notes: list[str]
) -> LinearChooser:
    """What measures linear layers as the engine would have them, and says in `notes` that it did."""
    data = request.onnx.with_name(f"{request.onnx.name}.data")
    options = {name: value for name, value in key.options.items() if name not in ("linear", "builder_code")}
    given = {
        "flavor": key.flavor,
        "precision": key.precision,
        "profile": {"batch": list(key.batch)},
        "options": options,
        "cold_bytes": min(COLD_BYTES, data.stat().st_size) if data.exists() else 0,
    }
    files = {
        "targets": [],
        "timing_cache": str(_timing_cache(request, key)),
        "plugins": [str(_plugin(key, "--linear tensorrt"))],
        "verbose": request.verbose,
    }

    def measure(asked: Mapping[str, Any]) -> Mapping[str, Any]:
        began = time.perf_counter()
        try:
            answer = run_child(flavor.python, "engines.measure_child", asked, progress, request.verbose)
        except ToolchainError as error:
            raise type(error)(f"measuring linear layers: {error}; or build with --linear tensorrt or plugin") from error
        count = sum(len(unit["candidates"]) for unit in asked["units"])
        seconds = time.perf_counter() - began
        notes.append(f"linear layers: {len(asked['units'])} units in {count} forms, measured in {seconds:.0f} s")
        held = [result["held"] for unit in answer["units"] for result in unit if "held" in result]
        notes.extend(f"linear layers: {held.count(how)} of these forms were {how}" for how in dict.fromkeys(held))
        return answer

    times = _timing_cache(request, key).with_name(linear_times.FILE)
    # The folder of the times tells the GPU, and the version to three places.
    identity = {**given, "flavor_version": key.flavor_version, "code": _sha256_of(_TIMING)}
    return LinearChooser(request.onnx, times, {**given, **files}, identity, measure, progress)


def _settled(lowered: Lowered) -> Choose | None:
    """What became of the linear layers of a graph, for lowering it again with another batch."""
    if not lowered.linear:
        return None
    choices = {node.node: Choice(node.form, node.why, node.measured) for node in lowered.linear}
    return lambda model, lowering: choices


def _lower(
    request: BuildRequest,
    key: EngineKey,
    batch: BatchProfile,
    planners: _Planners,
    flavor: Flavor,
    choose: Choose | None = None,
) -> Lowered:
    fallback = fallback_form(flavor)
    taken = (planners.attention, fallback, planners.linear, choose, planners.pixels)
    return lower(request.onnx, key.attention, batch, *taken)


def _of_one_sample(
    request: BuildRequest, key: EngineKey, lowered: Lowered, planners: _Planners, flavor: Flavor
) -> Path:
    """The lowered graph that takes a single sample: a fixed batch would be as many times the work on a CPU."""
    if not request.batch.fixed or request.batch.most == 1 or fixed_batch(request.onnx):
        return lowered.path
    return _lower(request, key, BatchProfile(1, 1, 1), planners, flavor, _settled(lowered)).path


def _file(plan: Path, path: Path, manifest: Manifest) -> None:
    """The engine before its manifest: without one it is no engine, so a crash between the two files nothing."""
    manifest_path(path).unlink(missing_ok=True)
    try:
        os.replace(plan, path)
        write_manifest(path, manifest)
    except BaseException as error:
        path.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise ToolchainError(f"cannot write {path}: {error.strerror or error}") from error
        raise


def _child_request(request: BuildRequest, key: EngineKey, lowered: Lowered, plan: Path) -> dict[str, Any]:
    # The timing cache is what TensorRT measured on this GPU; building ahead of time measures nothing.
    timing_cache = None if key.targets else str(_timing_cache(request, key))
    return {
        "flavor": key.flavor,
        "onnx": str(lowered.path.resolve()),
        "plan": str(plan.resolve()),
        "precision": key.precision,
        "profile": {"batch": list(key.batch)},
        "targets": list(key.targets),
        "options": dict(key.options),
        "timing_cache": timing_cache,
        "plugins": _plugins(key, lowered),
        "layer_types": dict(lowered.types),
        "dispensable": pixels_nodes(lowered),
        "verbose": request.verbose,
    }


def _timing_cache(request: BuildRequest, key: EngineKey) -> Path:
    """What TensorRT measured on this GPU, for all engines of one flavor."""
    return engine_path(request.root, key).with_name("timing.cache").resolve()


def _plugins(key: EngineKey, lowered: Lowered) -> list[str]:
    """The libraries that must be loaded before the lowered graph is read."""
    if not any(node.form == "plugin" for node in (*lowered.nodes, *lowered.linear)):
        return []
    without = "--attention decomposed" if any(node.form == "plugin" for node in lowered.nodes) else ""
    without += " --linear tensorrt" if lowered.linear else ""
    return [str(_plugin(key, without.strip()))]


def _plugin(key: EngineKey, without: str) -> Path:
    """The plugin library. Raises InputError where it is absent, with the options that do `without`."""
    from runtime.plugins import find_plugin

    try:
        return find_plugin(key.flavor_version)
    except InputError as error:
        raise InputError(f"{error}; or build with {without}") from error


@contextlib.contextmanager
def _temporary_plan(path: Path) -> Iterator[Path]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=f".tmp-{os.getpid()}-", suffix=".engine", dir=path.parent)
    except OSError as error:
        raise ToolchainError(f"cannot write {path}: {error.strerror or error}") from error
    os.close(descriptor)
    plan = Path(name)
    try:
        yield plan
    finally:
        plan.unlink(missing_ok=True)
        remove_leftovers(path.parent)  # of the child, where it was ended while it wrote


def _first_gate(
    request: BuildRequest,
    validation: Validation,
    key: EngineKey,
    lowered: Lowered,
    flavor: Flavor,
    progress: Progress,
) -> Gate:
    if flavor.can_run and not key.targets:
        return Gate("pending", validation.metric, validation.threshold, validation.against, note="the gate is running")
    progress("checking the lowered graph in ONNX Runtime", None)
    why = flavor.reason or f"built ahead of time for compute capability {', '.join(key.targets)}"
    return proxy_gate(lowered.path, validation, request.batch.most, why)


def _manifest(
    request: BuildRequest, key: EngineKey, path: Path, plan: Path, lowered: Lowered, answer: dict[str, Any], gate: Gate
) -> Manifest:
    return Manifest(
        engine=path.name,
        sha256=sha256_file(plan),
        size=plan.stat().st_size,
        key=key,
        gate=gate,
        build=Build(
            seconds=answer["seconds"],
            peak_memory_bytes=answer["peak_memory_bytes"],
            date=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            command=request.command,
            versions={**answer["versions"], **_package_versions()},
            notes=tuple(answer["notes"]),
        ),
        tensors=tuple(EngineTensor(t["name"], t["mode"], t["dtype"], tuple(t["shape"])) for t in answer["tensors"]),
        attention=tuple(AttentionChoice(*_choice(node)) for node in lowered.nodes),
        linear=tuple(LinearChoice(*_choice(node)) for node in lowered.linear),
    )


def _package_versions() -> dict[str, str]:
    """Of what lowers the graph and runs it; the package of ONNX Runtime for GPUs has a name of its own."""
    found = {}
    for package in ("onnx", "onnxruntime", "onnxruntime-gpu"):
        with contextlib.suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def _choice(node: LoweredNode) -> tuple[str, str, str, dict[str, float]]:
    """Node, form, why and milliseconds, as manifests have them."""
    why = f"{node.variant}: {node.why}" if node.variant else node.why
    tuned = {node.form: node.milliseconds} if node.milliseconds else {}
    return node.node, node.form, why, dict(node.measured) or tuned


def run_gate(
    path: Path,
    validation: Validation,
    flavor: Flavor,
    progress: Progress = lambda phase, fraction: None,
    verbose: bool = False,
) -> Manifest:
    """Run a filed engine over the validation inputs, under its flavor's Python; write the verdict in its manifest."""
    progress("running the accuracy gate", None)
    with tempfile.TemporaryDirectory(prefix="cat2dog-gate-") as folder:
        file = Path(folder) / "validation.npz"
        validation.save(file)
        request = {"engine": str(path.resolve()), "validation": str(file), "flavor": flavor.name}
        answer = run_child(flavor.python, "engines.gate_child", request, progress, verbose)
    manifest = read_manifest(path)
    gate = replace(
        manifest.gate, state=answer["state"], scores=tuple(float(score) for score in answer["scores"]), note=""
    )
    manifest = replace(manifest, gate=gate)
    write_manifest(path, manifest)
    return manifest


def refuse_failed(path: Path, manifest: Manifest) -> None:
    """Raise AccuracyError where the gate, or its stand-in, refused the engine."""
    from runtime.engine_file import refusal

    if manifest.gate.state == "failed":
        raise AccuracyError(refusal(path, manifest))
