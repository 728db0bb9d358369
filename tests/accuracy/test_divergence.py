"""Planted faults are found: the block, and the operator in it. A sound graph has none."""

from __future__ import annotations

import numpy as np
import pytest

from accuracy.blocks import find_blocks, same_values
from accuracy.candidates import lowered_reference
from accuracy.divergence import first_divergence
from accuracy.plot import write_plot
from accuracy.thresholds import UNIT
from engines.batch import BatchProfile
from engines.lowering import load, lower
from engines.proxy import runnable
from tests.accuracy import plants
from tests.engines.linear_stand_ins import LinearStandIn
from tests.engines.stand_ins import StandInPlanner

pytestmark = pytest.mark.xdist_group("accuracy")


@pytest.fixture(scope="module")
def feed():
    return plants.recipe().validation(1)


def found(feed, name, *changes, both=()):
    """The divergence of the FP16 graph with `both` and `changes` from the FP32 graph with `both`."""
    candidate = plants.changed(plants.graph("fp16"), f"{name}_fp16", *both, *changes)
    reference = plants.changed(plants.graph("fp32"), f"{name}_fp32", *both)
    return first_divergence(candidate, reference, feed, "fp16")


@pytest.mark.parametrize("precision", ["fp16", pytest.param("bf16", marks=pytest.mark.slow)])
def test_a_sound_graph_has_none(feed, precision):
    with runnable(plants.graph(precision)) as path:
        divergence = first_divergence(path, plants.graph("fp32"), feed, precision)
    assert divergence.suspect is None and divergence.op is None and divergence.ops == ()
    assert "no block jumps" in divergence.why
    names = [block.name for block in divergence.blocks]
    assert [name for name in names if "blocks" in name] == [f"network.blocks.{n}" for n in range(4)]
    assert names[1] == "network.embed" and names[-1] == "pixels_out"
    for block in divergence.blocks:
        assert block.own <= 3 * UNIT[precision] and block.not_finite == 0


def test_blocks_cover_the_graph_once():
    model = load(plants.graph("fp16"))
    blocks = find_blocks(model, list(same_values(model, load(plants.graph("fp32")))))
    positions = {node.name: index for index, node in enumerate(model.graph)}
    covered = [positions[node.name] for block in blocks for node in block.nodes]
    assert covered == list(range(len(covered)))
    assert not any(block.name == "network.rope" for block in blocks)  # it runs within every block


@pytest.mark.parametrize("block", [0, 2])
def test_a_scaled_weight(feed, block):
    module = f"network.blocks.{block}.mlp.down"
    divergence = found(feed, "weight", plants.scale_weight(f"{module}.weight.t", 1.05))
    assert divergence.suspect == f"network.blocks.{block}", divergence.why
    assert divergence.op == f"{module}/MatMul", divergence.why


def test_swapped_halves_of_rope(feed):
    # RoPE is a module shared by all blocks: only its place in the graph tells which block a node of it is in.
    model = load(plants.graph("fp16"))
    blocks = {block.name: block for block in find_blocks(model, list(same_values(model, load(plants.graph("fp32")))))}
    concat = next(node.name for node in blocks["network.blocks.1"].nodes if node.op_type == "Concat")
    assert concat.startswith("network.rope/")
    divergence = found(feed, "rope", plants.swap_rope_halves(concat))
    assert divergence.suspect == "network.blocks.1", divergence.why
    assert divergence.op == concat, divergence.why


def test_a_norm_forced_to_fp16_overflows(feed):
    # RMS norms do not care how large their input is, until its square no longer fits.
    large = plants.scale_weight("network.blocks.2.attention.qkv.weight.t", 1500.0)
    bias = plants.scale_weight("network.blocks.2.attention.qkv.bias", 1500.0)
    norm = "network.blocks.2.attention.q_norm"
    divergence = found(feed, "norm", plants.narrow_norm(norm), both=(large, bias))
    assert divergence.suspect == "network.blocks.2", divergence.why
    assert divergence.op == f"{norm}/Pow", divergence.why
    guilty = next(op for op in divergence.ops if op.name == divergence.op)
    assert guilty.not_finite > 0 and 256 < guilty.input_largest < 65504
    assert f"{guilty.not_finite} values NaN or infinite" in divergence.why and "65504" in divergence.why
    assert f"{guilty.input_largest:.4g}" in divergence.why


def test_a_softmax_without_its_maximum(feed):
    steep = plants.scale_weight("network.blocks.3.attention.q_norm.weight", 20.0)
    softmax = next(n.name for n in load(plants.graph("fp16")).graph
                   if n.op_type == "Softmax" and n.name.startswith("network.blocks.3."))  # fmt: skip
    sound = found(feed, "steep", both=(steep,))
    assert "NaN" not in sound.why
    divergence = found(feed, "softmax", plants.plain_softmax(softmax), both=(steep,))
    assert divergence.suspect == "network.blocks.3", divergence.why
    assert divergence.op == f"{softmax}.Exp", divergence.why
    assert "NaN or infinite" in divergence.why


def test_a_graph_with_fused_attention(feed):
    """Its nodes run by their bodies, and what was folded into them has no counterpart in the FP32 graph."""
    neutral = plants.neutral("fp16")
    fused = lower(neutral, "plugin", BatchProfile(1, 1, 1), StandInPlanner()).path
    with runnable(fused) as path:
        sound = first_divergence(path, plants.graph("fp32"), feed, "fp16")
    assert sound.suspect is None and len(sound.blocks) == 9, sound.why
    gain = next(node for node in load(fused).graph if node.name.startswith("network.blocks.1.attention/Att")).inputs[2]
    wrong = plants.scale_weight(gain.name, 1.5)
    with runnable(plants.changed(fused, "fused", wrong)) as path:
        divergence = first_divergence(path, plants.graph("fp32"), feed, "fp16")
    assert divergence.suspect == "network.blocks.1", divergence.why
    assert divergence.op.startswith("network.blocks.1.attention/Attention"), divergence.why


def test_the_plot_marks_the_suspect(feed, tmp_path):
    from PIL import Image

    divergence = found(feed, "plot", plants.scale_weight("network.blocks.1.mlp.up.weight.t", 1.2))
    write_plot(tmp_path / "plot.png", divergence, "micro")
    with Image.open(tmp_path / "plot.png") as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    assert pixels.shape == (460, 900, 3)
    under = pixels[345:]
    assert (under[..., 0] - under[..., 1]).max() > 100  # a name in red


@pytest.fixture(scope="module")
def fused():
    """The FP16 graph with attention and linear layers in fused nodes, by a planner whose kernels launch nothing."""
    planners = StandInPlanner(), "decomposed", LinearStandIn()
    lowered = lower(plants.neutral("fp16"), "plugin", BatchProfile(1, 1, 1), *planners)
    assert {choice.form for choice in (*lowered.nodes, *lowered.linear)} == {"plugin"}
    return lowered.path


def test_fused_linear_layers_are_mapped_to_blocks(feed, fused):
    reference = lowered_reference(plants.neutral("fp32"), "plugin")
    with runnable(fused) as path:
        divergence = first_divergence(path, reference, feed, "fp16")
    assert "no block jumps" in divergence.why, divergence.why
    names = [block.name for block in divergence.blocks]
    assert [name for name in names if "blocks" in name] == [f"network.blocks.{n}" for n in range(4)]
    assert all(block.own <= 3 * UNIT["fp16"] for block in divergence.blocks)


@pytest.mark.parametrize(("layer", "factor"), [("mlp.up", 1.1), ("attention.out", 1.05), ("attention.qkv", 1.2)])
def test_a_fused_layer_that_is_off(feed, fused, layer, factor):
    module = f"network.blocks.1.{layer}"
    names = load(fused).graph.initializers
    matrix = next(name for name in names if name.startswith(module) and name.endswith((".rows", ".normed")))
    candidate = plants.changed(fused, f"fused_{layer}", plants.scale_weight(matrix, factor))
    reference = lowered_reference(plants.neutral("fp32"), "plugin")
    with runnable(candidate) as path:
        divergence = first_divergence(path, reference, feed, "fp16")
    assert divergence.suspect == "network.blocks.1", divergence.why
    # What leaves the fused qkv has no counterpart: the error shows in the attention behind it.
    expected = "network.blocks.1.attention/Attention" if layer == "attention.qkv" else f"{module}/MatMul"
    assert divergence.op == expected, divergence.why
