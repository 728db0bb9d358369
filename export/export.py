"""Recipe in, neutral ONNX file out."""

from __future__ import annotations

import contextlib
import datetime
import os
import resource
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from export.key import export_key, versions
from export.onnx_file import OnnxFile, data_path, describe_files, read, up_to_date
from export.policy import Policy, policy_for
from export.recipe import Recipe
from runtime.errors import InputError, ToolchainError
from runtime.files import exclusive, remove_leftovers

if TYPE_CHECKING:
    import onnx_ir as ir

# Tensors up to this size stay in the graph file, where shapes and scalars are seen by tools that read no external data.
_INLINE_BYTES = 1024

Progress = Callable[[str, float], None]


def export(
    recipe: Recipe,
    path: str | os.PathLike[str],
    precision: str = "fp32",
    *,
    policy: Policy | None = None,
    opset: int = 17,
    batch: int | None = None,
    progress: Progress | None = None,
    verify_hash: bool = False,
) -> OnnxFile:
    """Write `recipe` to `path` (`X.onnx`, `X.onnx.data`, `X.json`), unless an up-to-date export lies there.

    `policy` replaces the default one of `precision`; `batch` fixes the batch, None leaves it dynamic. `progress` is
    called with what is being done and the fraction of it. With `verify_hash` an export that lies there is hashed, as it
    should be before it is used, and written again where it is not what it was; without, its size and time stamps are
    believed. Raises InputError for a module that cannot be exported, and
    ToolchainError when the files cannot be written; then what lay at `path` before still lies there.
    """
    path = Path(path)
    if path.suffix != ".onnx":
        raise InputError(f"an export is written to a file that ends in .onnx, not to '{path.name}'")
    policy = policy or policy_for(precision)
    if policy.precision != precision and precision != "fp32":
        raise InputError(f"precision {precision} with a policy for {policy.precision}: give one of them")
    key = export_key(recipe, policy, opset, batch)
    if ready := up_to_date(path, key, verify_hash):
        return ready
    _refuse_foreign_manifest(path)
    with exclusive(path):
        if ready := up_to_date(path, key, verify_hash):
            return ready
        return _export(recipe, path, policy, opset, batch, key, progress or (lambda what, done: None))


def _export(recipe, path, policy, opset, batch, key, progress) -> OnnxFile:
    from export.precision import apply_policy, drop_unused_initializers
    from export.trace import trace

    began = time.perf_counter()
    progress("tracing", 0.0)
    model = trace(recipe, opset, batch)
    nodes = apply_policy(model, policy)
    drop_unused_initializers(model)
    attention_nodes = sum(1 for node in model.graph.all_nodes() if node.domain == "cat2dog")
    _label(model, recipe, policy)
    with _one_line(path):
        _write(model, path, lambda done: progress("writing weights", done))
        try:
            finished = _described(recipe, path, key, attention_nodes, nodes, time.perf_counter() - began)
            finished.save()
        except BaseException:  # Ctrl-C too: hashing gigabytes takes seconds
            for file in (path, data_path(path)):  # without its manifest the graph is a leftover
                file.unlink(missing_ok=True)
            raise
    progress("done", 1.0)
    return finished


def _refuse_foreign_manifest(path: Path) -> None:
    """Beside a graph, `X.json` is a manifest of ours, whole or damaged; alone it may be anything of the user's."""
    manifest = path.with_suffix(".json")
    if path.exists() or not manifest.exists():
        return
    try:
        read(path)
    except InputError as error:
        raise InputError(
            f"{manifest} would be overwritten by the manifest of {path.name}: choose another name"
        ) from error


@contextlib.contextmanager
def _one_line(path: Path) -> Iterator[None]:
    """What goes wrong while a tensor is written comes wrapped, a layer for each level of the graph."""
    import onnx
    import onnx_ir.serde

    try:
        yield
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ToolchainError(f"the graph made for {path.name} is not sound ONNX, and was not kept: {reason}") from error
    except (OSError, onnx_ir.serde.SerdeError) as error:
        cause: BaseException = error
        while isinstance(cause, onnx_ir.serde.SerdeError) and cause.__cause__ is not None:
            cause = cause.__cause__
        if isinstance(cause, ToolchainError):
            raise cause from error
        reason = cause.strerror if isinstance(cause, OSError) and cause.strerror else " ".join(str(cause).split())[:300]
        raise ToolchainError(f"cannot write {path}: {reason}") from error


def _described(recipe, path, key, attention_nodes, nodes, seconds) -> OnnxFile:
    return OnnxFile(
        path=path,
        key=key,
        files=describe_files(path),
        inputs=[{**asdict(spec), "shape": list(spec.shape)} for spec in recipe.inputs],
        outputs=[{**asdict(spec), "shape": list(spec.shape)} for spec in recipe.outputs],
        attention_nodes=attention_nodes,
        nodes=nodes,
        seconds=round(seconds, 2),
        peak_memory_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        date=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        versions=versions(),
    )


def _label(model: ir.Model, recipe: Recipe, policy: Policy) -> None:
    """What a stranger who opens the file in a viewer should see; no paths of this machine."""
    import onnx_ir.passes.common as passes

    passes.ClearMetadataAndDocStringPass()(model)
    model.producer_name, model.producer_version = "cat2dog", None
    model.graph.name = f"{recipe.name}_{policy.precision}"
    model.metadata_props.update(recipe=recipe.name, precision=policy.precision, islands="\n".join(policy.describe()))


def _write(model: ir.Model, path: Path, progress: Callable[[float], None]) -> None:
    """Stream into a folder beside `path`, check, then move data and graph there; the caller adds the manifest."""
    import onnx
    import onnx_ir as ir

    path.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(path.parent)
    folder = Path(tempfile.mkdtemp(prefix=f".tmp-{os.getpid()}-", dir=path.parent))
    try:
        graph, data = folder / path.name, data_path(folder / path.name)
        data.touch()  # a model of scalars only has no external data; the manifest names the file all the same
        ir.save(
            model,
            graph,
            external_data=data.name,
            size_threshold_bytes=_INLINE_BYTES,
            callback=lambda tensor, info: progress((info.index + 1) / max(info.total, 1)),
        )
        # By path, because a model over 2 GB does not fit in one protobuf; infers shapes, function bodies included.
        onnx.checker.check_model(str(graph), full_check=True)
        for file in (data, graph):
            with open(file, "rb+") as written:
                os.fsync(written.fileno())
        path.with_suffix(".json").unlink(missing_ok=True)  # from here the old manifest would lie
        os.replace(data, data_path(path))
        os.replace(graph, path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
