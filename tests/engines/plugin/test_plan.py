"""The C++ reading of launch plans and sizes against the Python one, on golden plans, drawn sizes and damaged texts."""

from __future__ import annotations

import random
import re
import subprocess
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engines.kernels.launch import (
    SWIZZLES,
    Argument,
    Image,
    Launch,
    LaunchPlan,
    Null,
    Number,
    Pointer,
    Tensor,
    TensorMap,
)
from engines.kernels.sizes import Size, evaluate
from tests.engines.plugin.conftest import Built

pytestmark = pytest.mark.xdist_group("plugin")

NAMES = {"B": 3, "N": 7, "Z9_a": 1 << 40}


class Tool:
    """The C++ program that answers a line for a line."""

    def __init__(self, built: Built):
        self._child = subprocess.Popen(
            [built.plan_tool], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def ask(self, question: str) -> str:
        assert self._child.stdin and self._child.stdout and self._child.stderr
        self._child.stdin.write(question + "\n")
        self._child.stdin.flush()
        answer = self._child.stdout.readline()
        assert answer.startswith(("= ", "! ")), (question, self._child.stderr.read())
        return answer.rstrip("\n")

    def size(self, expression: str, names: Mapping[str, int] = NAMES) -> int | None:
        """Its value, or None where refused."""
        answer = self.ask(" ".join(["size", expression, *(f"{name}={value}" for name, value in names.items())]))
        return int(answer[2:]) if answer[0] == "=" else None

    def check(self, text: bytes) -> str:
        return self.ask(f"check {text.hex()}")

    def close(self) -> str:
        _, errors = self._child.communicate()
        return errors


@pytest.fixture(scope="module")
def tool(v2):
    """Of the build under AddressSanitizer."""
    made = Tool(v2)
    yield made
    assert made.close() == ""


ATTENTION = LaunchPlan(
    "9.0",
    inputs=(Tensor("fp16", ("B", "N", 3840)), Tensor("fp32", ("N", 32)), Tensor("fp16", ("B*4", "cdiv(N,8)"))),
    outputs=(Tensor("bf16", ("B", "N", 1280)), Tensor("u8", ("max(B,N)", "(B+1)*N-1"))),
    launches=(
        Launch(
            1,
            "attention_sm90",
            ("B*20", "cdiv(N,128)", 1),
            384,
            197632,
            (
                Pointer("input", 0),
                Pointer("input", 2, "B*2"),
                Pointer("output", 1, "N-1"),
                Pointer("workspace", 0, "B*4096"),
                Number("i32", "B*N"),
                Number("i64", "B*4294967296"),
                Number("f32", 0.125),
                Number("f32", -1.0 / 3.0),
                Number("f32", 1e-30),
                Number("f32", 0.0),
                Null(),
                TensorMap(
                    Pointer("input", 0, 2560), "fp16", (64, "60*B", "N"), (128, 7680), (64, 1, 128), swizzle="128B"
                ),
                TensorMap(Pointer("workspace", 0, 256), "fp32", ("N",), (), (8,)),
                TensorMap(Pointer("output", 0), "bf16", (1, 2, 3, 4, 5), (16, 32, 48, 64), (1, 2, 3, 4, 5), "32B"),
            ),
            cluster=2,
            programmatic=True,
        ),
        Launch(0, "combine", ("B", 1, 1), 128, 0, ()),
    ),
    images=(Image(b"first image"), Image(bytes(range(256)) * 5)),
    workspace="B*N*8192",
    exact=True,
)
LEAST = LaunchPlan(
    "8.0",
    inputs=(Tensor("i8", (1,)),),
    outputs=(Tensor("i32", ("2/1",)),),
    launches=(Launch(0, "k", (1, 1, 1), 1, 0, ()),),
    images=(Image(b"i"),),
)


def described(plan: LaunchPlan, names: Mapping[str, int]) -> str:
    """What the tool says of a plan, computed in Python."""

    def number(size: Size) -> int:
        return evaluate(size, names)

    def line(*words: object) -> str:
        return " ".join(str(word) for word in words if word != ())

    def many(sizes: Sequence[Size]) -> str:
        return "".join(f" {number(size)}" for size in sizes)

    def place(pointer: Pointer) -> str:
        index = "" if pointer.operand == "workspace" else f" {pointer.index}"
        return f"{pointer.operand}{index} {number(pointer.offset)}"

    def argument(given: Argument) -> str:
        if isinstance(given, Pointer):
            return place(given)
        if isinstance(given, Null):
            return "null"
        if isinstance(given, Number):
            return f"f32 {single(given.value)}" if given.kind == "f32" else f"{given.kind} {number(given.value)}"
        swizzle = SWIZZLES.index(given.swizzle)
        return (
            f"tensormap {place(given.at)} {given.dtype} {swizzle} dims{many(given.dims)} strides{many(given.strides)} "
            f"box{many(given.box)}"
        )

    text = f"= target {plan.target} {'exact' if plan.exact else 'family'}"
    for tensor in plan.outputs:
        text += f" output {tensor.dtype}{many(tensor.shape)}"
    text += f" workspace {number(plan.workspace)}"
    offset = 0
    for image in plan.images:
        text += f" image {offset} {len(image.data)}"
        offset += len(image.data)
    for launch in plan.launches:
        arguments = "".join(f" arg {argument(each)}" for each in launch.arguments)
        text += (
            f" | kernel {launch.image} {launch.name} grid{many(launch.grid)} block {launch.block} 1 1 "
            f"shared {launch.shared} cluster {launch.cluster} 1 1 programmatic {int(launch.programmatic)}{arguments}"
        )
    return text + " "


def single(value: float | str) -> str:
    """A number rounded to FP32, as C's %a writes it."""
    narrow = float(np.float32(value))
    if narrow == 0:
        return "0x0p+0"
    sign, digits, exponent = re.fullmatch(r"(-?)0x1\.?([0-9a-f]*)p([+-]\d+)", narrow.hex()).groups()
    fraction = digits.rstrip("0")
    return f"{sign}0x1{'.' if fraction else ''}{fraction}p{exponent}"


@pytest.mark.parametrize(("batch", "tokens"), [(1, 1), (3, 257), (64, 4096)])
def test_golden_plan(tool, batch, tokens):
    shapes = f"{batch},{tokens},3840;{tokens},32;{batch * 4},{-(-tokens // 8)}"
    answer = tool.ask(f"plan {ATTENTION.text().encode().hex()} {shapes}")
    assert answer == described(ATTENTION, {"B": batch, "N": tokens})


def test_the_least_plan(tool):
    assert tool.ask(f"plan {LEAST.text().encode().hex()} 1") == described(LEAST, {})
    assert tool.check(LEAST.text().encode() + bytes(3)) == "= ok"


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ("3,8,3840;8,32", "2 inputs, expected 3"),
        ("3,8,3840;9,32;12,1", "input 1 has shape [9,32], expected 8 in place of 9"),
        ("3,8,3840;8,32;13,1", "input 2 has shape [13,1], expected 12 in place of 13"),
        ("3,8;8,32;12,1", "input 0 has shape [3,8], expected 3 dimensions"),
        ("1000,8388480,3840;8388480,32;4000,1048560", "argument 4 is 8388480000, which an i32 does not hold"),
        ("200000000,1,3840;1,32;800000000,1", "at most 2147483647"),
        ("9223372036854775807,1,3840;1,32;1,1", "not between 0 and 2**63-1"),
    ],
)
def test_shapes_that_do_not_fit(tool, shapes, message):
    answer = tool.ask(f"plan {ATTENTION.text().encode().hex()} {shapes}")
    assert answer.startswith("! ") and message in answer


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("cat2dog-launch 1", "cat2dog-launch 2", "line 1: 'cat2dog-launch 2', expected 'cat2dog-launch 1'"),
        ("target 90", "target 9", "line 2: compute capability is '9', expected a whole number from 50 to 999"),
        ("exact", "only", "line 2: 'target 90 only', expected 'target CAPABILITY exact|family'"),
        ("input fp16 B N 3840", "input fp17 B N 3840", "line 3: 'input fp17 B N 3840', expected a type of fp16,"),
        ("input fp16 B N 3840", "input fp16  B N 3840", "expected words apart by one space"),
        ("input fp16 B N 3840", "input fp16 B*2 N 3840", "line 3: size 'B*2': a name is bound by no input"),
        ("output bf16 B N 1280", "output bf16 C N 1280", "line 6: size 'C': a name is bound by no input"),
        ("workspace B*N*8192", "workspace B*N**8192", "line 8: size 'B*N**8192': expected a number"),
        ("kernel 1 att", "kernel 2 att", "image number is '2', expected a whole number from 0 to 1"),
        ("block 384 1 1", "block 384 8 1", "expected a smaller product"),
        ("cluster 2 1 1", "cluster 2 1 9", "expected a smaller product"),
        ("serial programmatic", "serial", "expected 'serial programmatic'"),
        ("arg null", "arg nil", "expected one of input, output, workspace, i32"),
        ("arg input 0 0", "arg input 3 0", "operand number is '3', expected a whole number from 0 to 2"),
        ("strides 128 7680", "strides 128", "one size fewer than dims"),
        ("box 64 1 128", "box 64 1 257", "box is '257', expected a whole number from 1 to 256"),
        ("\nend\n", "\nend\nend\n", "text after 'end'"),
        ("\nend\n", "\n", "the text ends, expected more up to 'end'"),
        ("arg f32 0x1.0000000000000p-3", "arg f32 inf", "expected a number, decimal or as float.hex writes"),
        ("arg f32 0x1.0000000000000p-3", "arg f32 1e300", "expected a number that FP32 holds"),
        ("combine", "combiné", "byte 0xc3, expected printable ASCII"),
    ],
)
def test_a_damaged_plan_is_told_with_its_line(tool, old, new, message):
    text = ATTENTION.text()
    assert old in text
    answer = tool.check(text.replace(old, new, 1).encode())
    assert answer.startswith("! launch plan: ") and message in answer


@pytest.mark.parametrize(
    ("line", "count", "message"),
    [
        ("arg null\n", 65, "more than 64 arguments"),
        ("arg tensormap input 0 0 i8 none\ndims 1\nstrides\nbox 1\n", 17, "more than 16 tensor maps"),
        ("kernel 0 k\ngrid 1 1 1\nblock 1 1 1\nshared 0\n", 16, "more than 16 kernels"),
    ],
)
def test_a_plan_has_bounds(tool, line, count, message):
    text = LEAST.text().replace("end\n", line * count + "end\n")
    assert message in tool.check(text.encode())
    assert tool.check(text.replace(line, "", 1).encode()) == "= ok"


def test_decimal_numbers_and_locale_free_hexadecimal(tool):
    text = LEAST.text().replace("end\n", "arg f32 0.5\narg f32 -12\narg f32 1e-3\narg f32 0x1.8p-1\nend\n")
    answer = tool.ask(f"plan {text.encode().hex()} 1")
    assert "arg f32 0x1p-1 arg f32 -0x1.8p+3 arg f32 0x1.0624dep-10 arg f32 0x1.8p-1" in answer


def test_damaged_texts_are_refused_or_sound(tool):
    seed = random.Random(7)
    texts = [ATTENTION.text().encode(), LEAST.text().encode()]
    refused = 0
    for _ in range(3000):
        text = bytearray(seed.choice(texts))
        for _ in range(seed.choice([1, 1, 2, 8])):
            at = seed.randrange(len(text))
            match seed.randrange(5):
                case 0:
                    text[at] = seed.randrange(256)
                case 1:
                    del text[at : at + seed.randrange(1, 40)]
                case 2:
                    text[at:at] = text[seed.randrange(len(text)) :][: seed.randrange(1, 60)]
                case 3:
                    text[at] = ord(seed.choice("0123456789 \nB*(),-"))
                case _:
                    del text[at:]
            if not text:
                text = bytearray(b" ")
        answer = tool.check(bytes(text))
        assert answer == "= ok" or re.match(r"! launch plan: \S", answer), answer
        refused += answer[0] == "!"
    assert refused > 2000


def python_size(expression: str) -> int | None:
    try:
        return evaluate(expression, NAMES)
    except ValueError:
        return None


def _combine(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.one_of(
        st.builds("{}{}{}".format, inner, st.sampled_from("+-*/"), inner),
        st.builds("({})".format, inner),
        st.builds("{}({},{})".format, st.sampled_from(["cdiv", "min", "max"]), inner, inner),
    )


NUMBERS = st.one_of(st.integers(0, 300), st.sampled_from([2**31, 2**62, 2**63 - 1, 2**63, 10**19])).map(str)
SIZES = st.recursive(st.one_of(NUMBERS, st.sampled_from(list(NAMES))), _combine, max_leaves=12)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(SIZES)
def test_a_size_has_one_value_in_both_languages(tool, expression):
    assert tool.size(expression) == python_size(expression)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text("0189BNZaz_+-*/(),cdivmnax", min_size=1, max_size=40))
def test_what_is_no_size_is_none_in_both_languages(tool, expression):
    assert tool.size(expression) == python_size(expression)


@pytest.mark.parametrize(
    "expression",
    [
        *("(" * depth + "B" + ")" * depth for depth in (16, 17, 100)),
        "B" * 32 + "+1",
        "B" * 33,
        "1" * 20,
        "0" * 19 + "+1",
        "0" * 20,
        "+".join("1" * 128),
        "+".join("1" * 129),
        "min(1",
        "cdiv(1,2,3)",
        "b",
        "2-3+5",
        "5/0",
        "cdiv(5,0)",
        "٣",
    ],
)
def test_sizes_at_their_bounds(tool, expression):
    assert tool.size(expression) == python_size(expression)
