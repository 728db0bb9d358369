"""INT8: what is simulated in training is what the Q/DQ graph computes, and nothing else is rounded."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch

from runtime.errors import InputError
from runtime.onnxruntime_runner import OnnxRuntimeRunner
from tests.zoo.convnext.made import CLASSES, drawn, tensors, trained
from zoo.convnext import int8
from zoo.convnext.fake_quant import layers_of, quantizing
from zoo.convnext.loop import accuracy, prepared
from zoo.convnext.recipe import sized


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("int8") / "state")


@pytest.fixture(scope="module")
def val():
    return tensors(drawn().val)


@pytest.mark.slow
def test_calibrated_it_is_as_good_and_its_graph_computes_the_same(network, val, tmp_path):
    made = int8.calibrated(network, "all", tensors(drawn().train)[0], val)
    assert made.right >= accuracy(network, *val, 32) - 0.1
    pictures = sized(drawn().val.images, 32)
    path = int8.write(made, tmp_path / "int8.onnx", pictures[:4])
    simulated = int8.logits(made, torch.from_numpy(pictures)).numpy()
    with torch.no_grad():
        plain = network(prepared(torch.from_numpy(pictures), 32)).numpy()
    with OnnxRuntimeRunner(path, optimize=False) as runner:
        got = runner.infer({"image": pictures})["logits"]
    # Values half way between two levels may fall either way; all else is equal, and rounding is no small thing.
    noise = np.sqrt(np.mean((simulated - plain) ** 2))
    assert np.sqrt(np.mean((got - simulated) ** 2)) < noise / 2
    _check_graph(path, network)


def _check_graph(path, network):
    graph = onnx.load(path).graph
    scales = {each.name: onnx.numpy_helper.to_array(each) for each in graph.initializer}
    makers = {name: node for node in graph.node for name in node.output}
    rounded = 0
    for node in graph.node:
        if node.op_type in ("Conv", "Gemm", "MatMul"):
            weight = makers.get(node.input[1])
            is_rounded = weight is not None and weight.op_type == "DequantizeLinear"
            assert is_rounded == ("stem.patches" not in node.name and "head" not in node.name), node.name
            rounded += is_rounded
            if is_rounded:
                assert scales[weight.input[1]].ndim == 1 and scales[weight.input[0]].dtype == np.int8
        elif node.op_type != "QuantizeLinear":  # norms, activations and the residual stream take what was not rounded
            sources = [makers[name].op_type for name in node.input if name in makers]
            assert "DequantizeLinear" not in sources or node.op_type in ("Transpose",), node.name
    assert rounded == len(layers_of(network))


def test_training_with_rounding_learns_and_leaves_the_given_network_alone(network, val):
    before = {name: weight.clone() for name, weight in network.state_dict().items()}
    train = tensors(drawn().train)
    tuned = int8.finetuned(network, "pointwise", train, val, steps=4, batch=8)
    assert all(torch.equal(before[name], weight) for name, weight in network.state_dict().items())
    assert set(tuned.network.state_dict()) == set(before)
    moved = [name for name, weight in tuned.network.state_dict().items() if not torch.equal(before[name], weight)]
    assert "stages.0.0.mix.weight" in moved and "stem.patches.weight" in moved
    assert not any("depthwise" in layer for layer in tuned.layers) and tuned.right >= 1.5 / CLASSES


def test_gradients_pass_straight_through_and_the_network_is_plain_again(network):
    layers = layers_of(network)
    names = set(network.state_dict())
    x = prepared(torch.from_numpy(drawn().val.images[:2]), 32)
    plain = network(x)
    with quantizing(network, layers) as ranges:
        network(x)
        ranges.state = "hold"
        rounded = network(x)
        rounded.sum().backward()
        weight = network.stages[0][0].mix.parametrizations.weight
        levels = weight.original / (weight.original.abs().flatten(1).amax(1) / 127)[:, None, None, None]
        kept = network.stages[0][0].mix.weight / (weight.original.abs().flatten(1).amax(1) / 127)[:, None, None, None]
        torch.testing.assert_close(kept, levels.round(), atol=1e-3, rtol=0)
        assert weight.original.grad.abs().sum() > 0
    assert 0 < (rounded - plain).abs().max() < 0.5
    assert set(network.state_dict()) == names and torch.equal(network(x), plain)


def test_another_scheme_is_refused(network):
    with pytest.raises(InputError, match="scheme 'most'; expected one of pointwise, all"):
        layers_of(network, "most")
