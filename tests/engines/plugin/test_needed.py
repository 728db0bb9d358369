"""Whether `make run` and `make engines` have to build the plugin library first."""

from __future__ import annotations

import pytest

from engines.plugin import needed
from runtime.errors import InputError
from runtime.flavors import Flavor
from runtime.gpu import Gpu

HOPPER = Gpu(0, "NVIDIA H200", "9.0", 1 << 37, "13.0")


@pytest.mark.parametrize(
    ("version", "attention", "built", "expected"),
    [
        ("8.6.0", "auto", False, True),
        ("8.6.0", "auto", True, False),
        ("8.6.0", "decomposed", False, False),
        ("10.3.0", "plugin", False, True),
        ("11.1.0", "auto", False, False),  # native attention there
    ],
)
def test_it_is_needed_where_an_engine_would_want_it(monkeypatch, version, attention, built, expected):
    def find(flavor_version):
        assert flavor_version == version
        if not built:
            raise InputError("absent")

    monkeypatch.setattr(needed, "choose_flavor", lambda name: Flavor("tensorrt", version, "python", True, True))
    monkeypatch.setattr(needed, "find_gpus", lambda: [HOPPER])
    monkeypatch.setattr(needed, "find_plugin", find)
    assert needed.is_needed(attention, "auto") is expected
    assert needed.main(["--attention", attention]) == (0 if expected else 1)


def test_nothing_is_needed_where_nothing_can_be_built(monkeypatch):
    def refuse(name):
        raise InputError("no TensorRT here can build")

    monkeypatch.setattr(needed, "choose_flavor", refuse)
    assert needed.is_needed("auto", "auto") is False
