"""Packed queries, keys and values: found however they are written, split the other way, equal number for number."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from engines.attention import lower_attention
from engines.batch import BatchProfile
from engines.lowering import lower
from engines.qkv_split import split_packed_qkv
from export.export import export
from export.recipe import ModuleRecipe
from runtime.runner import TensorSpec
from tests.export.micro import assert_close, run_onnx


class Packed(nn.Module):
    """Attention as vision libraries write it; `how` takes the three apart."""

    def __init__(self, how: str, norm: bool = False):
        super().__init__()
        torch.manual_seed(0)  # with some weights FP16 is further off than the bound
        self.how, self.qkv, self.out = how, nn.Linear(32, 96), nn.Linear(32, 32)
        self.q_norm = nn.LayerNorm(16) if norm else nn.Identity()
        nn.init.normal_(self.qkv.weight, std=0.5)

    def forward(self, x):
        batch, tokens, width = x.shape
        qkv = self.qkv(x).reshape(batch, tokens, 3, 2, 16).permute(2, 0, 3, 1, 4)
        if self.how == "unbind":
            q, k, v = qkv.unbind(0)
        elif self.how == "index":
            q, k, v = qkv[0], qkv[1], qkv[2]
        elif self.how == "shuffled":
            v, q, k = qkv[2], qkv[0], qkv[-2]
        else:
            q, k, v = (part.squeeze(0) for part in qkv.split(1))
        y = F.scaled_dot_product_attention(self.q_norm(q), k, v)
        return self.out(y.transpose(1, 2).reshape(batch, tokens, width))


class Twice(nn.Module):
    def __init__(self, how):
        super().__init__()
        self.first, self.second = Packed(how), Packed(how, norm=True)

    def forward(self, x):
        return self.second(x + self.first(x))


def exported(module, folder, precision="fp32", batch=None):
    spec = TensorSpec("x", "float32", (-1, 9, 32))
    recipe = ModuleRecipe("net", lambda: module, [spec], [TensorSpec("y", "float32", spec.shape)], samples=3)
    return recipe, export(recipe, folder / "net.onnx", precision, batch=batch).path


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("how", ["unbind", "index", "shuffled", "split"])
def test_the_rewrite_changes_no_number(how, precision, tmp_path):
    recipe, path = exported(Twice(how), tmp_path, precision)
    lowered = lower(path, "decomposed", BatchProfile.parse("1-4"))
    assert lowered.qkv_splits == 2
    graph = onnx.load(lowered.path, load_external_data=False).graph
    splits = [node for node in graph.node if node.op_type == "Split"]
    assert [node.attribute[0].i for node in splits] == [2, 2]
    ranks = {value.name: len(value.type.tensor_type.shape.dim) for value in graph.value_info}
    assert 5 not in ranks.values() and not [
        node for node in graph.node if node.op_type in ("Gather", "Squeeze", "Slice")
    ]

    model = ir.load(path)
    lower_attention(model, "decomposed")
    ir.save(model, path.with_name("unsplit.onnx"))
    for batch in (1, 3):
        feed = recipe.validation(batch)
        got = run_onnx(lowered.path, feed)
        assert np.array_equal(got["y"], run_onnx(path.with_name("unsplit.onnx"), feed)["y"])
        assert_close(got, recipe.reference(feed), 1e-5 if precision == "fp32" else 1e-2)


def test_a_fixed_batch_is_split_too(tmp_path):
    recipe, path = exported(Packed("unbind"), tmp_path, batch=2)
    lowered = lower(path, "decomposed", BatchProfile(2, 2, 2))
    assert lowered.qkv_splits == 1
    feed = recipe.validation(2)
    assert np.abs(run_onnx(lowered.path, feed)["y"] - recipe.reference(feed)["y"]).max() < 1e-4


def test_the_native_form_is_left_as_it_is(tmp_path):
    _, path = exported(Packed("unbind"), tmp_path)
    assert lower(path, "native", BatchProfile.parse("1-4")).qkv_splits == 0


class Kept(Packed):
    """The folded tensor is also an output: there is nothing to gain by splitting."""

    def forward(self, x):
        qkv = self.qkv(x).reshape(x.shape[0], 9, 3, 2, 16).permute(2, 0, 3, 1, 4)
        return F.scaled_dot_product_attention(*qkv.unbind(0)).sum((1, 3)), qkv.transpose(0, 1)


class Pairs(nn.Module):
    """Folded alike, but two of them, and of another order."""

    def forward(self, x):
        first, second = x.reshape(x.shape[0], 9, 2, 4, 4).permute(2, 0, 3, 1, 4).unbind(0)
        q, k, v = torch.cat([x, x, x], -1).reshape(x.shape[0], 9, 3, 2, 16).permute(2, 0, 1, 3, 4).unbind(0)
        return (first * second).sum((1, 3)), (q * k * v).sum((2, 3))


@pytest.mark.parametrize(("module", "shapes"), [(lambda: Kept("unbind"), ((9,), (3, 2, 9, 16))), (Pairs, ((9,), (9,)))])
def test_what_looks_alike_is_left_alone(module, shapes, tmp_path):
    outputs = [TensorSpec(name, "float32", (-1, *shape)) for name, shape in zip("yz", shapes, strict=True)]
    recipe = ModuleRecipe("net", module, [TensorSpec("x", "float32", (-1, 9, 32))], outputs)
    path = export(recipe, tmp_path / "net.onnx").path
    lowered = lower(path, "decomposed", BatchProfile.parse("1-4"))
    assert lowered.qkv_splits == 0
    feed = recipe.validation()
    got, expected = run_onnx(lowered.path, feed), recipe.reference(feed)
    assert all(np.abs(got[name] - expected[name]).max() < 1e-4 for name in expected)


def test_the_rewrite_is_done_once(tmp_path):
    _, path = exported(Packed("index"), tmp_path)
    model = ir.load(path)
    assert (split_packed_qkv(model), split_packed_qkv(model)) == (1, 0)
