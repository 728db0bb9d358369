"""After its layers, a checkpoint's block as a whole: `cat2dog tune --kernels linear`."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from engines.kernels.linear_key import LinearKey
    from engines.kernels.tables import Entry, ProblemKey, Table
    from engines.kernels.tune_block import Block
    from runtime.gpu import Gpu


def tuned_block(
    layers: Mapping[str, LinearKey],
    attention: ProblemKey,
    table: Table,
    gpu: Gpu,
    target: str,
    progress: Callable[[str, float | None], None],
) -> list[Entry]:
    """The entries of a block's layers in `table`, each with what it takes among the others."""
    from engines.kernels.linear_variants import LinearVariant
    from engines.kernels.tune_block import tune_block

    entries: dict[str, Entry] = {name: _entry(table, key) for name, key in layers.items()}
    before: dict[str, Any] = {}
    for name, entry in entries.items():
        before[name] = next(t.variant for t in entry.timings if isinstance(t.variant, LinearVariant))
    block = block_of(layers, attention, gpu)
    chosen = tune_block(block, before, target, table.multiprocessors, progress)
    return [replace(entry, in_block=chosen[name]) for name, entry in entries.items()]


def block_of(layers: Mapping[str, LinearKey], attention: ProblemKey, gpu: Gpu) -> Block:
    """A block's layers with the attention kernel that engines of this GPU have between them."""
    from engines.kernels.library import planner
    from engines.kernels.tune_block import Block

    plan = planner(gpu.compute_capability, gpu.name)(attention.problem()).plan
    return Block(**{name: key.problem() for name, key in layers.items()}, attention=plan)


def block_line(label: str, layers: Mapping[str, LinearKey], entries: list[Entry]) -> str:
    """What `tune` prints of a block."""
    parts = [f"{name} {e.in_block.timing.variant}" for name, e in zip(layers, entries, strict=True) if e.in_block]
    first = entries[0].in_block
    return f"{label}: {first.block[0]:.1f} us a block: {'; '.join(parts)}" if first else label


def _entry(table: Table, key: LinearKey) -> Entry:
    entry = table.find(key)
    if entry is None:  # it was measured just before
        raise KeyError(key)
    return entry
