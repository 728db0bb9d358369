"""The denoiser in INT8: smaller, similar pictures, and what is left as it is."""

from __future__ import annotations

import onnx
import pytest

from runtime.judge import scores
from runtime.onnxruntime_runner import OnnxRuntimeRunner
from tests.zoo.text2image.denoisers import REQUESTS, exported, in_int8, opened
from zoo.text2image import quantized as quantization
from zoo.text2image.compare import compared
from zoo.text2image.quantized import quantizable

pytestmark = pytest.mark.xdist_group("text2image")


@pytest.mark.slow
@pytest.mark.parametrize("family", ["unet", "transformer"])
def test_in_int8_it_is_smaller_and_gives_similar_pictures(family):
    pipeline, recipe = opened(family)
    wide, narrow = compared(pipeline, REQUESTS, [exported(family, "fp32"), in_int8(family)])[1:]
    weights = sum(each.numel() for each in recipe.module().parameters()) * 4e-6
    assert wide.megabytes - narrow.megabytes > weights / 2  # what is not quantized is the position embedding
    assert 22 <= min(narrow.psnr_db) < min(wide.psnr_db)
    with OnnxRuntimeRunner(in_int8(family)) as runner:
        feed = recipe.validation()
        assert min(scores("cosine", runner.infer(feed), recipe.reference(feed))) > quantization.JUDGE[1]
    nodes = onnx.load(in_int8(family)).graph.node
    quantizers = [node for node in nodes if node.op_type == "DequantizeLinear"]
    assert len(quantizers) > 20
    made = {output for node in quantizers for output in node.output}
    for node in nodes:
        if node.op_type in ("Conv", "Gemm"):
            assert (node.input[1] in made) == ("conv_in" not in node.name and "conv_out" not in node.name), node.name


def test_products_of_two_activations_and_the_ends_stay_as_they_are():
    import onnx_ir as ir

    from engines.batch import BatchProfile
    from engines.lowering import lower

    model = ir.load(lower(exported("unet", "fp32"), "decomposed", BatchProfile(1, 1, 2)).path)
    chosen = set(quantizable(model))
    products = [node for node in model.graph if node.op_type in ("MatMul", "Gemm", "Conv")]
    left = [node for node in products if node.name not in chosen]
    ends = [node for node in left if "conv_in" in node.name or "conv_out" in node.name]
    attention = [node for node in left if node not in ends]
    assert len(ends) == 2 and len(attention) == 2 * len([n for n in model.graph if n.op_type == "Softmax"]) > 0
    assert all(not value.is_initializer() for node in attention for value in node.inputs)
