from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from cat2dog.config import NAMED, Config, parameter_count
from cat2dog.model import Cat2Dog, Rope, parameter_shapes

SMALL = Config(resolution=48, patch=8, width=48, depth=2, heads=3)
VARIANTS = {
    "layernorm-gelu": SMALL,
    "rmsnorm-swiglu": replace(SMALL, norm="rmsnorm", mlp="swiglu", mlp_ratio=8 / 3),
    "no-bias": replace(SMALL, bias=False),
    "no-qk-norm": replace(SMALL, qk_norm=False),
    "learned-position": replace(SMALL, rope=False),
    "all-switched": replace(SMALL, norm="rmsnorm", mlp="swiglu", bias=False, qk_norm=False, rope=False),
}


@pytest.fixture(params=VARIANTS)
def config(request):
    return VARIANTS[request.param]


def test_every_switch_keeps_the_shape_and_counts_its_parameters(config):
    torch.manual_seed(0)
    model = Cat2Dog(config)
    assert parameter_count(config) == sum(p.numel() for p in model.parameters())
    for batch in (1, 3):
        assert model(torch.randn(batch, 3, 48, 48)).shape == (batch, 3, 48, 48)
    assert not [name for name, _ in model.named_buffers() if name in model.state_dict()]


@pytest.mark.parametrize("name", NAMED)
def test_the_closed_form_count_is_exact(name):
    with torch.device("meta"):
        model = Cat2Dog(NAMED[name])
    assert parameter_count(NAMED[name]) == sum(p.numel() for p in model.parameters())


def test_the_wrong_shape_is_refused_while_tests_run():
    with pytest.raises(Exception, match="image"):
        Cat2Dog(SMALL)(torch.zeros(1, 4, 48, 48))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_modules_stay_in_their_precision(config, dtype):
    torch.manual_seed(0)
    model = Cat2Dog(config).eval()
    image = torch.randn(2, 3, 48, 48)
    with torch.no_grad():
        wide = model(image)
        narrow = model.to(dtype)(image.to(dtype))
    assert narrow.dtype == dtype
    error = (narrow.float() - wide).std() / wide.std()
    assert error < (0.01 if dtype == torch.float16 else 0.06)


def test_meta_modules_run_and_get_their_tables_later():
    with torch.device("meta"):
        model = Cat2Dog(SMALL)
        assert model(torch.empty(2, 3, 48, 48)).shape == (2, 3, 48, 48)
    plain = Cat2Dog(SMALL)
    model.load_state_dict(plain.state_dict(), assign=True)
    model.fill_tables()
    image = torch.randn(1, 3, 48, 48)
    assert torch.equal(model(image), plain(image))


def test_export_keeps_the_batch_free_and_one_attention_a_block(config):
    torch.manual_seed(0)
    model = Cat2Dog(config).eval()
    batch = torch.export.Dim("batch", min=1, max=64)
    exported = torch.export.export(model, (torch.randn(2, 3, 48, 48),), dynamic_shapes=({0: batch},))
    attention = torch.ops.aten.scaled_dot_product_attention.default
    assert sum(node.target == attention for node in exported.graph.nodes) == config.depth
    image = torch.randn(5, 3, 48, 48)
    torch.testing.assert_close(exported.module()(image), model(image), rtol=1e-4, atol=1e-5)


def test_one_attention_function_serves_every_block():
    torch.manual_seed(0)
    model, calls = Cat2Dog(SMALL), []

    def attend(q, k, v):
        calls.append(q.shape)
        return F.scaled_dot_product_attention(q, k, v)

    image = torch.randn(2, 3, 48, 48)
    assert torch.equal(model(image, attend), model(image))
    assert calls == [(2, 3, 36, 16)] * 2


def test_rope_scores_depend_on_the_offset_alone():
    torch.manual_seed(0)
    rope = Rope(SMALL)
    q, k = (torch.randn(16).expand(1, 1, 36, 16) for _ in range(2))
    scores = (rope(q) @ rope(k).transpose(-1, -2)).reshape(6, 6, 6, 6)  # query row, column, key row, column
    torch.testing.assert_close(scores[0, 0, 2, 1], scores[3, 4, 5, 5], rtol=1e-5, atol=1e-5)
    assert (scores[0, 0, 2, 1] - scores[0, 0, 1, 2]).abs() > 1e-3  # rows are not columns
    torch.testing.assert_close(rope(q).norm(dim=-1), q.norm(dim=-1))


def test_patches_come_back_where_they_were():
    model = Cat2Dog(replace(SMALL, width=192, heads=3))
    with torch.no_grad():
        for linear in (model.embed, model.head):
            linear.weight.copy_(torch.eye(192))
            linear.bias.zero_()
    image = torch.randn(2, 3, 48, 48)
    model.norm = torch.nn.Identity()
    assert torch.allclose(model.picture(model.tokens(image)), image)


def test_modules_have_readable_names():
    names = parameter_shapes(NAMED["tiny-128"])
    for name in ("blocks.3.norm1.weight", "blocks.3.attention.qkv.bias", "blocks.3.attention.q_norm.weight",
                 "blocks.3.attention.out.weight", "blocks.3.mlp.up.weight", "norm.weight", "head.bias"):  # fmt: skip
        assert name in names
    assert names["blocks.0.attention.qkv.weight"] == (576, 192)
