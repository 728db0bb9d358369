"""Launch plans as text, and what is no plan."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.kernels.launch import (
    Image,
    Launch,
    LaunchPlan,
    Null,
    Number,
    Pointer,
    Tensor,
    TensorMap,
    fnv1a,
)

MAP = TensorMap(Pointer("input", 0, 64), "fp16", ("B*60", 256, 2), (7680, "B*128"), (64, 128, 1), "128B")
LAUNCH = Launch(
    1,
    "attention_sm90",
    ("B*20", "cdiv(N,128)", 1),
    384,
    197632,
    (
        Pointer("input", 0),
        Pointer("output", 0, "B*2"),
        Pointer("workspace", 0, "B*4096"),
        Number("i32", "B*N"),
        Number("i64", 1 << 40),
        Number("f32", 0.1),
        Null(),
        MAP,
    ),
    cluster=2,
    programmatic=True,
)
PLAN = LaunchPlan(
    "9.0",
    (Tensor("fp16", ("B", "N", 3840)),),
    (Tensor("bf16", ("B", "N", 1280)),),
    (LAUNCH, Launch(0, "combine", (1, 1, 1), 128, 0, ())),
    (Image(b"first"), Image(b"the second")),
    workspace="B*8192",
    exact=True,
)
GOLDEN = """\
cat2dog-launch 1
target 90 exact
input fp16 B N 3840
output bf16 B N 1280
workspace B*8192
image 5 dd8a4d54e0e4628d
image 10 56cfbda29b9c3071
kernel 1 attention_sm90
grid B*20 cdiv(N,128) 1
block 384 1 1
shared 197632
cluster 2 1 1
serial programmatic
arg input 0 0
arg output 0 B*2
arg workspace B*4096
arg i32 B*N
arg i64 1099511627776
arg f32 0x1.999999999999ap-4
arg null
arg tensormap input 0 64 fp16 128B
dims B*60 256 2
strides 7680 B*128
box 64 128 1
kernel 0 combine
grid 1 1 1
block 128 1 1
shared 0
end
"""


def with_argument(argument):
    return replace(PLAN, launches=(replace(LAUNCH, arguments=(argument,)),))


def test_the_text_of_a_plan():
    assert PLAN.text() == GOLDEN
    assert PLAN.data == b"firstthe second"


def test_what_a_plan_does_not_have_is_left_out():
    least = LaunchPlan("8.6", PLAN.inputs, PLAN.outputs, (replace(LAUNCH, image=0, arguments=()),), (Image(b"i"),))
    text = replace(least, launches=(replace(least.launches[0], cluster=1, programmatic=False),)).text()
    assert "target 86 family\n" in text
    assert not any(word in text for word in ("workspace", "cluster", "serial", "\narg"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"inputs": (Tensor("fp64", (1,)),)}, "type fp64 is not one of fp16, bf16, fp32, i32, u8, i8"),
        ({"outputs": ()}, "0 outputs, expected 1 to 16"),
        ({"inputs": PLAN.inputs * 17}, "17 inputs, expected 1 to 16"),
        ({"launches": ()}, "0 kernels, expected 1 to 16"),
        ({"images": ()}, "0 images, expected 1 to 16"),
        ({"images": (Image(b"one"),)}, "kernel attention_sm90 is in image 1 of 1"),
        ({"launches": (replace(LAUNCH, name="two words"),)}, "'two words' is not one printable ASCII word"),
        ({"launches": (replace(LAUNCH, name="combiné"),)}, "is not one printable ASCII word"),
        ({"launches": (replace(LAUNCH, name=""),)}, "'' is not one printable ASCII word"),
        ({"launches": (replace(LAUNCH, arguments=(Null(),) * 65),)}, "has 65 arguments, at most 64"),
    ],
)
def test_an_impossible_plan_is_refused_when_made(changes, message):
    with pytest.raises(ValueError) as refused:
        replace(PLAN, **changes)
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        (Pointer("scratch"), "operand scratch is not one of input, output, workspace"),
        (Pointer("input", 1), "argument input 1 of 1"),
        (Pointer("output", -1), "argument output -1 of 1"),
        (Number("i16", 1), "number i16 is not one of i32, i64, f32"),
        (Number("f32", float("nan")), "argument nan is no finite FP32 number"),
        (Number("f32", 1e39), "argument 1e+39 is no finite FP32 number"),
        (replace(MAP, at=Pointer("input", 3)), "argument input 3 of 1"),
        (replace(MAP, dtype="fp8"), "type fp8 is not one of"),
        (replace(MAP, swizzle="256B"), "swizzle 256B is not one of none, 32B, 64B, 128B"),
        (replace(MAP, strides=(1,)), "a tensor map of 3 dims has 1 strides and 3 sizes of a box"),
        (replace(MAP, dims=(), strides=(), box=()), "a tensor map of 0 dims"),
    ],
)
def test_an_impossible_argument_is_refused_when_made(argument, message):
    with pytest.raises(ValueError) as refused:
        with_argument(argument)
    assert message in str(refused.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"workspace": "B**2"},
        {"inputs": (Tensor("fp16", ("B N",)),)},
        {"outputs": (Tensor("fp16", (-1,)),)},
        {"launches": (replace(LAUNCH, grid=("B,1", 1, 1)),)},
        {"launches": (replace(LAUNCH, arguments=(Number("i32", "b"),)),)},
        {"launches": (replace(LAUNCH, arguments=(replace(MAP, dims=("B\n", 1, 1)),)),)},
    ],
)
def test_a_size_that_is_none_is_not_written(changes):
    with pytest.raises(ValueError, match="size '"):
        replace(PLAN, **changes).text()


def test_fnv_folds_the_high_half():
    # FNV-1a's own test vectors are over bytes; over one 8-byte word the first steps are the same arithmetic.
    assert fnv1a(b"") == "cbf29ce484222325"
    value = (0xCBF29CE484222325 ^ int.from_bytes(b"cat2dog\0", "little")) * 0x100000001B3 % 2**64
    assert fnv1a(b"cat2dog") == f"{value ^ value >> 32:016x}"
    assert Image(b"cat2dog").fnv == fnv1a(b"cat2dog")


@given(st.binary(min_size=1, max_size=200), st.data())
def test_fnv_finds_flipped_bits(data, drawn):
    changed = bytearray(data)
    for at in drawn.draw(st.lists(st.integers(0, len(data) * 8 - 1), min_size=1, max_size=2, unique=True)):
        changed[at // 8] ^= 1 << at % 8
    assert fnv1a(bytes(changed)) != fnv1a(data)


def test_two_flipped_top_bits_do_not_cancel():
    data = bytearray(32)
    data[7] ^= 0x80
    data[15] ^= 0x80
    assert fnv1a(bytes(data)) != fnv1a(bytes(32))
