"""What a graph would ask fused kernels for."""

from __future__ import annotations

import pytest

from engines.fused_problems import attention_problems
from runtime.errors import InputError
from tests.export.micro import micro_export, micro_recipe


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_every_layer_of_a_checkpoint_asks_for_one_kernel(precision):
    config = micro_recipe().config
    (problem,) = attention_problems(micro_export(precision).path, 4)
    assert (problem.precision, problem.batch, problem.layout, problem.output) == (
        precision,
        (4, 4, 4),
        "packed",
        "tokens",
    )
    assert (problem.heads, problem.head_size, problem.queries) == (config.heads, config.head_size, config.tokens)
    assert problem.rope and problem.qk_norm == pytest.approx(config.norm_eps)


def test_fp32_has_none():
    assert attention_problems(micro_export("fp32").path, 1) == []


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match=r"^there is no ONNX file .*x\.onnx: `cat2dog export` writes it$"):
        attention_problems(tmp_path / "x.onnx", 1)
