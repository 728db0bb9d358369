"""What one fused attention node computes, and what a kernel library answers when asked for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from engines.kernels.launch import LaunchPlan

LAYOUTS = ("packed", "tokens", "heads")


@dataclass(frozen=True)
class AttentionProblem:
    """softmax(scale Q K^T) V over `heads` heads of `head_size`, from `queries` tokens to `keys` tokens.

    The inputs come in this order, of `precision` where nothing else is said:

    - `layout` packed: one tensor `[B, queries, 3*heads*head_size]`, queries, keys and values one after the other in its
      last axis (then `keys` equals `queries`); tokens: Q `[B, queries, heads*head_size]`, K and V
      `[B, keys, heads*head_size]`; heads: Q `[B, heads, queries, head_size]`, K and V `[B, heads, keys, head_size]`;
    - with `qk_norm`, the epsilon of an RMSNorm over each head's queries and keys: its gains for Q and for K,
      `[head_size]` FP32 each;
    - with `rope`: cosines and sines, `[keys, head_size/2]` FP32 each; channel i < head_size/2 is turned with channel
      i + head_size/2, queries and keys alike, after the norm (then `keys` equals `queries`).

    The output is `[B, queries, heads*head_size]`, or `[B, heads, queries, head_size]` where `output` is heads.
    `batch` is (least, tuned, most).
    """

    precision: str
    heads: int
    head_size: int
    queries: int
    keys: int
    scale: float
    batch: tuple[int, int, int] = (1, 1, 1)
    layout: str = "packed"
    output: str = "tokens"
    qk_norm: float | None = None
    rope: bool = False

    def __post_init__(self) -> None:
        if self.layout not in LAYOUTS or self.output not in ("tokens", "heads"):
            raise ValueError(f"layout {self.layout} or output {self.output} is unknown")
        if (self.layout == "packed" or self.rope) and self.queries != self.keys:
            raise ValueError(f"{self.queries} queries and {self.keys} keys, packed or with RoPE")

    @property
    def operations(self) -> int:
        """Floating-point operations of one sample: two products of 2 L S D each a head."""
        return 4 * self.heads * self.queries * self.keys * self.head_size


class Unsupported(Exception):
    """No kernel covers the problem; the message says why, for the manifest."""


@dataclass(frozen=True)
class FusedKernel:
    """A kernel for a problem: its plan, its `variant` in words, `why` it was chosen, and how long it took when tuned.

    `milliseconds` are those of one launch over the tuned batch, None where this very problem was never measured.
    """

    plan: LaunchPlan
    variant: str
    why: str
    milliseconds: float | None = None


# Raises Unsupported.
Planner = Callable[[AttentionProblem], FusedKernel]
