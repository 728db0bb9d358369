"""From a GPU to its kernels, with stand-in tables and compilers."""

from __future__ import annotations

from dataclasses import replace

import pytest

from engines.kernels import images, library
from engines.kernels.problem import AttentionProblem, Unsupported
from engines.kernels.tables import Entry, ProblemKey, Table, Timing
from engines.kernels.variants import TARGETS, Sm90Variant, TritonVariant
from runtime.errors import InputError

PROBLEM = AttentionProblem("fp16", 20, 64, 1024, 1024, 0.125, (1, 4, 8))
SM90 = Sm90Variant(2, 128, 2, turns=True)
WIDE = TritonVariant(128, 128, 8, 3)
NARROW = TritonVariant(64, 64, 4, 3)
PLAIN = TritonVariant(64, 64, 4, 2)


def entry(problem, *variants):
    timings = [Timing(variant, 1e3 + i, 1e3, 2e3, ("00",)) for i, variant in enumerate(variants)]
    return Entry(ProblemKey.of(problem), tuple(timings))


H100 = Table("NVIDIA H100", "9.0", 132, "580", images.compiler_versions(), "today", "cat2dog tune")


@pytest.fixture
def shipped(kept, tmp_path, monkeypatch):
    """A folder of shipped tables, empty; `kept` is the folder of this machine's."""
    folder = tmp_path / "shipped"
    folder.mkdir()
    monkeypatch.setattr(library, "SHIPPED", folder)
    return folder


def ship(folder, *entries, table=H100):
    replace(table, entries=entries).write(folder / f"{table.gpu}.json")


def test_a_measured_problem_gets_its_variant_and_time(shipped, compilers):
    ship(shipped, entry(PROBLEM, SM90, NARROW))
    kernel = library.planner("9.0", "NVIDIA H100")(PROBLEM)
    assert (kernel.variant, kernel.why, kernel.milliseconds) == (str(SM90), "tuned on NVIDIA H100", 1.0)
    assert kernel.plan.launches[0].name == "attention_sm90"


def test_what_was_measured_here_goes_before_what_ships(shipped, kept, compilers):
    ship(shipped, entry(PROBLEM, SM90))
    ship(kept / "tuned", entry(PROBLEM, NARROW))
    assert library.planner("9.0", "NVIDIA H100")(PROBLEM).variant == str(NARROW)


def test_scale_and_epsilon_do_not_matter(shipped, compilers):
    turned = replace(PROBLEM, qk_norm=1e-6)
    ship(shipped, entry(turned, NARROW), entry(PROBLEM, SM90))
    kernel = library.planner("9.0", "NVIDIA H100")(replace(turned, qk_norm=1e-5, scale=1.0))
    assert kernel.variant == str(NARROW) and kernel.milliseconds == 1.0


def test_a_problem_that_was_not_measured_takes_the_nearest(shipped, compilers):
    ship(shipped, entry(PROBLEM, SM90), entry(replace(PROBLEM, head_size=128), NARROW))
    kernel = library.planner("9.0", "NVIDIA H100")(replace(PROBLEM, queries=900, keys=900))
    assert kernel.variant == str(SM90) and kernel.milliseconds is None
    assert kernel.why == (
        "tuned on NVIDIA H100; nearest measured problem: 1024 tokens, 20 heads of 64, batch 4, fp16"
    )  # fmt: skip


def test_a_nearest_variant_that_does_not_fit_is_passed_over(shipped, compilers):
    ship(shipped, entry(PROBLEM, SM90, replace(NARROW, splits=4), NARROW))
    kernel = library.planner("9.0", "NVIDIA H100")(replace(PROBLEM, head_size=80, queries=100, keys=100))
    assert kernel.variant == str(NARROW)


def test_an_unknown_gpu_falls_back_and_says_so(shipped, compilers):
    ship(shipped, entry(PROBLEM, SM90))
    kernel = library.planner("9.0", "NVIDIA GH200")(PROBLEM)
    assert kernel.variant == str(SM90)
    assert kernel.milliseconds is None, "another GPU's time is not this one's"
    assert "NVIDIA GH200 has no tuning table; taken from NVIDIA H100, of the same compute capability" in kernel.why


def test_another_capability_takes_a_variant_that_fits_its_shared_memory(shipped, compilers, monkeypatch):
    ship(shipped, entry(PROBLEM, SM90, WIDE, NARROW))
    real = compilers.triton_kernel

    def sized(function, signature, constants, target, warps):
        made = real(function, signature, constants, target, warps)
        return replace(made, shared=constants.get("BLOCK_M", 0) * 1024)

    from engines.kernels import plan_triton

    monkeypatch.setattr(plan_triton, "triton_kernel", sized)
    kernel = library.planner("8.6", "NVIDIA RTX 3090")(PROBLEM)
    assert kernel.variant == str(NARROW), "128 KiB are more than the 99 of compute capability 8.6"
    assert kernel.plan.target == "8.6" and not kernel.plan.exact
    assert "of the nearest compute capability (9.0)" in kernel.why
    assert library.planner("8.0", "NVIDIA A100")(PROBLEM).variant == str(WIDE)


def test_no_table_at_all_takes_a_plain_kernel(shipped, compilers):
    kernel = library.planner("8.9", "NVIDIA RTX 4090")(PROBLEM)
    assert kernel.variant == str(PLAIN) and kernel.milliseconds is None
    assert kernel.why == "no tuning table is here; no measured kernel fits, a plain one is taken"


def test_no_fitting_variant_takes_a_plain_kernel(shipped, compilers):
    ship(shipped, entry(PROBLEM, SM90))
    assert library.planner("8.9", "NVIDIA RTX 4090")(PROBLEM).variant == str(PLAIN)


def test_what_no_kernel_covers_is_said_before_tables_are_asked(shipped, compilers):
    ship(shipped, entry(PROBLEM, SM90))
    with pytest.raises(Unsupported, match="head size 24"):
        library.planner("9.0", "NVIDIA H100")(replace(PROBLEM, head_size=24))
    assert not compilers.requests


def test_a_missing_compiler_is_said_in_one_line_with_a_way_around_it(shipped, monkeypatch):
    ship(shipped, entry(PROBLEM, NARROW))
    monkeypatch.setattr(images, "why_not", lambda *compilers: "triton is not installed: pip install triton")
    with pytest.raises(InputError) as caught:
        library.planner("9.0", "NVIDIA H100")(PROBLEM)
    assert str(caught.value) == (
        "this kernel has to be compiled and triton is not installed: pip install triton; "
        "or build with --attention decomposed"
    )


def test_a_problem_is_planned_once(shipped, compilers, monkeypatch):
    ship(shipped, entry(PROBLEM, SM90))
    calls = []
    real = library.make_plan
    monkeypatch.setattr(library, "make_plan", lambda *given: calls.append(given) or real(*given))
    plan = library.planner("9.0", "NVIDIA H100")
    assert plan(PROBLEM) is plan(PROBLEM)
    assert len(calls) == 1


def test_a_damaged_table_is_an_error_that_names_it(shipped):
    (shipped / "bad.json").write_text("{}")
    with pytest.raises(InputError, match=r"bad\.json is no tuning table"):
        library.planner("9.0", "NVIDIA H100")


@pytest.mark.parametrize(
    ("capability", "target"),
    [
        *((target, target) for target in TARGETS),
        ("8.7", "8.6"),
        ("8.8", "8.6"),
        ("7.5", None),
        ("9.1", None),
        ("10.3", None),
        ("12.1", None),
        ("6.0", None),
    ],
)
def test_the_target_of_a_gpu(shipped, capability, target):
    assert library.target_of(capability) == target
    if target is None:
        message = f"there are no kernels for compute capability {capability}; there are for 8.0, 8.6, 8.9, 9.0, 10.0"
        assert library.available(capability).startswith(message)
        with pytest.raises(Unsupported, match="there are no kernels for compute capability"):
            library.planner(capability, "GPU")


def test_available_where_there_is_a_compiler_or_a_kept_kernel(shipped, kept, monkeypatch):
    monkeypatch.setattr(images, "why_not", lambda *compilers: "triton is not installed")
    assert library.available("9.0") == "triton is not installed"
    kept.mkdir()
    monkeypatch.setattr(images, "_compile_cuda", lambda *given: b"cubin")
    images.cuda_kernel("prepare.cu", "", ["prepare"], {}, "9.0", 0, 256)
    assert library.available("9.0") == ""
    assert library.available("8.6") == "triton is not installed"  # what is kept is for Hopper alone
    (facts,) = kept.glob("*.json")
    good = facts.read_text()
    sources = [images._source(name) for name in ("prepare.cu", images._COMMON)]
    for stale in (good.replace("nvrtc", "nvrtc 12"), *(good.replace(each, "0" * 64) for each in sources), "{", "[]"):
        facts.write_text(stale)
        assert library.available("9.0") == "triton is not installed"
    facts.write_text(good)
    assert library.available("9.0") == ""
    facts.with_suffix(".cubin").unlink()
    assert library.available("9.0") == "triton is not installed"
    monkeypatch.setattr(images, "why_not", lambda *compilers: "")
    assert library.available("9.0") == ""


def test_identity_changes_with_tables_sources_and_compilers(shipped, kept, tmp_path, monkeypatch):
    seen = [library.identity()]
    assert library.identity() == seen[0]
    ship(shipped, entry(PROBLEM, SM90))
    seen.append(library.identity())
    ship(shipped, entry(PROBLEM, NARROW))
    seen.append(library.identity())
    ship(kept / "tuned", entry(PROBLEM, NARROW))
    seen.append(library.identity())
    monkeypatch.setattr(images, "NVRTC", "14.0")
    seen.append(library.identity())
    source = tmp_path / "more.cu"
    for text in ("first", "second"):
        source.write_text(text)
        monkeypatch.setattr(library, "_SOURCES", (*library._SOURCES[:1], str(source)))
        seen.append(library.identity())
    plugin = tmp_path / "plugin"
    for part in ("core", "adapter"):
        (plugin / part).mkdir(parents=True)
    monkeypatch.setattr(library, "_PLUGIN", plugin)
    for text in ("first", "second"):
        (plugin / "adapter" / "adapter.cpp").write_text(text)
        seen.append(library.identity())
    assert len(set(seen)) == len(seen)


def test_identity_reads_every_file_that_decides():
    kernels = library.SHIPPED.parent
    idle = {
        "__init__.py",
        "driver.py",
        "measure.py",
        "read_plan.py",
        "chain.py",
        "tune_block.py",
        "linear_measure.py",
        "timing.py",
        "tune.py",
    }  # they run and measure kernels
    assert (
        set(library._SOURCES)
        == {path.name for path in kernels.iterdir() if path.suffix in (".py", ".cu", ".cuh")} - idle
    )
