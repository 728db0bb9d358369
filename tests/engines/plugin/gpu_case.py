"""Files for `host_test --gpu`: a plan with TMA, clusters, workspace and programmatic launch, compiled by nvcc.

`python -m tests.engines.plugin.gpu_case FOLDER` writes launch.txt, images.bin, input.bin, output.bin and the arguments
that go with them (arguments.txt, for `xargs`), for a GPU of compute capability 9.0.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np

from engines.kernels.launch import Image, Launch, LaunchPlan, Null, Number, Pointer, Tensor, TensorMap

SOURCE = Path(__file__).with_name("gpu_case.cu")
BATCH, ROWS, COLUMNS = 3, 200, 64
FACTOR, SHIFT = 0.75, 2


def compile_image(nvcc: str, architecture: str = "sm_90a") -> Image:
    """The cubin of both kernels."""
    command = [nvcc, "-cubin", f"-arch={architecture}", "-O3", "-std=c++17", "-o", "/dev/stdout", str(SOURCE)]
    return Image(subprocess.run(command, capture_output=True, check=True, timeout=120).stdout)


def plan(image: Image) -> LaunchPlan:
    """output = input * 0.75 + 2 over `[B, 200, 64]` FP16; the last tile is not full."""
    rows = f"B*{ROWS}"
    tiles = f"cdiv(B*{ROWS},128)"
    tile = TensorMap(Pointer("input"), "fp16", (COLUMNS, rows), (COLUMNS * 2,), (COLUMNS, 128))
    scale = Launch(
        0,
        "scale",
        (f"cdiv({tiles},2)*2", 1, 1),
        256,
        # More than a kernel gets without asking, so that asking is tested.
        64 * 1024,
        (tile, Pointer("workspace"), Number("f32", FACTOR), Number("i32", rows)),
        cluster=2,
    )
    shift = Launch(
        0,
        "shift",
        (f"cdiv(B*{ROWS * COLUMNS},256)", 1, 1),
        256,
        0,
        (Pointer("workspace"), Pointer("output"), Null(), Number("i32", SHIFT), Number("i64", f"B*{ROWS * COLUMNS}")),
        programmatic=True,
    )
    tensor = Tensor("fp16", ("B", ROWS, COLUMNS))
    return LaunchPlan("9.0", (tensor,), (tensor,), (scale, shift), (image,), f"B*{ROWS * COLUMNS * 4}", exact=True)


def write_case(made: LaunchPlan, folder: Path) -> list[str]:
    """The files of a case; returns the arguments for `host_test LIBRARY`."""
    folder.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(5).standard_normal((BATCH, ROWS, COLUMNS)).astype(np.float16)
    values.tofile(folder / "input.bin")
    (values.astype(np.float32) * FACTOR + SHIFT).astype(np.float16).tofile(folder / "output.bin")
    (folder / "launch.txt").write_text(made.text())
    (folder / "images.bin").write_bytes(made.data)
    shape = f"fp16:{BATCH}x{ROWS}x{COLUMNS}"
    arguments = ["--gpu", f"{folder}/launch.txt", f"{folder}/images.bin", "--input", f"{shape}:{folder}/input.bin"]
    arguments += ["--output", f"{shape}:{folder}/output.bin", "--max-abs", "0", "--rms", "0"]
    (folder / "arguments.txt").write_text(" ".join(arguments) + "\n")
    return arguments


def main() -> None:
    """See the head of this file."""
    if len(sys.argv) != 2:
        sys.exit("usage: python -m tests.engines.plugin.gpu_case FOLDER")
    print(" ".join(write_case(plan(compile_image("nvcc")), Path(sys.argv[1]))))


if __name__ == "__main__":
    main()
