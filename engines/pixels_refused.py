"""Whether a builder failed by the fused pixels of a lowered graph: TensorRT's own layers can do without them."""

from __future__ import annotations

from engines.fused_pixels_node import nodes_of
from engines.lowering import Lowered
from runtime.errors import ToolchainError

# A builder that ends so has met what it cannot do; one that is killed ran out of memory, or was told to.
_CRASHES = ("SIGSEGV", "SIGABRT", "SIGFPE", "SIGILL", "SIGBUS")


def pixels_nodes(lowered: Lowered) -> list[str]:
    """What the nodes are called that stand for the ways of images in `lowered`."""
    return [name for way in lowered.pixels if way.form == "plugin" for name in nodes_of(way.node)]


def refusal_of_pixels(lowered: Lowered, error: ToolchainError) -> str:
    """In one line, why the builder failed by fused pixels; "" where it failed by something else, or there are none.

    That is so where its error names one of their nodes; a crash names none, and is blamed on them.
    """
    nodes, text = pixels_nodes(lowered), " ".join(str(error).split())
    blamed = any(name in text for name in nodes) or any(f"was ended by {crash}" in text for crash in _CRASHES)
    return text[:300] if nodes and blamed else ""
