"""From a GPU to the kernels for it: the planner that lowering asks."""

from __future__ import annotations

import functools
from pathlib import Path

from engines.kernels import images
from engines.kernels.plan import make_plan
from engines.kernels.problem import AttentionProblem, FusedKernel, Planner, Unsupported
from engines.kernels.tables import SHIPPED, ProblemKey, Table, choose_table, read_table
from engines.kernels.variants import TARGETS, TritonVariant, check_problem
from runtime.errors import InputError
from runtime.files import sha256_file, sha256_text

_SOURCES = (
    "attention_triton.py", "attention_sm90.cu", "prepare.cu", "linear_sm90.cu", "half.cuh", "hopper.cuh", "wgmma.py",
    "images.py", "problem.py", "variants.py", "plan.py", "plan_builder.py", "plan_triton.py", "plan_sm90.py",
    "linear_problem.py", "linear_variants.py", "linear_plan.py", "linear_key.py", "linear_library.py", "launch.py",
    "pixels.cu", "pixels_problem.py", "pixels_plan.py", "sizes.py", "tables.py", "library.py",
)  # fmt: skip
# The C++ that launches them says what a plan needs (workspace, formats) and how it stores it.
_PLUGIN = Path(__file__).resolve().parent.parent / "plugin"
# What every GPU runs tolerably: the last resort of a GPU and problem that nobody measured.
_PLAIN = TritonVariant(64, 64, 4, 2)


def planner(compute_capability: str, gpu_name: str) -> Planner:
    """Chooses kernels for one GPU out of the tuning tables. Raises Unsupported for a GPU that no kernel runs on."""
    target = target_for(compute_capability)
    table, why, own = table_for(compute_capability, gpu_name)

    @functools.cache
    def plan(problem: AttentionProblem) -> FusedKernel:
        check_problem(problem)
        try:
            return _choose(problem, table, why, own, target)
        except InputError as error:  # a compiler is missing
            raise InputError(f"{error}; or build with --attention decomposed") from error

    return plan


def _choose(problem: AttentionProblem, table: Table | None, why: str, own: bool, target: str) -> FusedKernel:
    """`own`: the table is of the very GPU, so its times are, too."""
    key = ProblemKey.of(problem)
    exact = table.find(key) if table else None
    entry = exact or (table.nearest(key) if table else None)
    if table and entry:
        reason = why if exact else f"{why}; nearest measured problem: {entry.key}"
        for timing in entry.timings:
            try:
                plan = make_plan(problem, timing.variant, target)
            except Unsupported:
                continue
            return FusedKernel(plan, str(timing.variant), reason, timing.median / 1e3 if own and exact else None)
    reason = f"{why}; no measured kernel fits, a plain one is taken"
    return FusedKernel(make_plan(problem, _PLAIN, target), str(_PLAIN), reason)


def target_for(compute_capability: str) -> str:
    """`target_of`. Raises Unsupported for a GPU that no kernel runs on."""
    target = target_of(compute_capability)
    if target is None:
        raise Unsupported(available(compute_capability))
    return target


def table_for(compute_capability: str, gpu_name: str) -> tuple[Table | None, str, bool]:
    """The table to choose kernels by, how it was chosen, and whether it is of this very GPU."""
    table, why = choose_table(tables(), gpu_name, compute_capability)
    return table, why, table is not None and table.gpu == gpu_name


def tables() -> list[Table]:
    """What `cat2dog tune` measured here, then what ships."""
    return [read_table(path) for path in _table_paths()]


def _table_paths() -> list[Path]:
    return [path for folder in (images.folder() / "tuned", SHIPPED) for path in sorted(folder.glob("*.json"))]


def identity() -> str:
    """Hash of everything that decides which kernels an engine gets, and in what form: sources, tables, compilers."""
    here = Path(__file__).resolve().parent
    plugin = sorted(path for part in ("core", "adapter") for path in (_PLUGIN / part).iterdir() if path.is_file())
    files = [*(here / name for name in _SOURCES), *_table_paths(), *plugin]
    return sha256_text("".join(sha256_file(path) for path in files) + repr(images.compiler_versions()))


def target_of(compute_capability: str) -> str | None:
    """The compute capability to compile for, or None where no kernel runs on that GPU.

    Within 8.x a cubin runs on every later one; from 9.0 on, kernels use instructions of one architecture.
    """
    if compute_capability in TARGETS:
        return compute_capability
    major, _, minor = compute_capability.partition(".")
    same = [target for target in TARGETS if target.startswith("8.") and major == "8" and target[2:] <= minor]
    return max(same, default=None)


def available(compute_capability: str) -> str:
    """Why no kernels can be had here for that GPU, or ""."""
    target = target_of(compute_capability)
    if target is None:
        return f"there are no kernels for compute capability {compute_capability}; there are for {', '.join(TARGETS)}"
    # Most kernels for Hopper are CUDA C++; where a node's are Triton's, planning it says what is missing.
    obstacle = images.why_not("nvrtc") if target == "9.0" else images.why_not()
    if obstacle and images.has_kept(target):
        return ""  # compiled before, perhaps on another machine
    return obstacle
