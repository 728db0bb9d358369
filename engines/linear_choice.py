"""`--linear auto`: of each distinct unit of linear layers, the form that is fastest on this GPU, by measurement.

A unit (`engines.linear_units`) is cut out of the graph and lowered in each combination of forms; each becomes an engine
of its own, and these are timed in turns by `engines.measure_child`, in one process under the flavor's Python. Equal
units are measured once, and kept beside TensorRT's timing cache. The choice is no part of an engine's key, no more than
TensorRT's own tactics are: GPU, flavor, kernels and options, which decide it, are.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import onnx_ir as ir

from engines.fused_linear import Choice, LinearLowering
from engines.fused_node import kernels_sha256
from engines.layer_types import layer_types
from engines.linear_times import Times, add_times, read_times
from engines.linear_units import Unit, best_of_each, signature, units_of
from engines.process import Progress
from engines.proxy import saved_beside
from runtime.errors import InputError
from runtime.files import sha256_text

# A candidate's engine is loaded as often as it takes to have this many bytes of weights, or those of the whole network,
# so that it finds them as cold as they are when the network runs: the L2 of an H200 holds 60 MB.
COLD_BYTES = 160 << 20
# What units are measured by: the child's request in, its answer out (`engines.measure_child`).
Measure = Callable[[Mapping[str, Any]], Mapping[str, Any]]


@dataclass(frozen=True)
class LinearChooser:
    """Chooses forms for graphs lowered beside the file `neutral`.

    `request` is what every measurement's request has, beside its units; `identity` what decides times beyond a unit and
    its kernels. `times` is the file that keeps them.
    """

    neutral: Path
    times: Path
    request: Mapping[str, Any]
    identity: Mapping[str, Any]
    measure: Measure
    progress: Progress = lambda phase, fraction: None

    def choose(self, model: ir.Model, lowering: LinearLowering) -> dict[str, Choice]:
        """A choice for each layer of `model` that has a kernel, by its name; the model stays as it is.

        Raises ToolchainError where measuring failed as a whole.
        """
        known = read_times(self.times)
        groups: dict[str, _Group] = {}
        for unit in units_of(lowering.plan(model).planned):
            group = self._group(unit, model, lowering)
            groups.setdefault(group.key, group).units.append(unit)
        missing = [group for group in groups.values() if group.candidates and not group.complete(known)]
        failures: dict[str, str] = {}
        if missing:
            measured = self._measured(missing, failures)
            # A form may have failed for want of memory, say: what is kept would rule it out for good.
            add_times(self.times, {group.key: measured[group.key] for group in missing if group.complete(measured)})
            known = {**known, **{group.key: measured.get(group.key, {}) for group in missing}}
        choices: dict[str, Choice] = {}
        for group in groups.values():
            for unit in group.units:
                failure = failures.get(group.key, group.obstacle)
                choices.update(_chosen(unit, known.get(group.key, {}), failure, group.refused))
        return choices

    def _group(self, unit: Unit, model: ir.Model, lowering: LinearLowering) -> _Group:
        """What is to be measured of a unit: alike for units that differ in constants alone."""
        try:
            part = unit.excerpt(model)
        except ValueError as error:
            return _Group("|".join(unit.names), obstacle=f"it cannot be cut out of the graph: {error}")
        group = _Group(signature(part))
        alone = replace(lowering, checks=None, choices={})
        if [each.problem for each in alone.plan(part).planned] != [each.problem for each in unit.layers]:
            return _Group("|".join(unit.names), obstacle="cut out of the graph, it is another problem")
        for forms in unit.combinations():
            candidate = part if forms == unit.combinations()[0] else unit.excerpt(model)
            choices = {name: Choice(form, "") for name, form in zip(unit.names, forms, strict=True)}
            try:
                lowered = replace(alone, choices=choices).lower(candidate)
            except InputError as error:  # a compiler is missing: of these layers alone nobody compiled kernels
                group.refused.append(f"{' '.join(forms)}: {error}")
                continue
            got = {node.node: node.form for node in lowered.nodes}
            if [got.get(name) for name in unit.names] != list(forms):
                group.refused.append(f"{' '.join(forms)}: no kernel")
                continue
            group.candidates[forms] = candidate
        if len(group.candidates) < 2:
            group.obstacle = "; ".join(group.refused) or "there is no other form"
            group.candidates.clear()
        kernels = [[*forms, kernels_sha256(each)] for forms, each in group.candidates.items()]
        group.key = sha256_text(json.dumps([group.key, kernels, self.identity], sort_keys=True))
        return group

    def _measured(self, groups: Sequence[_Group], failures: dict[str, str]) -> dict[str, Times]:
        """Milliseconds of each group's candidates; why there are none goes into `failures`."""
        self.progress("measuring linear layers", None)
        with _written(groups, self.neutral) as units:
            answer = self.measure({**self.request, "units": units})
        found: dict[str, Times] = {}
        for group, results in zip(groups, answer["units"], strict=True):
            times = {
                forms: float(result["milliseconds"])
                for forms, result in zip(group.candidates, results, strict=True)
                if "milliseconds" in result
            }
            errors = [
                f"{' '.join(forms)}: {result['error']}"
                for forms, result in zip(group.candidates, results, strict=True)
                if "error" in result
            ]
            if len(times) > 1:
                found[group.key] = times
            else:
                failures[group.key] = "; ".join(errors)
            group.refused += errors
        return found


@dataclass(eq=False)
class _Group:
    """Units that are measured once: by which key, lowered in which forms, or why they cannot be."""

    key: str
    units: list[Unit] = field(default_factory=list)
    candidates: dict[tuple[str, ...], ir.Model] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)
    obstacle: str = ""

    def complete(self, known: Mapping[str, Times]) -> bool:
        """Whether there are times of every candidate, and of nothing else."""
        return known.get(self.key, {}).keys() == self.candidates.keys()


@contextmanager
def _written(groups: Sequence[_Group], neutral: Path) -> Iterator[list[dict[str, Any]]]:
    """The candidates as files beside `neutral`, whose data they share, as the child wants them; removed afterwards."""
    with contextlib.ExitStack() as stack:
        units = []
        for group in groups:
            candidates = []
            for forms, model in group.candidates.items():
                path = stack.enter_context(saved_beside(model, neutral))
                onnx, types = str(path.resolve()), layer_types(model)
                candidates.append({"forms": " ".join(forms), "onnx": onnx, "layer_types": types})
            units.append({"name": ", ".join(group.units[0].names), "candidates": candidates})
        yield units


def _chosen(unit: Unit, times: Times, failure: str, refused: Sequence[str]) -> dict[str, Choice]:
    """The fastest forms; where nothing was measured, kernels that a table of this very GPU has times for."""
    words = unit.words()
    if times:
        forms = min(times, key=lambda each: times[each])
        why = f"measured but for {'; '.join(refused)[:600]}" if refused else "measured"
    else:
        tuned = all(planned.kernel.milliseconds is not None for planned in unit.layers)
        forms = ("plugin" if tuned else "tensorrt",) * len(words)
        rule = "its kernels are tuned on this GPU" if tuned else "its kernels are not tuned on this GPU"
        why = f"not measured ({failure[:600]}): {rule}"
    chosen = {}
    for index, (name, form) in enumerate(zip(unit.names, forms, strict=True)):
        beside = [word for other, word in enumerate(words) if other != index]
        what = f"{words[index]}{' together with ' if beside else ''}{' and '.join(beside)}"
        chosen[name] = Choice(form, f"{why}: {what}", best_of_each(times, index))
    return chosen
