"""What QK-norm and RoPE cost: the forms that are compared, how their times are taken, and what is written of them."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace

import numpy as np
import pytest

from bench import turning, turning_case, turning_table
from bench.turning_case import FORMS, IN_ATTENTION, IN_LAYER, PLAIN, Case, Kernels
from engines.kernels.chain import Chain, ChainOnGpu
from engines.kernels.driver import bind
from engines.kernels.launch import Tensor
from engines.kernels.linear_measure import run_statistics
from engines.kernels.problem import FusedKernel, Unsupported
from engines.kernels.sizes import evaluate
from runtime import cuda
from runtime.errors import ToolchainError
from runtime.gpu import Gpu
from tests.engines.linear_stand_ins import LinearStandIn
from tests.engines.stand_ins import StandInPlanner
from tests.runtime.fake_cuda import FakeCuda

SMALL = Case("fp16", 2, 64, 512, 3)
# Milliseconds of a graph of each form.
TIMES = (2.0, 2.1, 2.6)


@pytest.fixture(autouse=True)
def few_layers(monkeypatch):
    monkeypatch.setattr(turning_case, "_MORE_THAN_CACHE", 5 * 6 * SMALL.width**2)
    turning_case.feed.cache_clear()


def stand_ins(**changes):
    return Kernels(
        **{"linear": LinearStandIn(), "attention": StandInPlanner(), "multiprocessors": 132, "more": 0, **changes}
    )


def test_the_cases_are_those_of_the_bar():
    found = list(turning_case.cases())
    assert len(set(found)) == len(found) == 2 * 2 * 3 * 2
    assert {(case.tokens, case.width, case.batch) for case in found} == {
        (tokens, width, batch) for tokens in (256, 1024, 4096) for width in (1280, 1792) for batch in (1, 4)
    }
    shared = [(case.precision, case.heads) for case in found]
    assert len(list(itertools.groupby(shared))) == 4, "those of the same weights stand together"


def test_weights_of_all_layers_are_more_than_the_cache_holds(monkeypatch):
    monkeypatch.undo()
    for case in turning_case.cases():
        assert 100e6 < case.layers * 3 * case.width**2 * 2 < 200e6


@pytest.mark.parametrize("form", FORMS)
def test_a_form_is_wired_as_its_engines_are(form):
    kernels = stand_ins()
    constants = {**turning_case.weights(SMALL), **turning_case.activations(SMALL)}
    layer, attention = kernels.linear(SMALL.layer(form)), kernels.attention(SMALL.attention(form))
    turned = SMALL.layer(form).turning is not None, SMALL.attention(form).rope
    assert turned == (form == IN_LAYER, form == IN_ATTENTION)
    assert SMALL.layer(form).norm == "layer" and SMALL.attention(form).qk_norm == (1e-6 if turned[1] else None)
    if form == IN_ATTENTION:  # the stand-in has the packed operand alone
        attention = FusedKernel(_with_turning(attention.plan), "stand-in", "")
    chain = turning_case.chain(SMALL, form, layer, attention, constants)
    assert len(chain.nodes) == 2 * SMALL.layers == 10
    shapes = {name: array.shape for name, array in constants.items()}
    for node in chain.nodes:
        names = bind(node.plan, [shapes[name] for name in node.inputs])  # raises where a shape does not fit
        for name, tensor in zip(node.outputs, node.plan.outputs, strict=True):
            shapes[name] = tuple(evaluate(size, names) for size in tensor.shape)
    assert shapes[turning_case.last(SMALL)] == (3, 512, 128)
    read = [node.inputs[1] for node in chain.nodes[::2]]
    assert len(set(read)) == SMALL.layers, "every layer has weights of its own"
    assert any((constants[read[0]] != constants[read[1]]).ravel())


def _with_turning(plan):
    extra = [Tensor("fp32", (64,))] * 2 + [Tensor("fp32", (plan.inputs[0].shape[1], 32))] * 2
    return replace(plan, inputs=(*plan.inputs, *extra))


def test_what_layers_read_fits_together():
    given, weights = turning_case.activations(SMALL), turning_case.weights(SMALL)
    x = given["x"].astype(np.float64)
    assert x.shape == (3, 512, 128) and given["cosines"].shape == given["sines"].shape == (512, 32)
    runs = given["statistics"].shape[2]
    np.testing.assert_allclose(given["statistics"], run_statistics(x, runs), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(given["cosines"] ** 2 + given["sines"] ** 2, 1, rtol=1e-5)
    for number in range(SMALL.layers):
        sums = weights[f"{number}.weights"].astype(np.float64).sum(1)
        np.testing.assert_allclose(weights["sums"], sums, rtol=1e-4, atol=1e-4)


def test_the_planners_kernel_and_some_of_the_estimated_fastest(monkeypatch):
    def plan(problem, variant, target):
        if variant.block_n == 64:
            raise Unsupported("not that one")
        return LinearStandIn()(problem).plan

    monkeypatch.setattr(turning_case, "linear_plan", plan)
    found = stand_ins(more=3).layers(Case("fp16", 20, 64, 1024, 1).layer(IN_LAYER))
    assert found[0].variant == "stand-in 64x64" and len({each.variant for each in found}) == len(found) == 4
    assert all(each.why == "among the estimated fastest" for each in found[1:])
    assert [each.variant for each in stand_ins().layers(SMALL.layer(PLAIN))] == ["stand-in 64x64"]


@pytest.fixture
def api(monkeypatch):
    """A GPU whose graphs take `TIMES`, in turn, and whose kernels all give the same."""
    api = FakeCuda()
    spent = itertools.cycle(TIMES)
    monkeypatch.setattr(api, "cudaEventElapsedTime", lambda start, end: (0, next(spent)), raising=False)
    monkeypatch.setattr(cuda, "bindings", lambda: api)
    monkeypatch.setattr(ChainOnGpu, "prepared", lambda self: lambda: None)
    monkeypatch.setattr(
        ChainOnGpu, "milliseconds", lambda self, work, repeats, warm_up: [_cost(self.chain.nodes[0].variant)] * repeats
    )
    monkeypatch.setattr(ChainOnGpu, "value", lambda self, name, dtype: np.ones((3, 512, 128), dtype))
    monkeypatch.setattr(turning_case, "linear_plan", lambda problem, variant, target: LinearStandIn()(problem).plan)
    attention = StandInPlanner()

    def planned(problem):
        kernel = attention(problem)
        return kernel if problem.qk_norm is None else FusedKernel(_with_turning(kernel.plan), "turning", "")

    yield stand_ins(more=2, attention=planned)
    assert not api.alive, "something was not freed"


def _cost(variant):
    """The planner's is not the fastest."""
    return 9.0 if variant.startswith("stand-in") else 1.0 + len(variant) / 1e3


def row_of(kernels, case=SMALL):
    with ChainOnGpu(Chain((), turning_case.weights(case)), case.batch) as shared:
        return turning.measured_case(case, kernels, shared, 0.0)


def test_forms_are_timed_in_turn_with_the_fastest_kernel_of_each(api):
    row = row_of(api)
    # The first round warms up, so that each form's times stay its own.
    assert row["us"] == {form: 1e3 * ms / SMALL.layers for form, ms in zip(FORMS, TIMES, strict=True)}
    assert row["ratio"] == {IN_LAYER: 1.05, IN_ATTENTION: 1.3} and row["rounds"] == turning._FEWEST
    for form in (PLAIN, IN_LAYER):
        tried = row["tried_us"][form]
        assert len(tried) == 3 and row["kernels"][form]["layer"] == min(tried, key=tried.get) != "stand-in 64x64"
    assert row["kernels"][IN_ATTENTION]["layer"] == row["kernels"][PLAIN]["layer"]
    assert [row["kernels"][form]["attention"] for form in FORMS] == ["stand-in 64x64"] * 2 + ["turning"]
    assert row["difference"] == 0 and row["layers"] == 5
    json.dumps(row)


@pytest.mark.parametrize("wrong", [1.01, float("nan")])
def test_forms_that_do_not_agree_are_an_error(api, monkeypatch, wrong):
    answers = itertools.cycle([1.0, wrong])
    monkeypatch.setattr(ChainOnGpu, "value", lambda self, name, dtype: np.full((3, 512, 128), next(answers), dtype))
    with pytest.raises(
        ToolchainError, match="512 tokens, 2x64, batch 3, fp16: in the QKV layer and in attention differ"
    ):
        row_of(api)


def test_the_command_writes_every_case(api, monkeypatch, tmp_path, capsys):
    some = [Case("fp16", 2, 64, 256, 1), SMALL, Case("bf16", 2, 64, 512, 1)]
    gpu = Gpu(0, "NVIDIA H200", "9.0", 1 << 37, "580.1")
    monkeypatch.setattr(turning, "cases", lambda: iter(some))
    monkeypatch.setattr(turning, "find_gpus", lambda: [gpu])
    monkeypatch.setattr(turning, "multiprocessors", lambda index: 132)
    monkeypatch.setattr(turning, "_kernels", lambda *given: api)
    path = tmp_path / "turning.json"
    monkeypatch.setattr(ChainOnGpu, "value", lambda self, name, dtype: np.ones((1, 512, 128), dtype))
    assert turning.main(["--output", str(path), "--seconds", "0.1"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 4 and said[0].startswith("256 tokens, 2x64, batch 1, fp16: plain 400.0, in the QKV layer 420.0")
    assert said[-1] == "0 of 3 over 1.10"
    written = json.loads(path.read_text())
    assert {"date", "gpu", "driver", "versions", "command", "multiprocessors"} <= set(written["machine"])
    assert [row["case"] for row in written["rows"]] == [str(case) for case in some]
    lines = turning_table.table(path).splitlines()
    assert len({line.count("|") for line in lines}) == 1 and len(lines) == 2 + 3
    assert lines[2] == "| 256 | 2x64 | 1 | fp16 | 400.0 | 420.0 (+5 %) | 520.0 (+30 %) |"


@pytest.mark.parametrize(
    "words",
    [[], ["--output", "x", "--compile-only"], ["--output", "x", "--seconds", "0"], ["--compile-only", "--more", "99"]],
)
def test_wrong_words(words, capsys):
    assert turning.main(words) == 2
    assert capsys.readouterr().err.startswith("error: expected --output FILE or --compile-only")


def test_without_a_gpu(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(turning, "find_gpus", lambda: [])
    assert turning.main(["--output", str(tmp_path / "x.json")]) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: there is no GPU to measure on: ") and said.count("\n") == 1


def test_what_is_compiled_is_what_is_measured():
    asked = []

    class Recording(LinearStandIn):
        def __call__(self, problem):
            asked.append(problem)
            return super().__call__(problem)

    attention = StandInPlanner()
    kernels = stand_ins(linear=Recording(), attention=attention)
    assert turning_case.compile_case((SMALL, lambda: kernels)) == 4
    assert asked == [SMALL.layer(PLAIN), SMALL.layer(IN_LAYER)]
    assert {SMALL.attention(form) for form in FORMS} == set(attention.asked)
