"""What the compiler made of attention for Hopper: which instructions stand between the waits for products."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from engines.kernels import images
from engines.kernels.plan import make_plan
from engines.kernels.problem import AttentionProblem
from engines.kernels.variants import Sm90Variant


def disassembler() -> str | None:
    """CUDA's own, or the one that comes with Triton."""
    spec = importlib.util.find_spec("triton")
    beside = Path(spec.origin).parent / "backends/nvidia/bin" if spec and spec.origin else Path("none")
    return shutil.which("nvdisasm") or shutil.which("nvdisasm", path=beside)


pytestmark = [
    pytest.mark.skipif(bool(images.why_not("nvrtc")), reason=images.why_not("nvrtc")),
    pytest.mark.skipif(disassembler() is None, reason="nvdisasm is neither on the PATH nor in Triton's package"),
]


def of_heads(size: int) -> AttentionProblem:
    return AttentionProblem("fp16", 20, size, 1024, 1024, size**-0.5, (4, 4, 4))


def instructions(tmp_path: Path, variant: Sm90Variant, problem: AttentionProblem) -> list[str]:
    plan = make_plan(problem, variant, "9.0")
    path = tmp_path / "kernel.cubin"
    path.write_bytes(plan.images[0].data)
    text = subprocess.run([str(disassembler()), "-c", path], capture_output=True, text=True, check=True).stdout
    return re.findall(r"/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([^;]+);", text)


def test_the_softmax_runs_beside_the_product_with_the_values(compiled, tmp_path):
    made = instructions(tmp_path, Sm90Variant(2, 128, 2, True, 132, overlap=True, ahead=True), of_heads(64))
    waits = [index for index, text in enumerate(made) if text.startswith("WARPGROUP.DEPBAR")]
    # First logits, then in the loop logits and the product, then the last product. More: products wait for each other.
    assert [made[index].split()[-1] for index in waits] == ["0x0", "0x1", "0x0", "0x0"]
    between = made[waits[1] : waits[2]]
    # Every weight of two rows, and what the sums before are worth.
    assert sum(text.startswith("MUFU.EX2") for text in between) == 128 // 2 + 2


@pytest.mark.parametrize(
    ("variant", "turned"),
    [
        (Sm90Variant(2, 64, 4, False, turners=2), True),
        (Sm90Variant(1, 128, 1, False, sharers=2), False),
        (Sm90Variant(1, 64, 2, False, sharers=2), False),
    ],
    ids=str,
)
def test_no_product_waits_for_another_where_blocks_help_each_other(compiled, tmp_path, variant, turned):
    fold = {"qk_norm": 1e-6, "rope": True} if turned else {}
    made = instructions(tmp_path, variant, AttentionProblem("fp16", 14, 128, 256, 256, 128**-0.5, (4, 4, 4), **fold))
    assert [text.split()[-1] for text in made if text.startswith("WARPGROUP.DEPBAR")] == ["0x0", "0x1", "0x0", "0x0"]
    assert not [text for text in made if text.startswith(("STL", "LDL"))]


@pytest.mark.parametrize(("size", "shape"), [(64, (1, 96, 3)), (64, (2, 48, 2)), (128, (1, 80, 2))])
@pytest.mark.slow
def test_no_product_waits_for_another_where_blocks_share_registers(compiled, tmp_path, size, shape):
    groups, block_n, resident = shape
    variant = Sm90Variant(groups, block_n, 2, False, resident=resident, overlap=True)
    made = instructions(tmp_path, variant, of_heads(size))
    assert sum(text.startswith("WARPGROUP.DEPBAR") for text in made) == 4
    assert not [text for text in made if text.startswith(("STL", "LDL"))]
