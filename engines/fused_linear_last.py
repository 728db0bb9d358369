"""Which fused linear layers are the last of their network, and so ask for no weights of a next one.

A kernel brings the weights of the linear layer that is enqueued after it into the L2. The plugin takes for that the
next one enqueued in the same thread, which is of the same network only where one must follow: where a layer depends on
this one's output. Behind the others another engine's may follow, whose memory need not live as long.
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from engines.kernels.problem import FusedKernel


def settle_last(written: Mapping[ir.Node, FusedKernel]) -> None:
    """Rewrite the launch plans of those of the fused nodes `written` that none of them follows."""
    followed: dict[ir.Node, bool] = {}
    for node, kernel in written.items():
        if not _is_followed(node, written, followed):
            node.attributes["launch"] = ir.AttrString("launch", kernel.plan.last().text())


def _is_followed(node: ir.Node, written: Mapping[ir.Node, FusedKernel], known: dict[ir.Node, bool]) -> bool:
    """Whether one of `written` depends on `node`, in its own graph: a branch may not be taken."""
    waiting = [node]
    while waiting:
        last = waiting[-1]
        if last in known:
            waiting.pop()
            continue
        after = {user for value in last.outputs for user, _ in value.uses() if user.graph is last.graph}
        if any(user in written or known.get(user, False) for user in after):
            known[last] = True
        elif unknown := [user for user in after if user not in known]:
            waiting += unknown
        else:
            known[last] = False
    return known[node]
