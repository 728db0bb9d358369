"""The precision policy: what stays FP32 in an FP16 or BF16 graph, and why. The one place to read and edit it.

What each island is worth on the demo checkpoint was measured by `python -m training.precision` and lies in
`bench/results/demo/precision.json`: without the norms' or the pixels' island, BF16 loses about 4 dB on the worst of 100
pictures; FP16 would pass without any there, and keeps them for networks with larger outliers.
"""

from __future__ import annotations

import fnmatch
import re
from dataclasses import dataclass
from functools import cache

from runtime.errors import InputError

PRECISIONS = ("fp32", "fp16", "bf16")


@dataclass(frozen=True)
class Island:
    """Nodes that compute in FP32, found by every condition that is given.

    `module` is a glob over the dotted path of the module that made the node (`network.blocks.3.norm1`), in which `#`
    stands for any number (`network.blocks.#` are the blocks and not what is in them); `op` is a glob over the ONNX
    operator (`Softmax`), `kind` one over the class of that module (`LayerNorm`). `residual` picks the
    additions that join a branch to the stream it left. Operators named in `but` are left out.
    """

    why: str
    module: str = "*"
    op: str = "*"
    kind: str = "*"
    residual: bool = False
    but: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if (self.module, self.op, self.kind, self.residual) == ("*", "*", "*", False):
            raise InputError(
                f"island '{self.why}' names no module, op, kind or residual; it would keep the whole graph FP32"
            )

    def holds(self, module: str, op: str, kind: str, residual: bool) -> bool:
        """Whether a node of these properties belongs to the island."""
        return (
            _module_pattern(self.module).match(module) is not None
            and fnmatch.fnmatchcase(op, self.op)
            and fnmatch.fnmatchcase(kind, self.kind)
            and (residual or not self.residual)
            and op not in self.but
        )


@cache
def _module_pattern(glob: str) -> re.Pattern[str]:
    return re.compile(fnmatch.translate(glob).replace("\\#", "[0-9]+"))


@dataclass(frozen=True)
class Policy:
    """A precision and its FP32 islands."""

    precision: str
    islands: tuple[Island, ...] = ()

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise InputError(f"precision '{self.precision}' is not one of {', '.join(PRECISIONS)}")

    def describe(self) -> list[str]:
        """One line an island, for the manifest and the cache key."""
        lines = []
        for island in self.islands:
            conditions = [
                f"{name}={value}"
                for name, value in vars(island).items()
                if name != "why" and value not in ("*", False, ())
            ]
            lines.append(f"{' '.join(conditions)}: {island.why}")
        return lines


_PIXELS = Island("pixels are 8 bits wide and FP16 holds 0..255 in steps of 1/8", module="pixels_*")
# A batch norm at rest is a scale and a shift, mostly folded into the convolution before it: nothing is summed.
_NO_NORMS = ("BatchNormalization", "Conv", "ConvTranspose", "Gemm", "MatMul")
_NORMS = (
    Island(
        "the sum of squares of outlier channels overflows FP16 and loses bits in BF16", kind="*Norm*", but=_NO_NORMS
    ),
    Island("likewise, where a norm is one operator", op="*Normalization", but=_NO_NORMS),
)
# Softmax needs no island: the body of the attention node computes it in FP32 in every precision.
_SOFTMAX = Island("exp and its sum lose the small weights of long rows", op="*Softmax")
_RESIDUAL = Island(
    "BF16 keeps 8 bits: each addition to the stream would round off the branches before it", residual=True
)

POLICIES = {
    "fp32": Policy("fp32"),
    "fp16": Policy("fp16", (_PIXELS, *_NORMS, _SOFTMAX)),
    "bf16": Policy("bf16", (_PIXELS, *_NORMS, _SOFTMAX, _RESIDUAL)),
}


def policy_for(precision: str) -> Policy:
    """The default policy of `fp32`, `fp16` or `bf16`; raises InputError for another name."""
    if precision not in POLICIES:
        raise InputError(f"precision '{precision}' is not one of {', '.join(POLICIES)}")
    return POLICIES[precision]
