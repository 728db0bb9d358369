"""`cat2dog accuracy --search`: the fewest FP32 islands that reach a score, as a policy; and what they cost in time."""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli import compose, console, options
from cli.provenance import provenance
from runtime.errors import AccuracyError, InputError, ToolchainError

if TYPE_CHECKING:
    from accuracy.search import Found
    from accuracy.trials import Trials
    from engines.validation import Validation
    from export.policy import Island, Policy
    from export.recipe import Recipe

AIM_DB = 45.0
POLICY_FILE, REPORT_FILE = "policy.json", "search.json"
_ESTIMATE = (
    "estimate: 1 with no islands; shares of each node measured by ONNX Runtime on this CPU, FP32 taken to be "
    "twice as slow as half precision"
)
_NO_ENGINE = "no engine was timed"


def run(args: argparse.Namespace) -> int:
    """Search, write the policy and the report, print the trade. Raises AccuracyError where no islands are enough."""
    if args.precision == "fp32":
        raise InputError("FP32 has no islands to search for: give --precision fp16 or bf16")
    if args.policy:
        raise InputError("--search starts from no islands and writes a policy: leave out --policy")
    with console.progress("search") as update:
        recipe = compose.recipe_of(args, update)
        facts = _search(args, recipe, update)
    if args.json:
        console.print_json(facts)
    else:
        _print(facts)
    if not facts["reached"]:
        raise AccuracyError(
            f"even with every module in FP32 the worst sample has {facts['metric']} {facts['score']:.4g}, expected "
            f"at least {facts['wished']:g}: precision is not what is wrong; `cat2dog accuracy` compares the graphs"
        )
    return 0


def _search(args: argparse.Namespace, recipe: Recipe, update: console.Update) -> dict[str, Any]:
    from accuracy.candidates import form_for
    from accuracy.search import search
    from accuracy.trials import Trials
    from export.policy import Policy
    from export.policy_file import save_policy
    from runtime.files import write_text

    folder = args.output or args.build_dir / "accuracy" / f"{recipe.name}_{args.precision}_search"
    options.check_build_folder(folder)
    form, note = form_for(args.attention, args.flavor, args.precision)
    validation = compose.validation_of(recipe, update)
    wished = _wished(args.search, validation)
    update("tracing", None)
    with Trials(recipe, args.precision, form, args.flavor, validation, folder, args.opset) as trials:
        overflow = trials.overflow(())
        found = search(trials.families, lambda islands: min(trials.scores(islands)), wished, update)
        policy = Policy(args.precision, found.islands)
        update("measuring what islands cost", None)
        trade = _trade(trials, found, policy, validation)
    if found.reached:
        about = {"measured": f"{validation.metric} {found.score:.4g} on the worst of {validation.samples} samples, "
                             f"asked for {wished:g}, attention {form}"}  # fmt: skip
        save_policy(folder / POLICY_FILE, policy, about)
    notes = [note] if note else []
    notes += _time_engines(args, recipe, trade, folder, update)
    facts: dict[str, Any] = {
        "machine": provenance(),
        "name": recipe.name,
        "precision": args.precision,
        "attention": form,
        "metric": validation.metric,
        "wished": wished,
        "samples": validation.samples,
        "reached": found.reached,
        "score": found.score,
        "islands": [{"module": island.module, "why": island.why} for island in found.islands],
        "overflow_without_islands": str(overflow) if overflow else None,
        "alone": found.alone,
        "trade": [{name: value for name, value in row.items() if name != "policy"} for row in trade],
        "time": _ESTIMATE,
        "steps": [{"what": s.what, "islands": len(s.islands), "score": s.score} for s in found.steps],
        "policy": folder / POLICY_FILE if found.reached else None,
        "folder": folder,
        "notes": notes,
    }
    write_text(folder / REPORT_FILE, console.json_text(facts) + "\n")
    return facts


def _wished(given: float, validation: Validation) -> float:
    if math.isnan(given):
        return AIM_DB if validation.metric == "psnr" else validation.threshold
    return given


def _trade(trials: Trials, found: Found, policy: Policy, validation: Validation) -> list[dict[str, Any]]:
    """One row a policy worth knowing: none, the way up to enough, what was found, the default, everything FP32."""
    from accuracy.time_share import relative_time, time_shares
    from export.policy import policy_for

    shares = time_shares(trials.fp32(), {name: array[:1] for name, array in validation.feed.items()})

    def row(what: str, islands: Sequence[Island], score: float, policy: Policy | None = None) -> dict[str, Any]:
        held = trials.held(islands)
        time = relative_time(held, shares)
        return {
            "what": what, "islands": len(islands), "fp32_nodes": len(held), "score": score,
            "relative_time_estimated": round(time, 4), "engine_ms": None, "policy": policy,
        }  # fmt: skip

    default = policy_for(trials.precision)
    up = [step for step in found.steps if step.what.startswith("with ")]
    rows = [row(found.steps[0].what, (), found.steps[0].score, replace(policy, islands=()))]
    rows += [row(step.what, step.islands, step.score) for step in up]
    if found.islands and found.reached:
        rows.append(row("found", found.islands, found.score, policy))
    rows.append(row("default policy", default.islands, min(trials.scores(default.islands)), default))
    everything = next((step for step in found.steps if step.what == "every module an island"), None)
    if everything:
        rows.append(row(everything.what, everything.islands, everything.score))
    return rows


def _time_engines(
    args: argparse.Namespace, recipe: Recipe, trade: list[dict[str, Any]], folder: Path, update: console.Update
) -> list[str]:
    """Where an engine runs, build one for each policy that can be asked for, and enter its latency; else say why not.

    An engine that the gate refuses (an overflow) has no latency worth knowing.
    """
    from runtime.flavors import find_flavors
    from runtime.gpu import find_gpus, no_gpu_reason

    flavor = next((each for each in find_flavors() if args.flavor in ("auto", each.name) and each.can_run), None)
    if not find_gpus() or flavor is None:
        return [f"{_NO_ENGINE}: {no_gpu_reason() if not find_gpus() else 'no TensorRT runs here'}"]
    from engines.build import build, find
    from export.policy_file import save_policy

    notes = []
    for row in trade:
        if row["policy"] is None:
            continue
        file = folder / f"policy_{row['what'].replace(' ', '-')}.json"
        save_policy(file, row["policy"])
        try:
            request = compose.build_request(argparse.Namespace(**{**vars(args), "policy": file}), recipe, update)
            made = find(request) or build(replace(request, validation=compose.validation_of(recipe, update)), update)
            update(f"timing the engine: {row['what']}", None)
            row["engine_ms"] = engine_ms(flavor.python, made.path)
        except ToolchainError as reason:
            notes.append(f"{row['what']}: {_NO_ENGINE}: {reason}")
    return notes


def engine_ms(python: str, engine: Path) -> float:
    """Median milliseconds of an engine's network, by `python -m bench.engine` under its flavor's own Python.

    Raises ToolchainError with its last words where it fails.
    """
    with tempfile.TemporaryDirectory(prefix="cat2dog-bench-") as folder:
        results = Path(folder) / "engine.json"
        words = [python, "-m", "bench.engine", "--engine", str(engine.resolve()), "--output", str(results)]
        root = Path(__file__).resolve().parent.parent
        done = subprocess.run(words, capture_output=True, text=True, cwd=root)
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
            raise ToolchainError(f"the bench of {engine.name} failed: {last[:300]}")
        return float(json.loads(results.read_text())["engines"][0]["ms"]["median"])


def _print(facts: Mapping[str, Any]) -> None:
    from accuracy.judged import score_text

    title = f"{facts['name']} {facts['precision']}, {facts['attention']} attention; worst of {facts['samples']} samples"
    columns = ("policy", "islands", "FP32 nodes", facts["metric"], "time (estimate)", "engine ms")
    rows = [
        (
            row["what"],
            row["islands"],
            row["fp32_nodes"],
            score_text(facts["metric"], row["score"]),
            f"{row['relative_time_estimated']:.3f}",
            None if row["engine_ms"] is None else f"{row['engine_ms']:.3f}",
        )
        for row in facts["trade"]
    ]
    console.table(title, columns, rows)
    print(f"time is an {facts['time']}")
    if facts["overflow_without_islands"]:
        print(f"without islands: {facts['overflow_without_islands']}")
    for island in facts["islands"] if facts["reached"] else ():
        print(f"island {island['module']}: {island['why']}")
    for note in facts["notes"]:
        print(f"note: {note}")
    if facts["reached"]:
        said = score_text(facts["metric"], facts["score"])
        print(f"{len(facts['islands'])} islands reach {facts['metric']} {said}, asked for {facts['wished']:g}: "
              f"{facts['policy']}; report in {facts['folder'] / REPORT_FILE}")  # fmt: skip
