"""What one fused linear node computes: a linear layer with the norm before it and what follows it folded in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from engines.kernels.problem import FusedKernel

NORMS = (None, "layer", "rms")
ACTIVATIONS = (None, "gelu", "gelu_tanh", "swiglu")
RESIDUALS = (None, "sample", "shared")


@dataclass(frozen=True)
class Turning:
    """QK-RMSNorm and RoPE of a packed QKV layer: `heads` heads of `head_size` channels of queries, then of keys, then
    of values, which pass untouched.

    `qk_norm` is the epsilon of an RMSNorm over each head's queries and keys, with gains; None for none. With `rope`,
    channel i < head_size/2 is turned with channel i + head_size/2, after the norm.
    """

    heads: int
    head_size: int
    qk_norm: float | None = None
    rope: bool = False


@dataclass(frozen=True)
class LinearProblem:
    """y = finish(norm(x) W^T + bias), of `rows` tokens a sample, `inner` channels in, `columns` rows of W.

    The inputs come in this order, each where the problem has it:

    1. x `[B, rows, inner]` of `precision`;
    2. W `[columns, inner]` of `precision`, row-major. With `norm`, its gain is multiplied into W's columns. With
       swiglu, gate and up rows take turns: row 2i is gate i, row 2i + 1 is up i;
    3. with `norm`: statistics of x, `[B, rows, S, 2]` FP32: x's channels cut into S equal runs, of each its mean and
       the sum of its squared distances from that mean;
    4. with `norm` layer: the sums of W's rows `[columns]` FP32, of W as rounded;
    5. with `bias`: `[columns]` FP32 (with `norm` layer, W times the norm's offset is added to it);
    6. with `turning.qk_norm`: gains for Q and for K, `[head_size]` FP32 each;
    7. with `turning.rope`: cosines and sines, `[rows, head_size/2]` FP32 each;
    8. with `residual` sample: `[B, rows, columns]` of `precision`; shared: `[rows, columns]`, added to every sample.

    With `norm` layer, (x - mean) / sqrt(variance + epsilon) is what W sees; with rms, x / sqrt(mean of squares +
    epsilon). The kernels multiply W with x itself and apply mean and root to the product, which is the same
    (W (x - m) / s = (W x - m sum(W)) / s). After the bias comes `activation` (gelu with erf, gelu_tanh, or swiglu: silu
    of the even columns times the odd ones, which halves them), or `turning`, then the residual.

    The outputs are y `[B, rows, columns]` (swiglu: columns/2) of `precision`, and with `statistics` those of y, for a
    `norm` that reads it. `batch` is (least, tuned, most).
    """

    precision: str
    rows: int
    inner: int
    columns: int
    batch: tuple[int, int, int] = (1, 1, 1)
    norm: str | None = None
    epsilon: float = 0.0
    bias: bool = True
    activation: str | None = None
    turning: Turning | None = None
    residual: str | None = None
    statistics: bool = False

    def __post_init__(self) -> None:
        for what, value, known in (
            ("norm", self.norm, NORMS),
            ("activation", self.activation, ACTIVATIONS),
            ("residual", self.residual, RESIDUALS),
        ):
            if value not in known:
                raise ValueError(f"{what} {value} is not one of {', '.join(str(name) for name in known)}")
        turned = self.turning
        if turned is not None and (self.activation is not None or self.residual is not None):
            raise ValueError("a layer that turns queries and keys has no activation and no residual")
        if turned is not None and self.columns != 3 * turned.heads * turned.head_size:
            raise ValueError(f"{self.columns} columns are not three times {turned.heads} heads of {turned.head_size}")
        if self.activation == "swiglu" and (self.columns % 2 or self.residual or self.statistics):
            raise ValueError("swiglu takes pairs of columns, and neither residual nor statistics")

    @property
    def width(self) -> int:
        """Columns of the output."""
        return self.columns // 2 if self.activation == "swiglu" else self.columns

    @property
    def operations(self) -> int:
        """Floating-point operations of one sample's product."""
        return 2 * self.rows * self.inner * self.columns


# Raises Unsupported.
LinearPlanner = Callable[[LinearProblem], FusedKernel]
