"""Problems of pixels with awkward sizes, their answers in numpy, and pixels.cu run on a CPU."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path

import ml_dtypes
import numpy as np

from engines.kernels import images, pixels_plan
from engines.kernels.launch import LaunchPlan
from engines.kernels.pixels_problem import PixelsProblem, Step
from engines.kernels.sizes import evaluate
from engines.kernels.timing import NUMPY

IN = (Step("mul", (float(np.float32(1 / 127.5)),)), Step("add", (-1.0,)))
OUT = (Step("mul", (127.5,)), Step("add", (127.5,)), Step("round"), Step("max", (0.0,)), Step("min", (255.0,)))
# ImageNet's: a mean and a deviation for each channel; of the image a grey level of each.
MEANS = tuple(float(np.float32(value)) for value in (123.675, 116.28, 103.53))
DEVIATIONS = tuple(float(np.float32(value)) for value in (58.395, 57.12, 57.375))
IN_OF_CHANNELS = (Step("sub", MEANS), Step("div", DEVIATIONS))
OUT_OF_CHANNELS = (Step("max", (-1.0,)), Step("min", (1.0,)), Step("add", (1.0,)), Step("mul", (127.5,)), Step("round"))
HALVES = (Step("div", (255.0,)), Step("fp16"), Step("rsub", (1.0,)), Step("fp16"))
BRAIN = (Step("mul", (1 / 255,)), Step("bf16"), Step("add", (-0.5,)), Step("bf16"))
PROBLEMS = {
    "500m-256 in": PixelsProblem("in", "fp16", 256, 256, 3, 16, 16, "pqc", IN),
    "500m-256 out": PixelsProblem("out", "fp16", 256, 256, 3, 16, 16, "pqc", OUT),
    "bf16 in": PixelsProblem("in", "bf16", 48, 32, 3, 8, 16, "pqc", IN, (3, 3, 3)),
    "bf16 out": PixelsProblem("out", "bf16", 48, 32, 3, 8, 16, "pqc", OUT, (2, 2, 2)),
    "patches of 14, any batch": PixelsProblem("in", "fp16", 28, 42, 3, 14, 14, "pqc", IN_OF_CHANNELS, (1, 2, 4)),
    "channels first": PixelsProblem("in", "fp16", 32, 32, 3, 16, 8, "cpq", IN_OF_CHANNELS, (2, 2, 2)),
    "channels first, out": PixelsProblem("out", "bf16", 32, 32, 3, 16, 8, "cpq", OUT_OF_CHANNELS, (2, 2, 2)),
    "odd": PixelsProblem("out", "fp16", 15, 35, 1, 5, 7, "qpc", OUT_OF_CHANNELS, (3, 3, 3)),
    "one patch": PixelsProblem("in", "bf16", 9, 6, 4, 9, 6, "pcq", BRAIN, (2, 2, 2)),
    "in half precision": PixelsProblem("in", "fp16", 12, 10, 2, 4, 5, "pqc", HALVES, (1, 1, 1)),
    "nothing but moved": PixelsProblem("in", "fp16", 8, 8, 3, 2, 2, "qcp", (), (1, 1, 1)),
}


def feed_of(problem: PixelsProblem, batch: int, seed: int = 0) -> np.ndarray:
    """Every grey level, or patches that become every one, some just at a half and some outside."""
    rng = np.random.default_rng(seed)
    if problem.direction == "in":
        shape = (batch, problem.height, problem.width, problem.channels)
        return rng.integers(0, 256, shape).astype(NUMPY[problem.image_type])
    levels = np.concatenate([np.arange(-9, 265, 0.5), rng.uniform(-300, 600, 999)])
    return rng.choice(levels / 127.5 - 1, (batch, problem.tokens, problem.inner)).astype(NUMPY[problem.precision])


def reference(problem: PixelsProblem, feed: np.ndarray) -> np.ndarray:
    """The same in numpy, whose FP32 rounds every operation by itself."""
    p = problem
    apart = (len(feed), p.height // p.patch_height, p.patch_height, p.width // p.patch_width, p.patch_width, p.channels)
    order = (0, 1, 3, *({"p": 2, "q": 4, "c": 5}[axis] for axis in p.order))
    x = feed.astype(np.float32)
    if p.direction == "out":
        x = x.reshape([apart[axis] for axis in order]).transpose(np.argsort(order))
        x = x.reshape(len(feed), p.height, p.width, p.channels)
    for step in p.steps:
        x = _applied(step, x)
    if p.direction == "out":
        return x.astype(NUMPY[p.image_type])
    x = x.astype(NUMPY[p.precision])
    return x.reshape(apart).transpose(order).reshape(len(feed), p.tokens, p.inner)


def _applied(step: Step, x: np.ndarray) -> np.ndarray:
    values = np.array(step.values, np.float32)
    match step.op:
        case "mul":
            return x * values
        case "add":
            return x + values
        case "sub":
            return x - values
        case "rsub":
            return values - x
        case "div":
            return x / values
        case "max":
            return np.maximum(x, values)
        case "min":
            return np.minimum(x, values)
        case "round":
            return np.rint(x)
    return x.astype({"fp16": np.float16, "bf16": ml_dtypes.bfloat16}[step.op]).astype(np.float32)


# C++ for a CPU: what CUDA gives a kernel, and what half.cuh and the conversions of pixels.cu say in PTX.
_SHIM = r"""
#include <cmath>
#include <cstdint>
#include <cstring>
#define __device__
#define __global__
#define __forceinline__ inline
#define __launch_bounds__(threads)
typedef unsigned int u32;
struct Place { unsigned x, y; };
static Place blockIdx, threadIdx;
struct alignas(16) uint4 { u32 x, y, z, w; };
struct alignas(8) uint2 { u32 x, y; };
static uint4 make_uint4(u32 x, u32 y, u32 z, u32 w) { return {x, y, z, w}; }
static uint2 make_uint2(u32 x, u32 y) { return {x, y}; }
template <typename T> static void __stcg(T* to, T value) { *to = value; }
static float __uint_as_float(u32 bits) { float x; std::memcpy(&x, &bits, 4); return x; }
static u32 __float_as_uint(float x) { u32 bits; std::memcpy(&bits, &x, 4); return bits; }
static float __fmul_rn(float a, float b) { return a * b; }
static float __fadd_rn(float a, float b) { return a + b; }
static float __fsub_rn(float a, float b) { return a - b; }
static float __fdiv_rn(float a, float b) { return a / b; }
static u32 fp16_of(float x) {
  const _Float16 half = static_cast<_Float16>(x);
  std::uint16_t bits;
  std::memcpy(&bits, &half, 2);
  return bits;
}
static float of_fp16(u32 bits) {
  const std::uint16_t low = static_cast<std::uint16_t>(bits);
  _Float16 half;
  std::memcpy(&half, &low, 2);
  return half;
}
static u32 bf16_of(float x) { u32 b = __float_as_uint(x); return (b + 0x7fff + (b >> 16 & 1)) >> 16; }
static float of_bf16(u32 bits) { return __uint_as_float(bits << 16); }
#if BF16
#define OF bf16_of
#define TO of_bf16
#else
#define OF fp16_of
#define TO of_fp16
#endif
static u32 pack(float low, float high) { return OF(low) | OF(high) << 16; }
static void unpack(u32 both, float& low, float& high) { low = TO(both & 0xffff), high = TO(both >> 16); }
"""
_RUN = r"""
extern "C" void run(const void* from, void* to, int blocks, int batch) {
  for (unsigned b = 0; b < unsigned(batch); ++b)
    for (unsigned block = 0; block < unsigned(blocks); ++block)
      for (unsigned thread = 0; thread < THREADS; ++thread) {
        blockIdx = {block, b}, threadIdx = {thread, 0};
        KERNEL(from, to);
      }
}
"""


class OnCpu:
    """Stands in for `cuda_kernel`: the kernel's own text, compiled for the CPU at hand, and run thread by thread."""

    compiler = shutil.which("g++")

    def __init__(self, folder: Path):
        self._folder, self._made = folder, 0
        self._library: ctypes.CDLL | None = None

    def cuda_kernel(self, source, prelude, names, constants, target, shared, threads):
        text = (Path(images.__file__).parent / source).read_text("utf-8")
        # The two conversions in PTX; the rest of the file is C++.
        for kind in ("fp16", "bf16"):
            start = text.index(f"float to_{kind}(float x) {{")
            end = text.index("\n}", start)
            text = f"{text[:start]}float to_{kind}(float x) {{ return of_{kind}({kind}_of(x));{text[end:]}"
        self._made += 1
        path = self._folder / f"kernel_{self._made}.cpp"
        path.write_text(_SHIM + prelude + text + _RUN, "utf-8")
        library = path.with_suffix(".so")
        options = [f"-D{name}={int(value)}" for name, value in constants.items()]
        command = [self.compiler, "-std=c++17", "-O1", "-ffp-contract=off", "-shared", "-fPIC", *options]
        done = subprocess.run([*command, str(path), "-o", str(library)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        self._library = ctypes.CDLL(str(library))
        return [images.Compiled(names[0].encode(), names[0], shared, threads)]

    def answer(self, plan: LaunchPlan, feed: np.ndarray) -> np.ndarray:
        """What the last kernel that was made writes, between guards that it must not touch."""
        assert self._library is not None
        (output,), (launch,) = plan.outputs, plan.launches
        names = {"B": len(feed)}
        shape = tuple(evaluate(size, names) for size in output.shape)
        dtype = NUMPY[output.dtype]
        guard = 64
        raw = np.full(int(np.prod(shape)) * dtype.itemsize + 2 * guard, 0xA5, np.uint8)
        start = -raw.ctypes.data % 16 + 16
        inside = slice(start, start + int(np.prod(shape)) * dtype.itemsize)
        given = np.ascontiguousarray(feed)
        grid = [evaluate(size, names) for size in launch.grid]
        self._library.run(
            ctypes.c_void_p(given.ctypes.data), ctypes.c_void_p(raw.ctypes.data + start), grid[0], grid[1]
        )
        assert (np.delete(raw, np.r_[inside]) == 0xA5).all(), "it wrote outside"
        return raw[inside].view(dtype).reshape(shape)


def on_cpu(folder: Path, monkeypatch) -> OnCpu:
    """Kernels of pixels are compiled for the CPU."""
    made = OnCpu(folder)
    monkeypatch.setattr(pixels_plan, "cuda_kernel", made.cuda_kernel)
    return made
