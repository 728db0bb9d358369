"""The denoiser built by TensorRT-RTX ahead of time, in FP16 and in INT8; the gate judges it by a proxy."""

from __future__ import annotations

import pytest

from engines.batch import BatchProfile
from engines.build import BuildRequest, build
from engines.validation import Validation
from runtime.flavors import TENSORRT_RTX, find_flavor
from tests.zoo.text2image.denoisers import ALL, exported, in_int8, opened
from zoo.text2image import quantized

pytestmark = pytest.mark.xdist_group("text2image")
TARGETS = ("8.9",)


@pytest.fixture(scope="module")
def rtx():
    flavor = find_flavor(TENSORRT_RTX)
    if not flavor.can_build:
        pytest.skip(f"needs TensorRT-RTX: {flavor.reason}")
    return flavor


def assert_sound(engine, threshold):
    gate = engine.manifest.gate
    assert engine.fresh and engine.path.stat().st_size > 1e5
    assert (gate.state, gate.metric, gate.threshold) == ("pending", "cosine", threshold)
    assert len(gate.proxy_scores) == 2 and min(gate.proxy_scores) >= threshold
    assert engine.manifest.key.batch == (1, 2, 2)


@pytest.mark.slow
@pytest.mark.parametrize("family", ALL)
def test_it_is_built_in_fp16(rtx, family, tmp_path):
    recipe = opened(family)[1]
    feed = recipe.validation(2)
    request = BuildRequest(
        onnx=exported(family, "fp16"),
        checkpoint=recipe.name,
        precision="fp16",
        validation=Validation(feed, recipe.reference(feed), *recipe.judge, "PyTorch FP32 eager"),
        batch=BatchProfile(1, 2, 2),
        flavor=rtx,
        targets=TARGETS,
        root=tmp_path / "engines",
        judge=recipe.judge,
    )
    engine = build(request)
    assert_sound(engine, 0.999)
    forms = [choice.form for choice in engine.manifest.attention]
    assert set(forms) == {"native"} and len(forms) >= 2


@pytest.mark.slow
@pytest.mark.parametrize("family", ["unet", "transformer"])
def test_it_is_built_in_int8(rtx, family, tmp_path):
    engine = quantized.built(in_int8(family), opened(family)[1], tmp_path / "engines", TENSORRT_RTX, TARGETS)
    assert_sound(engine, 0.99)
