"""Which kernels tuning keeps, with a stand-in for the GPU that says how long each takes and whether it is right."""

from __future__ import annotations

import pytest

from engines.kernels import measure, tune
from engines.kernels.plan import make_plan
from engines.kernels.problem import Unsupported
from engines.kernels.tables import ProblemKey
from engines.kernels.variants import Sm90Variant, TritonVariant, candidates
from runtime.errors import ToolchainError

KEY = ProblemKey("fp16", 20, 64, 1024, 1024, 4, "packed", "tokens", False, False)


class Gpu:
    """What takes the place of Measured: `times` and `errors` of variants, and what was asked."""

    def __init__(self, monkeypatch):
        self.times, self.errors = {}, {}
        self.short, self.long, self.checked, self.opened = [], [], [], 0
        self._made = []
        monkeypatch.setattr(measure, "Measured", self)
        monkeypatch.setattr(tune, "make_plan", self._plan)

    def _plan(self, problem, variant, target):
        plan = make_plan(problem, variant, target)
        self._made.append((plan, variant))
        return plan

    def _variant(self, plan):
        return next(variant for made, variant in self._made if made is plan)

    def __call__(self, problem, plan, batch):
        assert problem.batch == (batch,) * 3
        return self

    def __enter__(self):
        self.opened += 1
        return self

    def __exit__(self, *trouble):
        self.opened -= 1

    def milliseconds(self, plan, repeats):
        variant = self._variant(plan)
        (self.short if repeats == 3 else self.long).append(variant)
        ms = self.times.get(variant, 1.0 + 0.001 * len(self.short))
        return ms, 0.9 * ms, 1.1 * ms

    def answers(self, plan):
        return self._variant(plan)

    def error(self, answer):
        self.checked.append(answer)
        return self.errors.get(answer, 1e-4)


@pytest.fixture
def gpu(compilers, monkeypatch):
    return Gpu(monkeypatch)


def plannable():
    for variant in candidates(KEY.problem(), "9.0", 132):
        try:
            make_plan(KEY.problem(), variant, "9.0")
        except Unsupported:
            continue
        yield variant


def test_every_candidate_is_timed_and_the_best_of_each_kind_are_kept(gpu):
    variants = list(plannable())
    fast = [variant for variant in variants if isinstance(variant, Sm90Variant)][:7]
    triton = [variant for variant in variants if isinstance(variant, TritonVariant)][3:7]
    gpu.times = {**{v: 0.1 + 0.01 * i for i, v in enumerate(fast)}, **{v: 0.5 + 0.01 * i for i, v in enumerate(triton)}}
    told = []
    entry, timings = tune.tune(KEY, "9.0", 132, progress=lambda what, fraction: told.append((what, fraction)))
    assert gpu.short == variants and gpu.opened == 0
    # Six of all, and three of each kind.
    assert gpu.long == gpu.checked == fast[:6] + triton[:3]
    assert [timing.variant for timing in entry.timings] == fast[:3] + triton[:3]
    assert entry.key == KEY
    best = entry.timings[0]
    assert (best.median, best.least, best.most, best.error) == (100.0, 90.0, 110.0, 1e-4)
    assert len(best.images) == 1 and len(best.images[0]) == 16
    assert sorted(map(str, (timing.variant for timing in timings))) == sorted(map(str, variants))
    assert [timing.error is None for timing in timings] == [False] * 9 + [True] * (len(variants) - 9)
    assert len(told) == len(variants) and all(0 <= fraction < 1 for _, fraction in told)


def test_the_order_is_that_of_the_long_measurement(gpu, monkeypatch):
    first, second = list(plannable())[:2]
    gpu.times = {first: 0.1, second: 0.2}
    real = gpu.milliseconds

    def changing(plan, repeats):
        if repeats == 15:
            gpu.times = {first: 0.3, second: 0.2}
        return real(plan, repeats)

    monkeypatch.setattr(gpu, "milliseconds", changing)
    entry, _ = tune.tune(KEY, "9.0", 132, [first, second])
    assert [timing.variant for timing in entry.timings] == [second, first]


@pytest.mark.parametrize("error", [0.5, float("nan")])
def test_a_wrong_kernel_among_the_fastest_is_an_error(gpu, error):
    wrong = list(plannable())[4]
    gpu.times, gpu.errors = {wrong: 0.01}, {wrong: error}
    with pytest.raises(ToolchainError) as failed:
        tune.tune(KEY, "9.0", 132)
    assert f"kernel {wrong} is wrong at {KEY}: relative error {error:.3g}" == str(failed.value)
    assert gpu.opened == 0


def test_bf16_has_a_wider_tolerance(gpu):
    variant = TritonVariant(64, 64, 4, 2)
    gpu.errors = {variant: 1e-2}
    bf16 = ProblemKey(**{**vars(KEY), "precision": "bf16"})
    assert tune.tune(bf16, "9.0", 132, [variant])[0].timings[0].error == 1e-2
    with pytest.raises(ToolchainError, match="is wrong at"):
        tune.tune(KEY, "9.0", 132, [variant])


def test_given_variants_are_the_only_ones(gpu):
    seeds = [TritonVariant(64, 64, 4, 2), Sm90Variant(2, 128, 2, turns=True)]
    entry, timings = tune.tune(KEY, "8.6", 82, seeds)
    assert [timing.variant for timing in entry.timings] == seeds[:1], "the second is of compute capability 9.0"
    assert len(timings) == 1


def test_no_variant_at_all_is_an_error(gpu):
    with pytest.raises(ToolchainError, match=r"^no kernel does 1024 tokens, 20 heads of 64, batch 4, fp16$"):
        tune.tune(KEY, "8.6", 82, [Sm90Variant(2, 128, 2, turns=True)])
    with pytest.raises(ToolchainError, match="no kernel does"):
        tune.tune(ProblemKey(**{**vars(KEY), "head_size": 24}), "9.0", 132)


def test_compile_all_counts_the_plans(gpu):
    told = []
    count = tune.compile_all([KEY], "9.0", 132, lambda what, fraction: told.append(fraction))
    assert count == len(list(plannable()))
    assert told == sorted(told) and len(told) == len(list(candidates(KEY.problem(), "9.0", 132)))
