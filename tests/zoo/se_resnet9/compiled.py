"""Every Triton kernel compiled for Hopper, with the sizes it has at 128 images; needs no GPU. Tells what each takes."""

from __future__ import annotations

import re
import sys

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from zoo.se_resnet9 import convolution, kernels
from zoo.se_resnet9.network import CHANNELS

_MOST_SHARED = 227 << 10
_TARGET = GPUTarget("cuda", 90, 32)


def compiled(kernel, pointers, constants, warps=4, stages=3):
    """`pointers` are names to types; the integers without a type are i32."""
    signature = {name: pointers.get(name, "constexpr" if name in constants else "i32") for name in kernel.arg_names}
    # As when it is launched: PyTorch's memory begins at multiples of 16 bytes.
    aligned = {(kernel.arg_names.index(name),): [["tt.divisibility", 16]] for name in pointers}
    source = ASTSource(kernel, signature=signature, constexprs=constants, attrs=aligned)
    made = triton.compile(source, target=_TARGET, options={"num_warps": warps, "num_stages": stages})
    assert made.metadata.shared <= _MOST_SHARED, f"{kernel.fn.__name__} takes {made.metadata.shared} B of shared memory"
    products = len(re.findall(r"wgmma\.mma_async|mma\.sync", made.asm["ptx"]))
    print(f"{kernel.fn.__name__} {constants}: {made.metadata.shared} B shared, {products} mma", flush=True)
    return products


HALF = {name: "*fp16" for name in "z x w g g_shifted identity out shifted g_z g_identity".split()}
WEIGHTS = {name: "*fp16" for name in "before after scale bias w1 c1 w2 c2".split()}
SMALL = {name: "*fp16" for name in "excited_out squeezed_out mean_out hidden_out".split()}


def of(kernel, **changed):
    known = {**HALF, **WEIGHTS, **SMALL, "sums": "*fp32", "shift": "*fp32", **changed}
    return {name: known[name] for name in kernel.arg_names if name in known}


def main(all_of_them):
    for kernel in (
        kernels._shifted_relu,
        kernels._shifted_relu_backward,
        kernels._relu_pair,
        kernels._relu_pair_backward,
    ):
        compiled(kernel, of(kernel), {"BLOCK": 4096})
    side, before = 16, 64
    assert compiled(convolution._stem, of(convolution._stem), {"CHANNELS": 3, "OC": 64, "K": 64, "BM": 128}) > 0
    for block, channels in enumerate(CHANNELS):
        out = side // (1 if block == 0 else 2)
        image = {"HW": out * out, "C": channels, "R": channels // 16}
        warps = 8 if out * out * channels >= 1 << 13 else 4
        compiled(kernels._squeeze_merge, of(kernels._squeeze_merge), image, warps)
        compiled(kernels._squeeze_merge_backward, of(kernels._squeeze_merge_backward), image, 2 * warps)
        wide = channels if block == 0 else 2 * channels
        compiled(convolution._merge, of(convolution._merge), {**image, "ROW": wide, "PARTS": 1}, warps)
        if out * out >= 64:
            sizes = {"OUT": out, "C": channels, "R": channels // 16, "IN_ROW": wide, "ROW": wide, "BK": 64}
            kernel = convolution._convolve_merge
            assert compiled(kernel, of(kernel), sizes, 8 if out > 8 else 4) > 0
        m = 128 * out * out
        first = (wide, before, before, side, out, 1 if block == 0 else 2, True, of(convolution._convolve))
        second = (channels, channels, wide, out, out, 1, False, None)
        for outputs, inputs, row, there, here, stride, shift, types in (first, second):
            for tile in convolution.tiles(m, outputs, inputs, may_split=not shift)[: None if all_of_them else 1]:
                kernel = convolution._convolve
                types = of(
                    kernel, **({"out": "*fp32"} if tile.split > 1 else {}), **({} if shift else {"shift": "*fp16"})
                )
                sizes = {
                    "ROW": row, "SIDE": there, "C": inputs, "OC": outputs, "OUT": here, "STRIDE": stride,
                    "RELU": channels if shift else 0, "SHIFT": shift, "SPLIT": tile.split, "BM": tile.rows,
                    "BN": tile.columns, "BK": 64,
                }  # fmt: skip
                assert compiled(kernel, types, sizes, tile.warps, tile.stages) > 0
        side, before = out, channels


if __name__ == "__main__":
    main("--all" in sys.argv)
