"""Models that are not ours, and models unlike ours: a library's vision transformer, convolutions, several tensors."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from export.export import export
from export.recipe import ModuleRecipe
from runtime.errors import InputError
from runtime.runner import TensorSpec
from tests.export.micro import assert_close, assert_sound, attention_ops, run_onnx

TOLERANCE = {"fp32": 1e-5, "fp16": 6e-3}


def library_vit():
    """transformers' own ViT, small and untrained; its heads see 17 tokens of 16 channels."""
    from transformers import ViTConfig, ViTForImageClassification

    class Logits(nn.Module):
        def __init__(self):
            super().__init__()
            config = ViTConfig(
                hidden_size=64, num_hidden_layers=3, num_attention_heads=4, intermediate_size=96,
                image_size=32, patch_size=8, num_labels=10, attn_implementation="sdpa",
            )  # fmt: skip
            self.vit = ViTForImageClassification(config)
            for name, parameter in self.named_parameters():
                if name.endswith("weight") and parameter.ndim > 1:
                    nn.init.normal_(parameter, std=0.1)

        def forward(self, pixel_values):
            return self.vit(pixel_values=pixel_values).logits

    return ModuleRecipe(
        "vit",
        Logits,
        [TensorSpec("pixel_values", "float32", (-1, 3, 32, 32))],
        [TensorSpec("logits", "float32", (-1, 10))],
    )


class ConvNet(nn.Module):
    """Plain and depthwise convolutions, BatchNorm with statistics, pooling, a nearest upsampling, a skip."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, stride=2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(16)
        self.depthwise = nn.Conv2d(16, 16, 5, padding=2, groups=16)
        self.norm2 = nn.BatchNorm2d(16)
        self.down = nn.MaxPool2d(2)
        self.up = nn.Upsample(scale_factor=2, mode="nearest")
        self.head = nn.Linear(16, 10)
        for norm in (self.norm, self.norm2):
            nn.init.uniform_(norm.weight, 0.5, 2)
            nn.init.normal_(norm.bias)
            nn.init.normal_(norm.running_mean)
            nn.init.uniform_(norm.running_var, 0.5, 2)

    def forward(self, x):
        x = torch.relu(self.norm(self.stem(x)))
        x = x + self.up(self.down(nn.functional.gelu(self.norm2(self.depthwise(x)))))
        return self.head(x.mean((2, 3)))


def conv_net():
    return ModuleRecipe(
        "conv", ConvNet, [TensorSpec("x", "float32", (-1, 3, 32, 32))], [TensorSpec("logits", "float32", (-1, 10))]
    )


class TwoByTwo(nn.Module):
    """Tokens and a picture in; logits and the index of the largest out."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(2, 8)
        self.look = nn.Linear(3 * 4 * 4, 8)
        self.head = nn.Linear(8, 5)

    def forward(self, tokens, picture):
        seen = self.look((picture.float() / 255).flatten(1))
        logits = self.head(self.embed(tokens).mean(1) + seen)
        return logits, logits.argmax(-1, keepdim=True)


def two_by_two():
    return ModuleRecipe(
        "two", TwoByTwo,
        [TensorSpec("tokens", "int64", (-1, 6)), TensorSpec("picture", "uint8", (-1, 4, 4, 3))],
        [TensorSpec("logits", "float32", (-1, 5)), TensorSpec("best", "int64", (-1, 1))],
    )  # fmt: skip


RECIPES = {"vit": (library_vit, ["Attention"] * 3), "conv": (conv_net, []), "two": (two_by_two, [])}


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_gives_the_same_answers(name, precision, tmp_path):
    make, attention = RECIPES[name]
    recipe = make()
    file = export(recipe, tmp_path / "m.onnx", precision)
    assert_sound(file)
    assert attention_ops(file.path) == attention
    for batch in (1, 3):
        feed = recipe.validation(batch)
        assert_close(run_onnx(file.path, feed), recipe.reference(feed), TOLERANCE[precision])


@pytest.mark.parametrize("name", ["vit", "conv"])
def test_a_static_batch_answers_the_same(name, tmp_path):
    recipe = RECIPES[name][0]()
    file = export(recipe, tmp_path / "m.onnx", "fp16", batch=2)
    assert_sound(file)
    graph = onnx.load(file.path, load_external_data=False).graph
    assert all(not d.dim_param for v in (*graph.input, *graph.output) for d in v.type.tensor_type.shape.dim)
    feed = recipe.validation(2)
    assert_close(run_onnx(file.path, feed), recipe.reference(feed), TOLERANCE["fp16"])


@pytest.mark.parametrize(("opset", "dtype"), [(17, onnx.TensorProto.FLOAT), (22, onnx.TensorProto.BFLOAT16)])
def test_convolutions_are_bf16_where_onnx_has_them(opset, dtype, tmp_path):
    file = export(conv_net(), tmp_path / "m.onnx", "bf16", opset=opset)
    assert_sound(file, opset)
    graph = onnx.load(file.path, load_external_data=False).graph
    types = {value.name: value.type.tensor_type.elem_type for value in graph.value_info}
    types.update({tensor.name: tensor.data_type for tensor in graph.initializer})
    for op in ("Conv", "MaxPool"):
        assert {types[n.output[0]] for n in graph.node if n.op_type == op} == {dtype}
    assert types[next(n for n in graph.node if n.op_type == "Gemm").input[1]] == onnx.TensorProto.BFLOAT16


def test_a_batch_norm_folded_into_a_convolution_does_not_make_it_fp32(tmp_path):
    file = export(conv_net(), tmp_path / "m.onnx", "fp16")
    graph = onnx.load(file.path, load_external_data=False).graph
    assert not [node for node in graph.node if node.op_type == "BatchNormalization"]
    types = {value.name: value.type.tensor_type.elem_type for value in graph.value_info}
    assert [types[n.output[0]] for n in graph.node if n.op_type == "Conv"] == [onnx.TensorProto.FLOAT16] * 2
    assert sum(node.op_type == "Cast" for node in graph.node) == 2, "one in, one out"


class Odd(nn.Module):
    """What modules may return: one tensor twice, equal tensors, an input, a constant."""

    def forward(self, x):
        y = x * 2
        return y, y, x + 1, x + 1, x, torch.arange(3.0).expand(x.shape[0], 3)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_outputs_may_be_equal_inputs_or_constants(precision, tmp_path):
    outputs = [TensorSpec(name, "float32", (-1, 3)) for name in ("twice", "again", "more", "likewise", "same", "fixed")]
    recipe = ModuleRecipe("odd", Odd, [TensorSpec("x", "float32", (-1, 3))], outputs)
    file = export(recipe, tmp_path / "m.onnx", precision)
    feed = recipe.validation()
    assert_close(run_onnx(file.path, feed), recipe.reference(feed), TOLERANCE[precision])


def test_names_of_the_recipe_may_be_names_within_the_graph(tmp_path):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(3, 3)

        def forward(self, relu, linear):
            return torch.relu(self.linear(relu)) + linear, torch.relu(linear)

    specs = [TensorSpec(name, "float32", (-1, 3)) for name in ("linear", "relu", "add", "val_0")]
    recipe = ModuleRecipe("names", Net, specs[:2], specs[2:])
    file = export(recipe, tmp_path / "m.onnx", "fp16")
    feed = recipe.validation()
    assert_close(run_onnx(file.path, feed), recipe.reference(feed), TOLERANCE["fp16"])


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        ([("logits", "float32")], r"^recipe 'two' names 1 outputs, its module has 2$"),
        (
            [("logits", "float32"), ("best", "float32")],
            r"^recipe 'two': output 'best' is int64 in the graph, float32 in the recipe$",
        ),
    ],
)
def test_a_recipe_that_misdescribes_its_module_is_refused(outputs, message, tmp_path):
    recipe = two_by_two()
    recipe.outputs = [TensorSpec(name, dtype, (-1, 5)) for name, dtype in outputs]
    with pytest.raises(InputError, match=message):
        export(recipe, tmp_path / "m.onnx")
    assert [path.name for path in tmp_path.iterdir()] == [".m.onnx.lock"]


def test_pixels_are_folded_into_a_recipe_that_asks_for_it(tmp_path):
    class Brighten(nn.Module):
        def forward(self, image):
            return image + 0.25

    spec = TensorSpec("image", "uint8", (-1, 8, 8, 3))
    recipe = ModuleRecipe("bright", Brighten, [spec], [TensorSpec("out", "uint8", spec.shape)])
    recipe.pixels = ((127.5,) * 3, (100.0, 50.0, 200.0))
    file = export(recipe, tmp_path / "m.onnx", "fp16")
    pictures = recipe.validation()["image"]
    expected = np.clip(np.rint(pictures + 0.25 * np.array([100.0, 50.0, 200.0])), 0, 255)
    got = run_onnx(file.path, {"image": pictures})["out"]
    assert got.dtype == np.uint8 and np.abs(got - expected).max() <= 1
