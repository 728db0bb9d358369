"""The attention problems and variants that are proved on a GPU.

`python -m tests.engines.kernels.cases` compiles them all, for a GPU machine without compilers.
"""

from __future__ import annotations

from collections.abc import Iterator

from engines.kernels.plan import make_plan
from engines.kernels.problem import AttentionProblem, Unsupported
from engines.kernels.variants import Sm90Variant, TritonVariant, Variant

LENGTHS = (1, 17, 113, 239, 256, 1023, 1024, 4096)
BATCHES = {1: 8, 17: 3, 113: 2, 239: 5, 256: 8, 1023: 2, 1024: 4, 4096: 1}
TRITON = (TritonVariant(64, 64, 4, 2), TritonVariant(128, 64, 8, 3), TritonVariant(32, 64, 4, 2, splits=2))
SM90 = (
    Sm90Variant(1, 128, 2, turns=False),
    Sm90Variant(2, 128, 2, turns=True),
    Sm90Variant(2, 80, 3, turns=False, blocks=7),
    Sm90Variant(3, 80, 2, turns=True, blocks=5, parts=True),
    Sm90Variant(2, 160, 2, turns=True, blocks=11, parts=True),
    Sm90Variant(2, 80, 3, turns=True, overlap=True),
    Sm90Variant(2, 128, 2, turns=True, blocks=7, overlap=True, ahead=True),
    Sm90Variant(3, 80, 2, turns=True, blocks=5, parts=True, overlap=True, ahead=True),
    # Of several blocks on a multiprocessor: what has no registers for a head size is left out.
    Sm90Variant(1, 80, 2, turns=False, resident=2),
    Sm90Variant(1, 96, 2, turns=False, blocks=9, resident=3, overlap=True),
    Sm90Variant(2, 48, 2, turns=False, resident=2, overlap=True),
    Sm90Variant(2, 48, 3, turns=True, blocks=5, resident=2),
    # For heads of 128, and as many keys as make two blocks.
    Sm90Variant(1, 64, 2, turns=False, sharers=2),
    Sm90Variant(1, 128, 1, turns=False, sharers=2),
    Sm90Variant(2, 64, 2, turns=False, sharers=2),
)


def cases() -> Iterator[tuple[AttentionProblem, Variant]]:
    """Awkward lengths with both kinds of kernels; every head size, layout and fold at a few of them."""
    for precision in ("fp16", "bf16"):
        for length in LENGTHS:
            for size in (64, 128):
                plain = _problem(precision, length, size)
                for variant in (*TRITON[:2], *SM90):
                    yield plain, variant
        for size in (32, 40, 80, 96):
            for length in (17, 239, 1023):
                for variant in TRITON:
                    yield _problem(precision, length, size), variant
        for length in (17, 239, 256, 1023):
            for size in (40, 64, 128):
                for norm, rope in ((1e-6, True), (1e-6, False), (None, True)):
                    turned = _problem(precision, length, size, qk_norm=norm, rope=rope)
                    yield turned, TritonVariant(64, 64, 4, 2)
                    yield turned, TritonVariant(64, 64, 4, 2, prepare=True)
                    yield turned, Sm90Variant(2, 128, 2, turns=True, prepare=True)
                    yield turned, Sm90Variant(2, 80, 2, turns=True, blocks=6, parts=True, prepare=True)
                    # Inside, all keys are in shared memory: as many stages as there are blocks.
                    for groups, block_n in ((1, 64), (1, 128), (2, 80), (2, 128)) if length <= 256 else ():
                        yield turned, Sm90Variant(groups, block_n, -(-length // block_n), turns=groups > 1)
                    for groups, block_n in ((1, 64), (2, 64), (2, 32)) if 192 < length <= 256 else ():
                        shape = (groups, block_n, -(-length // block_n), False)
                        yield turned, Sm90Variant(*shape, turners=4 // groups)
        for layout in ("tokens", "heads"):
            for output in ("tokens", "heads"):
                for queries, keys in ((113, 239), (256, 77), (1, 300)):
                    across = AttentionProblem(precision, 3, 64, queries, keys, 0.125, (2, 2, 2), layout, output)
                    for variant in (TRITON[0], SM90[0], SM90[3]):
                        yield across, variant


def _problem(
    precision: str, length: int, size: int, qk_norm: float | None = None, rope: bool = False
) -> AttentionProblem:
    batch = BATCHES[length]
    return AttentionProblem(
        precision, 3, size, length, length, size**-0.5, (1, batch, batch), qk_norm=qk_norm, rope=rope
    )


def plans(target: str = "9.0") -> Iterator[tuple[AttentionProblem, Variant, object]]:
    """Every case with its plan; those that a variant does not cover are left out."""
    for problem, variant in cases():
        try:
            yield problem, variant, make_plan(problem, variant, target)
        except Unsupported:
            continue


if __name__ == "__main__":
    print(f"{sum(1 for _ in plans())} plans")
