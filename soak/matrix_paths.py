"""`python -m soak.matrix_paths PATH`: one real thing, in the environment of a row; the last line printed is JSON."""

from __future__ import annotations

import importlib.metadata
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

_SHOWN = ("numpy", "onnx", "onnxruntime", "torch", "tensorrt_rtx_cu13_bindings", "tensorrt-bindings",
          "tensorrt_cu12_bindings", "tensorrt_cu13_bindings")  # fmt: skip
# Where TensorRT's own names are used, and so may be misspelt.
_TYPED = ("runtime/loaded_engine.py", "runtime/replay.py", "runtime/lane.py", "runtime/tensorrt_runner.py",
          "engines/configure.py", "engines/child.py")  # fmt: skip


def main() -> None:
    """Do what is asked and print what it gave."""
    paths = {"runtime": runtime, "export": export, "build": build, "names": names}
    with tempfile.TemporaryDirectory() as folder:
        gave = paths[sys.argv[1]](Path(folder))
    print(json.dumps({**gave, "versions": _versions()}))


def runtime(folder: Path) -> dict[str, Any]:
    """A picture through the codecs and an ONNX network in ONNX Runtime, twice; no torch may be imported."""
    import numpy as np

    from runtime.images import encode_image, read_image
    from runtime.onnxruntime_runner import OnnxRuntimeRunner
    from soak.tiny import SIDE, write_tiny

    cat = read_image("images/img1.jpg", SIDE)
    with OnnxRuntimeRunner(write_tiny(folder / "tiny.onnx"), threads=1) as runner:
        dogs = [runner.infer({"image": np.stack([cat] * 3)})["dog"] for _ in range(2)]
    assert np.array_equal(*dogs) and dogs[0].std() > 10 and np.array_equal(dogs[0][0], dogs[0][2])
    assert np.array_equal(read_image(encode_image(dogs[0][0], ".png"), SIDE), dogs[0][0])
    assert "torch" not in sys.modules
    return {"did": "a picture decoded, run in ONNX Runtime, encoded and decoded again"}


def export(folder: Path) -> dict[str, Any]:
    """A cat2dog network made, exported in FP16 and run in ONNX Runtime, against PyTorch."""
    import numpy as np

    from cat2dog.config import Config
    from cat2dog.initialise import initialise
    from cat2dog.recipe import Cat2DogRecipe
    from export.export import export as exported
    from runtime.metrics import psnr
    from runtime.onnxruntime_runner import OnnxRuntimeRunner

    initialise(Config(resolution=64, patch=8, width=64, depth=2, heads=2), 0, folder / "models/micro-64")
    recipe = Cat2DogRecipe(folder / "models/micro-64", folder / "reference")
    feed = recipe.validation(2)
    file = exported(recipe, folder / "micro.onnx", "fp16")
    with OnnxRuntimeRunner(file.path) as runner:
        worst = min(
            psnr(one, other)
            for one, other in zip(runner.infer(feed)["dog"], recipe.reference(feed)["dog"], strict=True)
        )
    assert np.isfinite(worst) or worst > 0
    assert worst > 40, worst
    return {"did": "exported in FP16 and run in ONNX Runtime", "worst_psnr_db": round(float(worst), 1)}


def build(folder: Path) -> dict[str, Any]:
    """An engine by TensorRT-RTX, judged by its proxy and loaded."""
    from engines.build import build as built
    from runtime.engine_file import open_engine
    from runtime.flavors import find_flavor
    from soak.tiny import request_of, validation_of, write_tiny

    file = write_tiny(folder / "onnx/tiny.onnx")
    flavor = find_flavor("tensorrt_rtx")
    made = built(request_of(file, validation_of(file), folder / "engines", flavor=flavor))
    with open_engine(made.path, flavor, None) as (manifest, plan):
        assert len(plan) == manifest.size
    return {"did": f"built and loaded by TensorRT-RTX {flavor.version}", "plan_bytes": made.manifest.size}


def names(folder: Path) -> dict[str, Any]:
    """Every name of TensorRT that the code uses, looked for in the real bindings, which have no stubs to check by.

    The library itself need not be there: pybind11 keeps the names of classes, enumerations and their members as texts.
    """
    import re
    import site

    found = [path for path in Path(site.getsitepackages()[0]).glob("tensorrt*/tensorrt*.so")]
    if not found:
        raise SystemExit("these bindings hold no module")
    texts = set(re.findall(rb"[A-Za-z_][A-Za-z0-9_]*", found[0].read_bytes()))
    used = sorted(_names_used())
    # Short ones are compiled into the code.
    absent = [name for name in used if not {part.encode() for part in name.split(".") if len(part) > 5} <= texts]
    return {"did": f"{len(used)} names looked for in {found[0].parent.name}", "names": len(used), "not_there": absent}


def _names_used() -> set[str]:
    """Dotted names after `trt.` in the rooms that talk to TensorRT."""
    import re

    text = "\n".join(Path(path).read_text("utf-8") for path in _TYPED)
    return set(re.findall(r"\btrt\.([A-Z][A-Za-z0-9_]*(?:\.[A-Z][A-Za-z0-9_]*)*)", text))


def _versions() -> dict[str, str]:
    found = {}
    for package in _SHOWN:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


if __name__ == "__main__":
    main()
