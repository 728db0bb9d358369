"""Plans as the Python launcher gives them to CUDA's driver, which a stand-in plays here."""

from __future__ import annotations

import ctypes
import struct
from dataclasses import replace
from types import SimpleNamespace

import pytest

from engines.kernels import driver
from engines.kernels.driver import LoadedPlan, bind, bytes_of
from engines.kernels.launch import Image, Launch, LaunchPlan, Null, Number, Pointer, Tensor, TensorMap
from runtime.errors import MissingExtra, ToolchainError

MAP = TensorMap(Pointer("input", 0, 64), "fp16", (64, "B*60", 2), (128, "B*7680"), (64, 8, 1), "128B")
ARGUMENTS = (
    Pointer("input", 0),
    Pointer("output", 0, "B*2"),
    Pointer("workspace", 0, 256),
    Number("i32", "B*N"),
    Number("i64", 1 << 40),
    Number("f32", 0.1),
    Null(),
    MAP,
)
FIRST = Launch(1, "first", ("B*20", "cdiv(N,128)", 1), 384, 100_000, ARGUMENTS, cluster=2, programmatic=True)
SECOND = Launch(0, "second", ("B-3", 1, 1), 128, 0, (Pointer("output"),))
PLAN = LaunchPlan(
    "9.0",
    (Tensor("fp16", ("B", "N", 64)), Tensor("fp32", ("N", "B*4"))),
    (Tensor("fp16", ("B", "N", 64)),),
    (FIRST, SECOND),
    (Image(b"zero"), Image(b"one")),
    workspace="B*4096",
)
SIZES = (8, 8, 8, 4, 8, 4, 8, 128)


class Status(int):
    name = "CUDA_ERROR_OF_THE_TEST"


class FakeDriver:
    """The calls that LoadedPlan makes of cuda.bindings.driver; `fails` names one of them, `missing` a kernel."""

    def __init__(self, fails: str = "", missing: str = ""):
        self.fails, self.missing = fails, missing
        self.loaded: list[bytes] = []
        self.attributes: list[tuple] = []
        self.maps: list[tuple] = []
        self.launches: list[tuple] = []
        self.CUfunction_attribute = SimpleNamespace(CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES="most shared")
        self.CUlaunchAttributeID = SimpleNamespace(
            CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION="programmatic",
            CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION="cluster",
        )
        self.CUtensorMapDataType = Named("CU_TENSOR_MAP_DATA_TYPE_")
        self.CUtensorMapSwizzle = Named("CU_TENSOR_MAP_SWIZZLE_")
        self.CUtensorMapInterleave = Named("CU_TENSOR_MAP_INTERLEAVE_")
        self.CUtensorMapL2promotion = Named("CU_TENSOR_MAP_L2_PROMOTION_")
        self.CUtensorMapFloatOOBfill = Named("CU_TENSOR_MAP_FLOAT_OOB_FILL_")
        self.cuuint64_t = self.cuuint32_t = int

    def _answer(self, call, value=None):
        failed = call == self.fails
        return (Status(failed),) if value is None or failed else (Status(0), value)

    def cuModuleLoadData(self, data):
        if self.fails == "cuModuleLoadData" and data == b"one":
            return (Status(1),)
        self.loaded.append(data)
        return Status(0), data

    def cuModuleUnload(self, module):
        self.loaded.remove(module)
        return self._answer("cuModuleUnload")

    def cuModuleGetFunction(self, module, name):
        assert module in self.loaded
        return (Status(1),) if name.decode() == self.missing else (Status(0), (module, name.decode()))

    def cuFuncSetAttribute(self, function, attribute, value):
        self.attributes.append((function[1], attribute, value))
        return self._answer("cuFuncSetAttribute")

    def CUlaunchConfig(self):
        return SimpleNamespace()

    def CUlaunchAttribute(self):
        return SimpleNamespace(value=SimpleNamespace(clusterDim=SimpleNamespace()))

    def cuTensorMapEncodeTiled(self, *given):
        self.maps.append(given)
        descriptor = ctypes.create_string_buffer(bytes(range(128)), 128)
        made = SimpleNamespace(getPtr=lambda: ctypes.addressof(descriptor), keep=descriptor)
        return self._answer("cuTensorMapEncodeTiled", made)

    def cuLaunchKernelEx(self, config, function, parameters, extra):
        # As the driver does: each pointer leads to the bytes of one argument.
        count = {"first": len(SIZES), "second": 1}[function[1]]
        pointers = (ctypes.c_void_p * count).from_address(parameters)
        values = [ctypes.string_at(pointer, size) for pointer, size in zip(pointers, SIZES, strict=False)]
        self.launches.append((function[1], config, values, list(pointers)))
        return self._answer("cuLaunchKernelEx")


class Named:
    """Every member of an enumeration, as the end of its name."""

    def __init__(self, prefix):
        self._prefix = prefix

    def __getattr__(self, name):
        assert name.startswith(self._prefix)
        return name.removeprefix(self._prefix)


@pytest.fixture
def fake(monkeypatch):
    made = FakeDriver()
    monkeypatch.setattr(driver, "bindings", lambda: made)
    return made


def launch(fake, names, plan=PLAN):
    with LoadedPlan(plan) as loaded:
        loaded.prepare([1 << 32, 2 << 32], [3 << 32], 4 << 32, names).launch(77)
    return fake.launches


def test_arguments_are_packed_as_the_kernel_takes_them(fake):
    _, config, values, pointers = launch(fake, {"B": 4, "N": 257})[0]
    numbers = [struct.unpack(code, value)[0] for code, value in zip("QQQiqfQ", values, strict=False)]
    assert numbers[:5] == [1 << 32, (3 << 32) + 8, (4 << 32) + 256, 4 * 257, 1 << 40]
    assert numbers[5] == struct.unpack("f", struct.pack("f", 0.1))[0] and numbers[6] == 0
    assert values[7] == bytes(range(128)) and pointers[7] % 64 == 0
    assert (config.gridDimX, config.gridDimY, config.gridDimZ) == (80, 3, 1)
    assert (config.blockDimX, config.blockDimY, config.blockDimZ) == (384, 1, 1)
    assert (config.sharedMemBytes, config.hStream) == (100_000, 77)


def test_a_tensor_map_is_encoded_as_the_plan_says(fake):
    launch(fake, {"B": 4, "N": 257})
    assert fake.maps == [
        (
            "FLOAT16",
            3,
            (1 << 32) + 64,
            [64, 240, 2],
            [128, 30720],
            [64, 8, 1],
            [1, 1, 1],
            "NONE",
            "128B",
            "L2_128B",
            "NONE",
        )
    ]


def test_attributes_are_set_where_the_plan_has_them(fake):
    first, second = launch(fake, {"B": 4, "N": 257})
    programmatic, cluster = first[1].attrs
    assert (programmatic.id, programmatic.value.programmaticStreamSerializationAllowed) == ("programmatic", 1)
    dimension = cluster.value.clusterDim
    assert (cluster.id, dimension.x, dimension.y, dimension.z) == ("cluster", 2, 1, 1)
    assert first[1].numAttrs == 2
    assert second[1].attrs == [] and second[1].numAttrs == 0
    # Up to 48 KiB need no asking.
    assert fake.attributes == [("first", "most shared", 100_000)]


def test_a_launch_whose_grid_has_a_0_is_skipped(fake):
    assert [name for name, *_ in launch(fake, {"B": 3, "N": 1})] == ["first"]
    fake.launches.clear()
    assert [name for name, *_ in launch(fake, {"B": 4, "N": 0})] == ["second"]


def test_modules_are_loaded_in_order_and_unloaded(fake):
    with LoadedPlan(PLAN) as loaded:
        assert fake.loaded == [b"zero", b"one"]
        assert loaded.workspace_bytes({"B": 3}) == 3 * 4096
    assert fake.loaded == []
    loaded.close()


@pytest.mark.parametrize(
    "trouble", [{"missing": "second"}, {"fails": "cuModuleLoadData"}, {"fails": "cuFuncSetAttribute"}], ids=str
)
def test_modules_are_unloaded_when_loading_goes_wrong(monkeypatch, trouble):
    fake = FakeDriver(**trouble)
    monkeypatch.setattr(driver, "bindings", lambda: fake)
    with pytest.raises(ToolchainError, match=r"^CUDA's driver failed: CUDA_ERROR_OF_THE_TEST$"):
        LoadedPlan(PLAN)
    assert fake.loaded == []


@pytest.mark.parametrize("call", ["cuTensorMapEncodeTiled", "cuLaunchKernelEx"])
def test_a_failed_call_is_told_and_the_modules_go(monkeypatch, call):
    fake = FakeDriver(call)
    monkeypatch.setattr(driver, "bindings", lambda: fake)
    with pytest.raises(ToolchainError, match="CUDA_ERROR_OF_THE_TEST"):
        launch(fake, {"B": 4, "N": 1})
    assert fake.loaded == []


def test_every_module_is_unloaded_though_one_fails(monkeypatch):
    fake = FakeDriver("cuModuleUnload")
    monkeypatch.setattr(driver, "bindings", lambda: fake)
    loaded = LoadedPlan(PLAN)
    with pytest.raises(ToolchainError):
        loaded.close()
    assert fake.loaded == []


def test_a_number_that_an_i32_does_not_hold_is_refused(fake):
    names = {"B": 1 << 16, "N": 1 << 15}
    with pytest.raises(ValueError, match=r"argument B\*N is 2147483648, which an i32 does not hold"):
        launch(fake, names)
    assert fake.launches == [] and fake.loaded == []


def test_bind_gives_what_names_stand_for():
    assert bind(PLAN, [[3, 257, 64], [257, 12]]) == {"B": 3, "N": 257}


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ([[3, 257, 64]], "1 shapes for 2 inputs"),
        ([[3, 257], [257, 12]], r"shape \[3, 257\] does not fit"),
        ([[3, 257, 65], [257, 12]], r"shape \[3, 257, 65\] does not fit"),
        ([[3, 257, 64], [256, 12]], r"shape \[256, 12\] does not fit"),
        ([[3, 257, 64], [257, 13]], r"shape \[257, 13\] does not fit"),
    ],
)
def test_bind_refuses_shapes_that_do_not_fit(shapes, message):
    with pytest.raises(ValueError, match=message):
        bind(PLAN, shapes)


def test_an_expression_binds_no_name():
    plan = replace(PLAN, inputs=(Tensor("fp16", ("B*4",)),))
    with pytest.raises(ValueError, match="B is bound by no input"):
        bind(plan, [[12]])


def test_bytes_of_a_tensor():
    assert bytes_of("fp16", [2, 3]) == 12 and bytes_of("fp32", []) == 4 and bytes_of("u8", [0, 5]) == 0


def test_without_cuda_bindings_the_message_names_the_package(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    with pytest.raises(MissingExtra, match="pip install cuda-bindings"):
        driver.bindings()
