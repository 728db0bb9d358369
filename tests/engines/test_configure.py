"""Builder settings for TensorRT 8.6, 10 and 11 and for TensorRT-RTX, on stand-ins that record what they are told."""

from __future__ import annotations

from enum import IntEnum
from types import SimpleNamespace

import pytest

from engines.configure import configure, create_network, major, precision_holds
from engines.timing_cache import read_timing_cache, write_timing_cache
from runtime.errors import InputError

DataType = IntEnum("DataType", "FLOAT HALF INT32 UINT8", start=0)
_MOVING = "CONSTANT SHAPE CAST IDENTITY SHUFFLE SLICE CONCATENATION GATHER"
LayerType = IntEnum("LayerType", f"{_MOVING} NORMALIZATION PLUGIN_V2 MATRIX_MULTIPLY SOFTMAX TOPK", start=0)
BuilderFlag = IntEnum("BuilderFlag", "FP16 OBEY_PRECISION_CONSTRAINTS TF32 REFIT", start=0)


class Layer:
    """As 8.6 shows layers while a network is made: every tensor of floats reads as FP32."""

    def __init__(self, kind, *dtypes, name="", inputs=()):
        self.type, self.name, self.inputs = kind, name, list(inputs)
        self.outputs = [SimpleNamespace(dtype=dtype, name=f"{id(self)}.{i}") for i, dtype in enumerate(dtypes)]
        self.num_inputs, self.num_outputs, self.output_types = len(self.inputs), len(dtypes), {}

    def get_input(self, index):
        return self.inputs[index]

    def get_output(self, index):
        return self.outputs[index]

    def set_output_type(self, index, dtype):
        self.output_types[index] = dtype


class Config:
    def __init__(self, style):
        self.flags, self.profiles, self.pool, self.sources = {BuilderFlag.TF32}, [], {}, None
        self.caches, self.refuses, self.previews = [], False, {}
        if style == "rtx":
            self.capabilities = {}
            self.set_compute_capability = lambda capability, index: self.capabilities.update({index: capability})

    def set_flag(self, flag):
        self.flags.add(flag)

    def clear_flag(self, flag):
        self.flags.discard(flag)

    def set_preview_feature(self, feature, on):
        self.previews[feature] = on

    def set_tactic_sources(self, sources):
        self.sources = sources

    def set_memory_pool_limit(self, pool, size):
        self.pool[pool] = size

    def add_optimization_profile(self, profile):
        self.profiles.append(profile)

    def create_timing_cache(self, data):
        return data

    def set_timing_cache(self, cache, ignore_mismatch):
        assert ignore_mismatch is False
        if cache == b"foreign":
            return False
        self.caches.append(cache)
        return True


class Profile:
    def __init__(self):
        self.shapes = {}

    def set_shape(self, name, least, tuned, most):
        self.shapes[name] = (least, tuned, most)


def fake(version, style=""):
    flags = {"EXPLICIT_BATCH": 0} if version < "9" and version[0] != "1" else {"EXPLICIT_BATCH": 0, "STRONGLY_TYPED": 1}
    if version.startswith("11"):
        flags = {}
    trt = SimpleNamespace(
        __version__=version,
        __name__="tensorrt_rtx_bindings" if style == "rtx" else "tensorrt",
        NetworkDefinitionCreationFlag=SimpleNamespace(**flags),
        ProfilingVerbosity=SimpleNamespace(DETAILED="detailed"),
        MemoryPoolType=SimpleNamespace(WORKSPACE="workspace"),
        TacticSource=SimpleNamespace(JIT_CONVOLUTIONS=4, EDGE_MASK_CONVOLUTIONS=3),
        DataType=DataType,
        LayerType=LayerType,
        ComputeCapability=SimpleNamespace(SM80="sm80", SM86="sm86", SM120="sm120"),
    )
    if not version.startswith("11"):
        trt.BuilderFlag = BuilderFlag
    if version < "9" and version[0] != "1":
        trt.PreviewFeature = SimpleNamespace(PROFILE_SHARING_0806="profile sharing")
    config = Config(style)
    builder = SimpleNamespace(
        create_builder_config=lambda: config,
        create_optimization_profile=Profile,
        create_network=lambda flags: flags,
    )
    return trt, builder


def network(layers=(), shapes=((-1, 8, 8, 3), (-1, 4), (5,))):
    inputs = [SimpleNamespace(name=f"in{index}", shape=shape) for index, shape in enumerate(shapes)]
    return SimpleNamespace(
        num_inputs=len(inputs), get_input=inputs.__getitem__, num_layers=len(layers), get_layer=list(layers).__getitem__
    )


def request(precision="fp16", targets=(), timing_cache=None, **options):
    return {
        "precision": precision,
        "targets": list(targets),
        "options": options,
        "profile": {"batch": [1, 2, 4]},
        "timing_cache": timing_cache,
        "layer_types": {},
    }


@pytest.mark.parametrize(
    ("version", "style", "number", "flags"),
    [("8.6.0", "", 8, 1), ("10.14.1", "", 10, 2), ("11.1.0", "", 11, 0), ("1.7.1.116", "rtx", 10, 2)],
)
def test_networks_are_typed_as_the_version_can(version, style, number, flags):
    trt, builder = fake(version, style)
    assert major(trt) == number
    assert create_network(trt, builder) == flags


def layers_of_8_6():
    wide, whole = DataType.FLOAT, DataType.INT32
    product = Layer(LayerType.MATRIX_MULTIPLY, wide, name="up/MatMul")
    shuffle = Layer(LayerType.SHUFFLE, wide, name="(Unnamed Layer* 3) [Shuffle]", inputs=[None, product.outputs[0]])
    cast = Layer(LayerType.CAST, wide, name="Cast_fp32", inputs=[shuffle.outputs[0]])
    norm = Layer(LayerType.NORMALIZATION, wide, name="(Unnamed Layer* 5)", inputs=[cast.outputs[0]])
    helper = Layer(LayerType.SOFTMAX, wide, name="(Unnamed Layer* 6)", inputs=[norm.outputs[0]])
    mixed = Layer(LayerType.TOPK, wide, whole, name="topk")
    left = [
        Layer(LayerType.CONSTANT, wide, name="up/MatMul"),
        Layer(LayerType.PLUGIN_V2, wide, name="Attention"),
        Layer(LayerType.TOPK, whole, name="topk"),
        Layer(LayerType.SOFTMAX, name="topk"),
        cast,
    ]
    unknown = Layer(LayerType.SOFTMAX, wide, name="(Unnamed Layer* 9)", inputs=[SimpleNamespace(name="constant")])
    types = {"up/MatMul": "fp16", "Cast_fp32": "fp32", "topk": "fp16", "Attention": "fp16"}
    return [product, shuffle, cast, norm, helper, mixed, unknown, *left[:4]], types, left


def test_8_6_holds_each_layer_that_computes_to_the_type_of_the_graph():
    layers, types, left = layers_of_8_6()
    product, shuffle, _, norm, helper, mixed, unknown, *_ = layers
    trt, builder = fake("8.6.0")
    assert precision_holds(trt, request()) == ("graph", "free", "fp32")
    config = configure(trt, builder, network(layers), {**request(), "layer_types": types}, None)
    assert config.flags >= {BuilderFlag.FP16, BuilderFlag.OBEY_PRECISION_CONSTRAINTS}
    assert config.sources == 1 << 4 | 1 << 3
    # The helper has no name of the graph's: it takes the type of what it is given, past what is not held itself.
    for layer, dtype in ((product, DataType.HALF), (helper, DataType.FLOAT), (mixed, DataType.HALF)):
        assert (layer.precision, layer.output_types) == (dtype, {0: dtype})
    assert not any(hasattr(layer, "precision") or layer.output_types for layer in (*left, shuffle, norm, unknown))


def test_8_6_can_be_left_to_choose():
    layers, types, _ = layers_of_8_6()
    given = {**request(), "layer_types": types}
    config = configure(*fake("8.6.0"), network(layers), given, None, hold="free")
    assert BuilderFlag.FP16 in config.flags and BuilderFlag.OBEY_PRECISION_CONSTRAINTS not in config.flags
    assert not any(hasattr(layer, "precision") or layer.output_types for layer in layers)


def test_8_6_can_hold_every_layer_to_fp32():
    layers, types, left = layers_of_8_6()
    trt, builder = fake("8.6.0")
    configure(trt, builder, network(layers), {**request(), "layer_types": types}, None, hold="fp32")
    for layer in layers:
        held = {} if any(layer is each for each in left) else {0: DataType.FLOAT}
        assert layer.output_types == held


@pytest.mark.parametrize(("version", "precision"), [("8.6.0", "fp32"), ("10.3.0", "fp16"), ("11.1.0", "bf16")])
def test_others_have_one_way_to_hold_precisions(version, precision):
    assert precision_holds(fake(version)[0], request(precision)) == ("graph",)


def test_8_6_lets_contexts_share_a_profile():
    assert configure(*fake("8.6.0"), network(), request(), None).previews == {"profile sharing": True}
    assert configure(*fake("8.6.0"), network(shapes=((1, 8, 8, 3),)), request(), None).previews == {}
    assert configure(*fake("10.14.1"), network(), request(), None).previews == {}


def test_8_6_in_fp32_uses_no_tf32_and_no_half():
    trt, builder = fake("8.6.0")
    assert configure(trt, builder, network(), request("fp32"), None).flags == set()


def test_8_6_has_no_bf16():
    trt, builder = fake("8.6.0")
    with pytest.raises(
        InputError, match=r"^TensorRT 8\.6\.0 has no BF16: use --precision fp16, or TensorRT 10 or newer$"
    ):
        configure(trt, builder, network(), request("bf16"), None)


@pytest.mark.parametrize("version", ["10.3.0", "11.1.0"])
@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_newer_versions_take_no_precision_flags(version, precision):
    trt, builder = fake(version)
    layer = Layer(LayerType.MATRIX_MULTIPLY, DataType.HALF, name="up")
    config = configure(trt, builder, network([layer]), {**request(precision), "layer_types": {"up": "fp16"}}, None)
    assert config.flags == {BuilderFlag.TF32} and config.sources is None and not hasattr(layer, "precision")


def test_the_profile_covers_every_dynamic_input():
    trt, builder = fake("10.3.0")
    (profile,) = configure(trt, builder, network(), request(), None).profiles
    assert profile.shapes == {
        "in0": ((1, 8, 8, 3), (2, 8, 8, 3), (4, 8, 8, 3)),
        "in1": ((1, 4), (2, 4), (4, 4)),
    }
    assert configure(*fake("10.3.0"), network(shapes=((1, 4),)), request(), None).profiles == []


def test_options_and_the_inspectors_detail():
    config = configure(*fake("10.3.0"), network(), request(workspace_mib=512, optimization_level=4), None)
    assert config.pool == {"workspace": 512 << 20} and config.builder_optimization_level == 4
    assert config.profiling_verbosity == "detailed"
    assert not hasattr(configure(*fake("10.3.0"), network(), request(), None), "builder_optimization_level")


def test_an_engine_that_takes_new_weights_has_the_flag():
    for version in ("8.6.0", "10.3.0"):
        assert BuilderFlag.REFIT in configure(*fake(version), network(), request(refit="0123"), None).flags
        assert BuilderFlag.REFIT not in configure(*fake(version), network(), request(), None).flags


def test_targets_are_for_tensorrt_rtx():
    config = configure(*fake("1.7.1.116", "rtx"), network(), request(targets=("8.0", "12.0")), None)
    assert config.num_compute_capabilities == 2 and config.capabilities == {0: "sm80", 1: "sm120"}
    with pytest.raises(
        InputError,
        match=r"^TensorRT 1\.7\.1\.116 does not build for compute capability 9\.0; it knows 12\.0, 8\.0, 8\.6$",
    ):
        configure(*fake("1.7.1.116", "rtx"), network(), request(targets=("9.0",)), None)
    with pytest.raises(
        InputError, match=r"^TensorRT 10\.3\.0 builds only for the GPU it runs on; leave out --targets$"
    ):
        configure(*fake("10.3.0"), network(), request(targets=("8.0",)), None)


@pytest.mark.parametrize(("content", "used"), [(None, b""), (b"mine", b"mine"), (b"foreign", b"")])
def test_a_foreign_timing_cache_is_not_used(content, used, tmp_path):
    path = tmp_path / "timing.cache"
    if content is not None:
        write_timing_cache(path, content)
    config = configure(*fake("10.3.0"), network(), request(timing_cache=str(path)), None)
    assert config.caches == [used]


def test_a_timing_cache_with_a_flipped_bit_is_not_used(tmp_path):
    path = tmp_path / "timing.cache"
    write_timing_cache(path, bytes(range(64)))
    sound = path.read_bytes()
    assert read_timing_cache(path) == bytes(range(64))
    for index in range(len(sound)):
        path.write_bytes(sound[:index] + bytes([sound[index] ^ (1 << index % 8)]) + sound[index + 1 :])
        assert read_timing_cache(path) == b""
    path.write_bytes(sound[:-1])
    assert read_timing_cache(path) == b""
    path.write_bytes(b"as TensorRT itself writes it")
    assert configure(*fake("10.3.0"), network(), request(timing_cache=str(path)), None).caches == [b""]
