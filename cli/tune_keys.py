"""The problems of a cat2dog checkpoint that `cat2dog tune` measures: its attention, and its linear layers."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cat2dog.config import Config
    from engines.kernels.linear_key import LinearKey
    from engines.kernels.tables import ProblemKey

_NORMS = {"layernorm": "layer", "rmsnorm": "rms"}


def attention_keys(config: Config, precision: str, batch: int, plain: bool, both: bool) -> list[ProblemKey]:
    """A block's attention: with its QK-norm and RoPE inside, `plain` without; `both`, where layers before may turn."""
    from engines.kernels.tables import ProblemKey

    turned = ProblemKey(
        precision, config.heads, config.head_size, config.tokens, config.tokens, batch, "packed", "tokens",
        config.qk_norm, config.rope,
    )  # fmt: skip
    bare = replace(turned, qk_norm=False, rope=False)
    return list(dict.fromkeys((turned, bare))) if both else [bare if plain else turned]


def block_keys(config: Config, precision: str, batch: int) -> tuple[dict[str, LinearKey], ProblemKey] | None:
    """A block's linear layers by the names of `engines.kernels.tune_block.Block`, and its attention.

    None where attention itself takes QK-norm or RoPE: such a block is not measured as a whole.
    """
    names = ("qkv", "projection", "up", "down")
    layers = dict(zip(names, linear_keys(config, precision, batch)[1:5], strict=True))
    qkv = layers["qkv"]
    if (config.qk_norm, config.rope) != (qkv.qk_norm, qkv.rope):
        return None
    return layers, attention_keys(config, precision, batch, plain=True, both=False)[0]


def linear_keys(config: Config, precision: str, batch: int) -> list[LinearKey]:
    """Patch embedding, the four layers of a block, and the head, each with what lowering folds into it."""
    from engines.kernels.linear_key import LinearKey
    from engines.kernels.linear_problem import LinearProblem, Turning

    tokens, width, batches = config.tokens, config.width, (batch,) * 3
    norm = {"norm": _NORMS[config.norm], "epsilon": config.norm_eps}
    turning = None
    # What the planner cannot turn stays in attention, as lowering does it.
    if (config.qk_norm or config.rope) and config.head_size in (64, 128):
        turning = Turning(config.heads, config.head_size, 1e-6 if config.qk_norm else None, config.rope)
    gated = config.mlp == "swiglu"

    def layer(inner: int, columns: int, **more: object) -> LinearProblem:
        return LinearProblem(precision, tokens, inner, columns, batches, **{"bias": config.bias, **more})  # type: ignore[arg-type]

    problems = [
        layer(config.patch_channels, width, residual=None if config.rope else "shared", statistics=True),
        layer(width, 3 * width, **norm, turning=turning),
        layer(width, width, residual="sample", statistics=True),
        layer(width, config.hidden * (2 if gated else 1), **norm, activation="swiglu" if gated else "gelu"),
        layer(config.hidden, width, residual="sample", statistics=True),
        layer(width, config.patch_channels, **norm),
    ]
    return [LinearKey.of(problem) for problem in problems]
