"""What could be an island of its own: modules that do the same in every block, found in a traced graph."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from export.policy import Island, Policy
from export.precision import computing_nodes, module_path


@dataclass(frozen=True)
class Family:
    """Modules whose paths differ in numbers only: `pattern` with `#` for each number, and the paths themselves."""

    pattern: str
    members: tuple[str, ...]
    nodes: int

    def island(self, why: str) -> Island:
        """All of them in FP32, their own nodes and not those of modules within."""
        return Island(why, module=self.pattern)


def families(model: ir.Model, precision: str) -> list[Family]:
    """The families of a traced FP32 `model` that have nodes which `precision` makes narrow, in the order they run.

    Nodes of no module (what the exporter put between them) belong to none.
    """
    found: dict[str, dict[str, int]] = {}
    for node in computing_nodes(model, Policy(precision)):
        path = module_path(node)
        if path:
            pattern = ".".join("#" if part.isdigit() else part for part in path.split("."))
            members = found.setdefault(pattern, {})
            members[path] = members.get(path, 0) + 1
    return [Family(pattern, tuple(members), sum(members.values())) for pattern, members in found.items()]
