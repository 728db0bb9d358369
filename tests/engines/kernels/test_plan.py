"""Launch plans of every candidate: where they read and write, checked against what the layout of the problem says."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engines.kernels import images
from engines.kernels.launch import LaunchPlan, Null, Number, Pointer, TensorMap
from engines.kernels.plan import make_plan
from engines.kernels.plan_builder import SHARED_BYTES
from engines.kernels.plan_sm90 import consumer_registers
from engines.kernels.problem import AttentionProblem, Unsupported
from engines.kernels.sizes import evaluate
from engines.kernels.variants import TARGETS, Sm90Variant, TritonVariant, candidates
from tests.engines.kernels import cubin
from tests.engines.kernels.cases import cases
from tests.engines.kernels.conftest import Compilers
from tests.engines.kernels.problems import problems


def shape_of(problem: AttentionProblem, part: str, batch: int) -> tuple[str, int, tuple[int, ...]]:
    """Operand, number and shape of the tensor in which Q, K, V or O lies."""
    p = problem
    length = p.keys if part in "KV" else p.queries
    if part == "O":
        width = (p.queries, p.heads * p.head_size) if p.output == "tokens" else (p.heads, p.queries, p.head_size)
        return "output", 0, (batch, *width)
    if p.layout == "packed":
        return "input", 0, (batch, length, 3 * p.heads * p.head_size)
    index = "QKV".index(part)
    if p.layout == "tokens":
        return "input", index, (batch, length, p.heads * p.head_size)
    return "input", index, (batch, p.heads, length, p.head_size)


def element(problem: AttentionProblem, part: str, batch: int, at: tuple[int, int, int]) -> int:
    """Index of the first channel of (sample, head, token) in that tensor, by the words of `AttentionProblem`."""
    p = problem
    sample, head, token = at
    shape = shape_of(problem, part, batch)[2]
    if part == "O":
        place = (sample, token, head * p.head_size) if p.output == "tokens" else (sample, head, token, 0)
    elif p.layout == "packed":
        place = (sample, token, ("QKV".index(part) * p.heads + head) * p.head_size)
    elif p.layout == "tokens":
        place = (sample, token, head * p.head_size)
    else:
        place = (sample, head, token, 0)
    return int(np.ravel_multi_index(place, shape))


def corners(problem: AttentionProblem, part: str, batch: int):
    """First and last samples, heads and tokens, and the second ones: places are linear in each."""
    length = problem.keys if part in "KV" else problem.queries
    ends = [sorted({0, min(1, size - 1), size - 1}) for size in (batch, problem.heads, length)]
    return itertools.product(*ends)


class Checked:
    """One plan at one batch: its numbers, and the constants its kernels were compiled with."""

    def __init__(self, problem: AttentionProblem, plan: LaunchPlan, compilers: Compilers, batch: int):
        self.problem, self.plan, self.batch = problem, plan, batch
        self._requests = compilers.requests
        self.workspace = self.number(plan.workspace)
        self._taken: list[tuple[int, int]] = []

    def number(self, size) -> int:
        return evaluate(size, {"B": self.batch})

    def check(self) -> None:
        p, launches = self.problem, list(self.plan.launches)
        expected = [tuple(shape_of(p, part, self.batch)[2]) for part in ("Q" if p.layout == "packed" else "QKV")]
        expected += [(p.head_size,)] * 2 * (p.qk_norm is not None) + [(p.keys, p.head_size // 2)] * 2 * p.rope
        shapes = [tuple(map(self.number, tensor.shape)) for tensor in self.plan.inputs]
        assert shapes == expected
        (output,) = self.plan.outputs
        assert tuple(map(self.number, output.shape)) == shape_of(p, "O", self.batch)[2]
        assert output.dtype == p.precision
        prepared = launches[0].name == "prepare"
        # Its kernel waits for the one before by itself; the others do not.
        assert launches[0].programmatic == (launches[0].name == "attention_sm90")
        if prepared:
            self.check_prepare(launches.pop(0))
        if launches[0].name == "attention":
            self.check_triton(launches, prepared)
        else:
            self.check_sm90(launches, prepared)
        regions = sorted(self._taken)
        for (_, end), (begin, _) in itertools.pairwise(regions):
            assert end <= begin, f"workspace regions overlap: {regions}"
        assert not regions or regions[-1][1] <= self.workspace
        assert bool(regions) == bool(self.workspace)
        for launch in self.plan.launches:
            grid = [self.number(size) for size in launch.grid]
            assert all(size >= 1 for size in grid) and grid[0] < 1 << 31 and max(grid[1:]) <= 65535
            assert 1 <= launch.block <= 1024 and launch.shared <= SHARED_BYTES[self.plan.target]

    def constants(self, launch):
        return self._requests[self.plan.images[launch.image].data].constants

    def take(self, pointer: Pointer, length: int) -> None:
        """A region of the workspace, which no other may touch."""
        begin = self.number(pointer.offset)
        assert pointer.operand == "workspace" and begin % 256 == 0
        self._taken.append((begin, begin + length))

    def region(self, part: str, prepared: bool) -> tuple[str, int, tuple[int, ...]]:
        p = self.problem
        if prepared and part in "QK":
            return "workspace", 0, (self.batch, p.queries, 2, p.heads, p.head_size)
        return shape_of(p, part, self.batch)

    def first_channel(self, part: str, prepared: bool, at: tuple[int, int, int]) -> int:
        operand, _, shape = self.region(part, prepared)
        if operand == "workspace":
            sample, head, token = at
            return int(np.ravel_multi_index((sample, token, "QK".index(part), head, 0), shape))
        return element(self.problem, part, self.batch, at)

    def check_strides(self, part: str, prepared: bool, pointer: Pointer, strides: tuple[int, int, int]) -> None:
        """A pointer and strides reach every head's first channel, and no further than the tensor."""
        operand, index, shape = self.region(part, prepared)
        assert (pointer.operand, pointer.index) == (operand, index)
        offset = self.number(pointer.offset)
        # 16 bytes is what Triton is told, and what the widest loads need.
        assert offset % 16 == 0
        for at in corners(self.problem, part, self.batch):
            place = offset // 2 + sum(position * stride for position, stride in zip(at, strides, strict=True))
            assert place == self.first_channel(part, prepared, at), (part, at)
            assert place + self.problem.head_size <= math.prod(shape)

    def check_turning(self, arguments, used: bool) -> None:
        p = self.problem
        first = 1 if p.layout == "packed" else 3
        gains = [Pointer("input", first), Pointer("input", first + 1)] if p.qk_norm is not None else [Null()] * 2
        first += 2 * (p.qk_norm is not None)
        tables = [Pointer("input", first), Pointer("input", first + 1)] if p.rope else [Null()] * 2
        assert list(arguments) == ([*gains, *tables] if used else [Null()] * 4)

    def check_prepare(self, launch) -> None:
        p, constants = self.problem, self.constants(launch)
        queries, keys, output, *turning, epsilon = launch.arguments
        assert self.problem.qk_norm is not None or p.rope
        for part, pointer in (("Q", queries), ("K", keys)):
            strides = tuple(constants[f"{part}_{name}"] for name in ("BATCH", "HEAD", "ROW"))
            self.check_strides(part, False, pointer, strides)
        self.take(output, self.batch * p.queries * 2 * p.heads * p.head_size * 2)
        assert output == Pointer("workspace")
        self.check_turning(turning, True)
        assert epsilon == Number("f32", p.qk_norm or 0.0)
        half = p.head_size // 2
        vector = 8 if half % 8 == 0 else 4
        lanes = next(lanes for lanes in (2, 4, 8, 16) if lanes * vector >= half)
        grid = [self.number(size) for size in launch.grid]
        assert (grid[0] - 1) * 256 < p.queries * 2 * p.heads * lanes <= grid[0] * 256
        assert grid[1:] == [self.batch, 1] and launch.block == 256
        wanted = {
            "D": p.head_size,
            "HEADS": p.heads,
            "TOKENS": p.queries,
            "ROPE": p.rope,
            "NORM": p.qk_norm is not None,
        }
        assert {name: constants[name] for name in wanted} == wanted
        assert constants["BF16"] == (p.precision == "bf16")

    def check_triton(self, launches, prepared: bool) -> None:
        p, main = self.problem, launches[0]
        constants = self.constants(main)
        places, turning = main.arguments[:4], main.arguments[4:8]
        for part, pointer in zip("QKVO", places, strict=True):
            strides = tuple(constants[f"{part}_{name}"] for name in ("BATCH", "HEAD", "ROW"))
            self.check_strides(part, prepared, pointer, strides)
        inside = (p.qk_norm is not None or p.rope) and not prepared
        self.check_turning(turning, inside)
        assert constants["NORM"] == (inside and p.qk_norm is not None) and constants["ROPE"] == (inside and p.rope)
        partial, peaks, scale, epsilon, *scratch = main.arguments[8:]
        assert (scale, epsilon) == (Number("f32", p.scale), Number("f32", p.qk_norm or 0.0))
        assert scratch == [Null(), Null()]
        splits = constants["SPLITS"]
        grid = [self.number(size) for size in main.grid]
        assert grid == [math.ceil(p.queries / constants["BLOCK_M"]) * splits, p.heads, self.batch]
        assert len(launches) == (2 if splits > 1 else 1)
        if splits == 1:
            assert partial == peaks == Null()
            return
        # The first split sees keys, or `combine` would take minus infinity from minus infinity.
        assert p.keys >= constants["BLOCK_N"]
        rows = self.batch * p.heads * splits * p.queries
        self.take(partial, rows * p.head_size * 4)
        self.take(peaks, rows * 2 * 4)
        join = launches[1]
        assert join.arguments == (partial, peaks, places[3], Null(), Null())
        assert [self.number(size) for size in join.grid] == [math.ceil(p.queries / 16), p.heads, self.batch]
        joined = self.constants(join)
        assert joined == {**{name: constants[name] for name in joined}, "BLOCK_M": 16}

    def check_sm90(self, launches, prepared: bool) -> None:
        p, main = self.problem, launches[0]
        constants = self.constants(main)
        block_m = constants["WGS"] * 64
        boxes = {"Q": block_m, "K": constants["BN"], "V": constants["BN"], "O": 64}
        for part, tensor_map in zip("QKVO", main.arguments[:4], strict=True):
            self.check_map(part, prepared, tensor_map, boxes[part], constants)
        inside = (p.qk_norm is not None or p.rope) and not prepared
        self.check_turning(main.arguments[4:8], inside)
        assert constants["INSIDE"] == inside
        if inside:
            assert math.ceil(p.keys / constants["BN"]) <= constants["STAGES"]
        partial, peaks, scale, epsilon, count = main.arguments[8:]
        assert (scale, epsilon) == (Number("f32", p.scale), Number("f32", p.qk_norm or 0.0))
        tiles = self.batch * p.heads * math.ceil(p.queries / block_m)
        assert self.number(count.value) == tiles
        grid = [self.number(size) for size in main.grid]
        assert main.block == (constants["WGS"] + 1) * 128 and grid[1:] == [1, 1]
        assert main.programmatic
        assert constants["O_COLUMNS"] == (p.heads if p.output == "tokens" else 1) * p.head_size
        if not constants["PARTS"]:
            assert len(launches) == 1 and partial == peaks == Null()
            # INSIDE does one tile a block, and so do blocks that share keys.
            sharers, turners = constants.get("SHARERS", 1), constants.get("TURNERS", 1)
            assert grid[0] == tiles * sharers if inside or sharers > 1 else grid[0] <= tiles
            assert main.cluster == sharers * turners and grid[0] % main.cluster == 0
            # A cluster's blocks are of one head.
            assert turners in (1, math.ceil(p.queries / block_m))
            return
        slots = 2 * grid[0] * block_m
        self.take(partial, slots * p.head_size * 4)
        self.take(peaks, slots * 2 * 4)
        _, join = launches
        *places, tile_count, blocks = join.arguments
        assert places == [partial, peaks, Pointer("output")] and join.programmatic
        assert self.number(tile_count.value) == tiles and self.number(blocks.value) == grid[0]
        assert [self.number(size) for size in join.grid] == [tiles, block_m // 32, 1] and join.block == 256

    def check_map(self, part: str, prepared: bool, given: TensorMap, rows: int, constants) -> None:
        p = self.problem
        operand, index, shape = self.region(part, prepared)
        assert (given.at.operand, given.at.index) == (operand, index)
        assert given.dtype == p.precision and given.box == (64, rows, 1) and given.swizzle == "128B"
        offset = self.number(given.at.offset)
        dims = [self.number(size) for size in given.dims]
        strides = [2, *(self.number(size) for size in given.strides)]
        # What cuTensorMapEncodeTiled asks for, and the tensor's own end.
        assert offset % 16 == 0 and all(stride % 16 == 0 and stride < 1 << 40 for stride in strides[1:])
        last = offset + sum((dim - 1) * stride for dim, stride in zip(dims, strides, strict=True)) + 2
        assert last <= math.prod(shape) * 2
        assert dims[1] == (p.keys if part in "KV" else p.queries), "rows beyond the last token must be outside"
        for sample, head, token in corners(p, part, self.batch):
            x = constants[f"{part}_X"] + head * constants[f"{part}_XH"]
            z = sample * constants[f"{part}_ZB"] + head * constants[f"{part}_ZH"]
            assert x + p.head_size <= dims[0] and z < dims[2]
            place = (offset + x * strides[0] + token * strides[1] + z * strides[2]) // 2
            assert place == self.first_channel(part, prepared, (sample, head, token)), (part, sample, head, token)


def resolved(plan: LaunchPlan, batch: int):
    """The plan with every size as a number, to be compared."""

    def numbers(value):
        if isinstance(value, Pointer):
            return (value.operand, value.index, numbers(value.offset))
        if isinstance(value, Number):
            return (value.kind, value.value if value.kind == "f32" else numbers(value.value))
        if isinstance(value, TensorMap):
            return (numbers(value.at), value.dtype, numbers(value.dims), numbers(value.strides), value.box)
        if isinstance(value, tuple):
            return tuple(map(numbers, value))
        return value if isinstance(value, Null) else evaluate(value, {"B": batch})

    launches = [
        (
            *(each.image, each.name, numbers(each.grid), each.block, each.shared, numbers(each.arguments)),
            *(each.cluster, each.programmatic),
        )
        for each in plan.launches
    ]
    tensors = [(tensor.dtype, numbers(tensor.shape)) for tensor in (*plan.inputs, *plan.outputs)]
    return plan.target, plan.exact, tensors, numbers(plan.workspace), plan.images, launches


def plans(problem, target, multiprocessors):
    """What each candidate becomes; a refusal has a reason."""
    for variant in candidates(problem, target, multiprocessors):
        try:
            yield variant, make_plan(problem, variant, target)
        except Unsupported as reason:
            assert str(reason).isprintable() and len(str(reason)) > 20


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(problems(), st.sampled_from([*TARGETS, "9.0", "9.0"]), st.sampled_from([1, 82, 132]))
def test_every_candidate_reads_and_writes_where_the_layout_says(compilers, problem, target, multiprocessors):
    made = 0
    for _, plan in plans(problem, target, multiprocessors):
        assert plan.target == target and plan.exact == (target in ("9.0", "10.0", "12.0"))
        assert plan.text().startswith("cat2dog-launch 1\n")
        for batch in sorted(set(problem.batch)):
            Checked(problem, plan, compilers, batch).check()
        made += 1
    assert made or problem.queries != problem.keys


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(problems(), st.integers(1, 200))
def test_a_dynamic_batch_is_the_fixed_one_at_every_size(compilers, problem, multiprocessors):
    for variant, plan in plans(replace(problem, batch=(1, 4, 8)), "9.0", multiprocessors):
        for batch in (1, 3, 8):
            fixed = make_plan(replace(problem, batch=(batch, batch, batch)), variant, "9.0")
            assert resolved(plan, batch) == resolved(fixed, batch)
            assert "B" not in fixed.text().split("target", 1)[1].replace("128B", "")


PROBLEM = AttentionProblem("fp16", 3, 64, 1000, 1000, 0.125, (1, 2, 4), qk_norm=1e-6, rope=True)


@pytest.mark.parametrize(
    ("changes", "variant", "target", "message"),
    [
        ({}, Sm90Variant(2, 128, 2, True, prepare=True), "8.6", "runs on compute capability 9.0 alone"),
        ({}, Sm90Variant(2, 128, 2, True, prepare=True), "10.0", "runs on compute capability 9.0 alone"),
        ({"head_size": 80}, Sm90Variant(2, 128, 2, True, prepare=True), "9.0", "has no head size 80"),
        ({}, Sm90Variant(2, 128, 2, True), "9.0", "does QK-norm and RoPE inside only where all keys fit"),
        ({"head_size": 128}, Sm90Variant(3, 160, 3, True, prepare=True), "9.0", "bytes of shared memory"),
        (
            {"queries": 100, "keys": 100},
            Sm90Variant(1, 64, 2, False, resident=2),
            "9.0",
            "has no registers for QK-norm and RoPE inside",
        ),
        ({}, Sm90Variant(2, 64, 2, False, prepare=True, resident=2), "9.0", "has no registers for heads of 64"),
        ({}, Sm90Variant(1, 64, 8, False, prepare=True, sharers=2), "9.0", "is for heads of 128, and as many blocks"),
        ({"head_size": 128}, Sm90Variant(1, 64, 16, False, sharers=2), "9.0", "does no QK-norm and RoPE inside"),
        ({}, Sm90Variant(2, 128, 8, False, turners=2), "9.0", "is for QK-norm and RoPE of 2 tiles of one head"),
        ({}, Sm90Variant(2, 48, 8, False, prepare=True, resident=2), "9.0", "bytes of shared memory"),
        ({"queries": 100, "keys": 100}, TritonVariant(64, 64, 4, 2, 4), "9.0", "100 keys do not make 4 splits of 64"),
        (
            {"rope": False, "layout": "heads", "queries": 7},
            TritonVariant(64, 64, 4, 2, prepare=True),
            "9.0",
            "queries and keys of different lengths are not prepared in one kernel",
        ),
        ({"precision": "fp32"}, TritonVariant(64, 64, 4, 2), "9.0", "fused kernels are of FP16 and BF16, not fp32"),
    ],
)
def test_a_variant_that_does_not_fit_says_why(compilers, changes, variant, target, message):
    with pytest.raises(Unsupported) as refused:
        make_plan(replace(PROBLEM, **changes), variant, target)
    assert message in str(refused.value)


@pytest.mark.parametrize("target", TARGETS)
def test_a_triton_kernel_that_needs_more_shared_memory_than_there_is(compilers, target):
    compilers.shared = SHARED_BYTES[target]
    variant = TritonVariant(128, 128, 8, 3)
    make_plan(PROBLEM, variant, target)
    compilers.shared += 1
    with pytest.raises(Unsupported, match=f"needs {compilers.shared} bytes of shared memory"):
        make_plan(PROBLEM, variant, target)


def test_the_cases_of_the_gpu_tests_are_sound(compilers):
    made = 0
    for problem, variant in cases():
        try:
            plan = make_plan(problem, variant, "9.0")
        except Unsupported:
            continue
        Checked(problem, plan, compilers, problem.batch[2]).check()
        made += 1
    assert made > 400


@pytest.mark.skipif(bool(images.why_not()), reason=images.why_not())
def test_a_sample_of_the_cases_compiles(compiled):
    names = set()
    for problem, variant in list(cases())[::83]:
        try:
            names |= {launch.name for launch in make_plan(problem, variant, "9.0").launches}
        except Unsupported:
            continue
    assert {"attention", "attention_sm90", "prepare"} <= names


@pytest.mark.skipif(bool(images.why_not("nvrtc")), reason=images.why_not("nvrtc"))
@pytest.mark.parametrize(("size", "shape"), [(64, (1, 96, 3)), (64, (1, 64, 3)), (64, (2, 48, 2)), (128, (1, 80, 2))])
def test_blocks_that_share_a_multiprocessor_fit_and_spill_nothing(compiled, size, shape):
    groups, block_n, resident = shape
    problem = replace(PROBLEM, head_size=size, qk_norm=None, rope=False)
    plan = make_plan(problem, Sm90Variant(groups, block_n, 2, False, 0, resident=resident, overlap=True), "9.0")
    (launch,) = plan.launches
    registers, frame = cubin.resources(plan.images[0].data)
    assert frame == 0
    # A multiprocessor's registers and shared memory, of which every block takes 1 KiB more.
    assert registers * launch.block * resident <= 65536
    assert (launch.shared + 1024) * resident <= 228 << 10
    assert consumer_registers(groups, resident) * groups * 128 + 24 * 128 <= registers * launch.block


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.skipif(bool(images.why_not()), reason=images.why_not())
def test_all_cases_compile(compiled):
    for problem, variant in cases():
        try:
            make_plan(problem, variant, "9.0")
        except Unsupported as reason:
            assert str(reason)
