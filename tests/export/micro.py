"""What the tests of several rooms share: one micro checkpoint, its exports, and a strict look at an exported file."""

from __future__ import annotations

import tempfile
from functools import lru_cache
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

from export.export import export
from export.onnx_file import OnnxFile


@lru_cache(maxsize=1)
def _folder() -> tempfile.TemporaryDirectory:
    return tempfile.TemporaryDirectory(prefix="cat2dog-micro-")


@lru_cache(maxsize=1)
def micro_recipe():
    """cat2dog with 64 tokens of 64 channels and 2 blocks, made as `cat2dog init` makes the large ones."""
    from cat2dog.config import Config
    from cat2dog.initialise import initialise
    from cat2dog.recipe import Cat2DogRecipe

    root = Path(_folder().name)
    initialise(Config(resolution=64, patch=8, width=64, depth=2, heads=2), 0, root / "models" / "micro-64")
    return Cat2DogRecipe(root / "models" / "micro-64", root / "reference")


@lru_cache(maxsize=3)
def micro_export(precision: str) -> OnnxFile:
    """The micro checkpoint with a dynamic batch; opset 17."""
    return export(micro_recipe(), Path(_folder().name) / "onnx" / f"micro-64_{precision}.onnx", precision)


@lru_cache(maxsize=1)
def micro_answers() -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The sample pictures and what the FP32 reference makes of them."""
    feed = micro_recipe().validation()
    return feed, micro_recipe().reference(feed)


def run_onnx(path: Path, feed: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The file as it is in ONNX Runtime's CPU provider."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, feed), strict=True))


def attention_ops(path: Path) -> list[str]:
    """Op types of the neutral attention nodes, in order."""
    return [node.op_type for node in onnx.load(path, load_external_data=False).graph.node if node.domain == "cat2dog"]


def assert_sound(file: OnnxFile, opset: int = 17) -> None:
    """What every export must hold, whatever the recipe."""
    onnx.checker.check_model(str(file.path), full_check=True)
    model = onnx.load(file.path, load_external_data=False)
    assert {entry.version for entry in model.opset_import if entry.domain == ""} == {opset}
    graph = model.graph

    names = [node.name for node in graph.node]
    assert all(names) and len(set(names)) == len(names)

    known = {value.name: value.type.tensor_type for value in [*graph.value_info, *graph.input, *graph.output]}
    for node in graph.node:
        for output in filter(None, node.output):
            assert output in known, f"{node.name} makes '{output}', of which the file says nothing"
            assert known[output].elem_type, f"{output} has no type"
            assert known[output].HasField("shape"), f"{output} has no shape"

    data = file.path.with_name(f"{file.path.name}.data")
    for tensor in graph.initializer:
        size = int(np.prod(tensor.dims)) * onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
        external = tensor.data_location == onnx.TensorProto.EXTERNAL
        assert external == (size > 1024), f"{tensor.name} of {size} bytes is {'outside' if external else 'inside'}"
        if external:
            assert {entry.key: entry.value for entry in tensor.external_data}["location"] == data.name
    assert data.exists()

    used = {node.op_type for node in graph.node if node.domain == "cat2dog"}
    assert {function.name for function in model.functions} == used
    assert file.attention_nodes == sum(node.domain == "cat2dog" for node in graph.node)
    text = file.path.read_bytes()
    for foreign in (b"/root/", b"/home/", b"/tmp/", b"site-packages", b'File "'):
        assert foreign not in text, "the file tells of the machine it was made on"


def assert_close(got: dict[str, np.ndarray], expected: dict[str, np.ndarray], tolerance: float) -> None:
    """Every output, of the same type, within `tolerance` of the largest expected value."""
    assert list(got) == list(expected)
    for name, reference in expected.items():
        assert got[name].dtype == reference.dtype and got[name].shape == reference.shape, name
        assert np.isfinite(got[name].astype(np.float64)).all(), name
        worst = np.abs(got[name].astype(np.float64) - reference.astype(np.float64)).max()
        assert worst <= tolerance * max(1.0, float(np.abs(reference.astype(np.float64)).max())), f"{name}: {worst}"
