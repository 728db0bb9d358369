"""Every way to call scaled dot-product attention becomes one node, and the node computes what PyTorch computes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from export.export import export
from export.recipe import ModuleRecipe
from runtime.errors import InputError
from runtime.runner import TensorSpec
from tests.export.micro import assert_close, assert_sound, attention_ops, run_onnx

TOLERANCE = {"fp32": 2e-6, "fp16": 4e-3}


def bool_mask(*shape):
    mask = torch.rand(*shape, generator=torch.Generator().manual_seed(1)) > 0.4
    mask[..., 0] = True  # a row that sees nothing has no softmax
    return mask


def float_mask(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1)) * 3


def filled_mask(*shape):
    """As libraries write them; its first row sees nothing, and must not become not-a-number."""
    mask = torch.zeros(*shape).masked_fill(~bool_mask(*shape), torch.finfo(torch.float32).min)
    mask[..., 0, :] = torch.finfo(torch.float32).min
    return mask


L, S = 7, 9
Q, K, WIDE, ONE, TWO, FLAT, FLAT_K = "q", "k", "wide", "one", "two", "flat", "flat_k"
SHAPES = {Q: (4, L, 16), K: (4, S, 16), WIDE: (4, S, 24), ONE: (1, S, 16), TWO: (2, S, 16)}
SHAPES |= {FLAT: (L, 16), FLAT_K: (S, 16), "seen": (1, L, S), "added": (1, L, S)}
# What is called: the op expected, names of Q, K, V (and a mask that is an input), constant mask, other arguments.
CASES = {
    "plain": ("Attention", (Q, K, K), None, {}),
    "own_scale": ("Attention", (Q, K, K), None, {"scale": 0.7}),
    "other_value_size": ("Attention", (Q, K, WIDE), None, {}),
    "bool_mask": ("MaskedAttention", (Q, K, K), bool_mask(L, S), {}),
    "float_mask": ("MaskedAttention", (Q, K, K), float_mask(1, 4, L, S), {}),
    "filled_mask": ("MaskedAttention", (Q, K, K), filled_mask(L, S), {}),
    "bool_input": ("MaskedAttention", (Q, K, K, "seen"), None, {}),
    "float_input": ("MaskedAttention", (Q, K, K, "added"), None, {}),
    "causal": ("CausalAttention", (Q, Q, Q), None, {"is_causal": True}),
    "causal_longer_keys": ("CausalAttention", (Q, K, K), None, {"is_causal": True}),
    "grouped_queries": ("Attention", (Q, TWO, TWO), None, {"enable_gqa": True}),
    "one_key_head": ("CausalAttention", (Q, ONE, ONE), None, {"enable_gqa": True, "is_causal": True}),
    "flat_plain": ("Attention", (FLAT, FLAT_K, FLAT_K), None, {}),
    "flat_causal": ("CausalAttention", (FLAT, FLAT, FLAT), None, {"is_causal": True}),
    "flat_bool_mask": ("MaskedAttention", (FLAT, FLAT_K, FLAT_K), bool_mask(L, S), {}),
    "flat_own_mask": ("MaskedAttention", (FLAT, FLAT_K, FLAT_K), float_mask(1, L, S), {}),
}


class Every(nn.Module):
    """All cases in one module, since tracing costs a second however little there is to trace."""

    def __init__(self):
        super().__init__()
        for name, (_, _, mask, _) in CASES.items():
            self.register_buffer(name, mask)

    def forward(self, *inputs):
        given = dict(zip(SHAPES, inputs, strict=True))
        outputs = []
        for name, (_, (q, k, v, *mask), _, arguments) in CASES.items():
            attn_mask = given[mask[0]] if mask else getattr(self, name)
            outputs.append(F.scaled_dot_product_attention(given[q], given[k], given[v], attn_mask, **arguments))
        return tuple(outputs)


def every_recipe():
    inputs = [TensorSpec(name, "bool" if name == "seen" else "float32", (-1, *SHAPES[name])) for name in SHAPES]
    outputs = [
        TensorSpec(name, "float32", (-1, *SHAPES[q][:-1], SHAPES[v][-1]))
        for name, (_, (q, _, v, *_), _, _) in CASES.items()
    ]

    def sample(count, generator):
        feed = {spec.name: generator.standard_normal((count, *spec.shape[1:]), np.float32) for spec in inputs}
        feed["seen"] = feed["seen"] > -0.5
        feed["seen"][..., 0] = True
        return feed

    return ModuleRecipe("every", Every, inputs, outputs, sample=sample, samples=3)


@pytest.fixture(scope="module", params=["fp32", "fp16"])
def every(request, tmp_path_factory):
    """(precision, what the file answers, what PyTorch answers)."""
    recipe = every_recipe()
    file = export(recipe, tmp_path_factory.mktemp("every") / "every.onnx", request.param)
    assert_sound(file)
    assert attention_ops(file.path) == [op for op, *_ in CASES.values()]
    feed = recipe.validation()
    return request.param, run_onnx(file.path, feed), recipe.reference(feed)


@pytest.mark.parametrize("case", CASES)
def test_each_call_is_one_node_that_computes_what_pytorch_does(every, case):
    precision, got, expected = every
    answer, reference = got[case], expected[case]
    if case == "filled_mask":
        assert np.isfinite(answer).all()
        answer, reference = answer[:, :, 1:], reference[:, :, 1:]  # what a row that sees nothing gives, nobody uses
    assert_close({case: answer}, {case: reference}, TOLERANCE[precision])


def proved(tmp_path, module, inputs, output_shape, expected_ops, precision, opset=17):
    recipe = ModuleRecipe("m", lambda: module, inputs, [TensorSpec("y", "float32", (-1, *output_shape))], samples=3)
    file = export(recipe, tmp_path / "m.onnx", precision, opset=opset)
    assert_sound(file, opset)
    assert attention_ops(file.path) == expected_ops
    feed = recipe.validation()
    assert_close(run_onnx(file.path, feed), recipe.reference(feed), TOLERANCE[precision])


class SelfAttention(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(32, 4, batch_first=True)

    def forward(self, x):
        return self.attention(x, x, x, need_weights=False)[0]


@pytest.mark.parametrize(("precision", "opset"), [("fp32", 17), ("fp16", 23)])
def test_multihead_attention(precision, opset, tmp_path):
    inputs = [TensorSpec("x", "float32", (-1, 10, 32))]
    proved(tmp_path, SelfAttention(), inputs, (10, 32), ["Attention"], precision, opset)


@pytest.mark.parametrize("norm_first", [False, True])
def test_transformer_encoder_layers(norm_first, tmp_path):
    layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True, norm_first=norm_first)
    module = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.2)
    inputs = [TensorSpec("x", "float32", (-1, 10, 32))]
    proved(tmp_path, module.eval(), inputs, (10, 32), ["Attention"] * 2, "fp32")


def test_the_fast_path_of_multihead_attention_is_left_as_it_was(tmp_path):
    assert torch.backends.mha.get_fastpath_enabled()
    inputs = [TensorSpec("x", "float32", (-1, 10, 32))]
    proved(tmp_path, SelfAttention(), inputs, (10, 32), ["Attention"], "fp32")
    assert torch.backends.mha.get_fastpath_enabled()


class Dropped(nn.Module):
    def forward(self, x):
        return F.scaled_dot_product_attention(x, x, x, dropout_p=0.1)


def test_dropout_in_attention_is_refused(tmp_path):
    spec = TensorSpec("x", "float32", (-1, 4, L, 16))
    recipe = ModuleRecipe("m", Dropped, [spec], [TensorSpec("y", "float32", spec.shape)])
    with pytest.raises(InputError, match=r"^attention has dropout 0\.1; export a module in eval mode, where it is 0$"):
        export(recipe, tmp_path / "m.onnx")
