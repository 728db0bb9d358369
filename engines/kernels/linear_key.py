"""What a measurement of a fused linear layer was of: the key of its entry in a tuning table."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from engines.kernels.linear_problem import LinearProblem, Turning


@dataclass(frozen=True)
class LinearKey:
    """A `LinearProblem` at one batch size; "" and 0 stand for what it has not. Epsilons do not change the time."""

    precision: str
    rows: int
    inner: int
    columns: int
    batch: int
    norm: str
    bias: bool
    activation: str
    heads: int
    head_size: int
    qk_norm: bool
    rope: bool
    residual: str
    statistics: bool

    @classmethod
    def of(cls, problem: LinearProblem, batch: int | None = None) -> LinearKey:
        """The key of a problem at one batch size, the tuned one where none is given."""
        p, t = problem, problem.turning
        return cls(
            p.precision, p.rows, p.inner, p.columns, batch or p.batch[1], p.norm or "", p.bias, p.activation or "",
            t.heads if t else 0, t.head_size if t else 0, t is not None and t.qk_norm is not None,
            t is not None and t.rope, p.residual or "", p.statistics,
        )  # fmt: skip

    def problem(self) -> LinearProblem:
        """A problem of this key, with the usual epsilons."""
        turning = Turning(self.heads, self.head_size, 1e-6 if self.qk_norm else None, self.rope) if self.heads else None
        return LinearProblem(
            self.precision, self.rows, self.inner, self.columns, (self.batch,) * 3, self.norm or None,
            1e-6 if self.norm else 0.0, self.bias, self.activation or None, turning, self.residual or None,
            self.statistics,
        )  # fmt: skip

    @property
    def sizes(self) -> tuple[int, int, int, int]:
        """Every number of the key that is at least 1."""
        return (self.rows, self.inner, self.columns, self.batch)

    @property
    def product(self) -> tuple[str, int, int, int, int]:
        """The matrix product alone, whatever is folded into it."""
        return (self.precision, *self.sizes)

    @property
    def order(self) -> tuple[int, ...]:
        """Where its entry stands among those of a table."""
        return (self.rows, self.inner, self.columns, self.batch, self.precision == "bf16", self.statistics)

    def distance(self, other: LinearKey) -> tuple[float, ...]:
        """How unlike another key it is: what must fit in a tile first, then how much work there is."""

        def ratio(a: int, b: int) -> float:
            return abs(math.log2(a / b))

        return (
            self.head_size != other.head_size,
            ratio(self.columns, other.columns) + ratio(self.rows * self.batch, other.rows * other.batch),
            ratio(self.inner, other.inner),
            replace(self, precision=other.precision) != other,
            self.precision != other.precision,
        )

    def __str__(self) -> str:
        parts = [self.norm and f"{self.norm} norm", f"{self.inner} to {self.columns}", self.activation]
        parts += ["QK-norm" * self.qk_norm, "RoPE" * self.rope, "residual" if self.residual else ""]
        parts += ["statistics" * self.statistics, f"batch {self.batch}", self.precision]
        return ", ".join([f"{self.rows} tokens", *(part for part in parts if part)])
