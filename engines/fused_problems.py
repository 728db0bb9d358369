"""The attention problems of a neutral graph: what fused kernels would be asked for, to tune them for it."""

from __future__ import annotations

from pathlib import Path

from engines.attention import lower_attention
from engines.batch import BatchProfile
from engines.fused_attention import FusedLowering
from engines.kernels.problem import AttentionProblem, FusedKernel, Unsupported
from engines.lowering import fix_batch, load
from engines.qkv_split import split_packed_qkv


def attention_problems(neutral: Path, batch: int) -> list[AttentionProblem]:
    """Each problem once, in the order of the graph, with what can be folded in; nodes no kernel covers are left out.

    Raises InputError for a file that is not ONNX, or whose batch is fixed to another size.
    """
    model, profile = load(neutral), BatchProfile(batch, batch, batch)
    symbols = fix_batch(model, profile, neutral)
    split_packed_qkv(model)
    found: dict[AttentionProblem, None] = {}

    def ask(problem: AttentionProblem) -> FusedKernel:
        found[problem] = None
        raise Unsupported("only asked for")

    lower_attention(model, "plugin", FusedLowering(ask, profile, symbols), "decomposed")
    return list(found)
