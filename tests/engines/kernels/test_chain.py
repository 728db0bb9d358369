"""Where a chain's values lie: constants shared, memory used again only when nobody reads it, everything freed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from engines.kernels import tune_block
from engines.kernels.chain import Chain, ChainOnGpu
from runtime import cuda
from runtime.errors import ToolchainError
from tests.engines.kernels.test_tune_block import block
from tests.engines.linear_stand_ins import LinearStandIn
from tests.runtime.fake_cuda import FakeCuda


@pytest.fixture
def api(monkeypatch):
    api = FakeCuda()
    monkeypatch.setattr(cuda, "bindings", lambda: api)
    yield api
    assert not api.alive, "something was not freed"


def blocks() -> Chain:
    given, stand_in = block(), LinearStandIn()
    return tune_block.BlocksInRow(given, 1).chain({name: stand_in(one).plan for name, one in given.linear.items()})


def test_no_value_is_overwritten_before_its_last_reader(api):
    chain = blocks()
    with ChainOnGpu(chain, 1) as there:
        spans = {name: (there._at[name].address, there._at[name].address + there._at[name].size) for name in there._at}
        for index, node in enumerate(chain.nodes):
            later = {name for other in chain.nodes[index + 1 :] for name in other.inputs}
            made = {name for other in chain.nodes[:index] for name in other.outputs}
            # What the node reads itself must stay, too: its blocks do not all end at once.
            kept = (later & made) | set(node.inputs) | set(chain.constants)
            for output in node.outputs:
                begin, end = spans[output]
                hit = [
                    name
                    for name in kept | set(node.outputs) - {output}
                    if spans[name][0] < end and begin < spans[name][1]
                ]
                assert not hit, f"{output} lies over {hit}"
        written = [name for node in chain.nodes for name in node.outputs]
        assert len({spans[name] for name in written}) < len(written) // 2, "memory is used again"


def test_constants_of_another_chain_are_used_where_they_lie(api):
    chain = blocks()
    with ChainOnGpu(chain, 1) as there:
        before = len(api.alive)
        with ChainOnGpu(chain, 1, there) as other:
            assert all(other._at[name] is there._at[name] for name in chain.constants)
            assert len(api.alive) - before < len(chain.nodes)
        assert len(api.alive) == before


def test_what_nobody_gives_is_made_up(api):
    chain = blocks()
    first = chain.nodes[0].inputs[0]
    with ChainOnGpu(replace(chain, constants={n: a for n, a in chain.constants.items() if n != first}), 1) as there:
        assert there._shapes[first] == chain.constants[first].shape


def test_a_chain_that_does_not_fit_leaves_nothing(api):
    api.memory = 1 << 16  # less than the widest layer's weights
    with pytest.raises(ToolchainError, match="memory"):
        ChainOnGpu(blocks(), 1)
    api.memory = 1 << 30
    chain = blocks()
    name = chain.nodes[0].inputs[1]
    with pytest.raises(ValueError):
        ChainOnGpu(replace(chain, constants={**chain.constants, name: np.zeros((3, 3), np.float16)}), 1)
