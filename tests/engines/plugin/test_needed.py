"""Whether `make run` and `make engines` have to build the plugin library first."""

from __future__ import annotations

import pytest

from engines import form
from engines.plugin import needed
from runtime.errors import InputError
from runtime.flavors import Flavor
from runtime.gpu import Gpu

HOPPER = Gpu(0, "NVIDIA H200", "9.0", 1 << 37, "13.0")


@pytest.mark.parametrize(
    ("version", "attention", "linear", "built", "expected"),
    [
        ("8.6.0", "auto", "tensorrt", False, True),
        ("8.6.0", "auto", "auto", True, False),
        ("8.6.0", "decomposed", "tensorrt", False, False),
        ("8.6.0", "decomposed", "auto", False, True),
        ("10.3.0", "plugin", "tensorrt", False, True),
        ("11.1.0", "auto", "tensorrt", False, False),  # native attention there
        ("11.1.0", "auto", "auto", False, True),
    ],
)
def test_it_is_needed_where_an_engine_would_want_it(monkeypatch, version, attention, linear, built, expected):
    def find(flavor_version):
        assert flavor_version == version
        if not built:
            raise InputError("absent")

    monkeypatch.setattr(needed, "choose_flavor", lambda name: Flavor("tensorrt", version, "python", True, True))
    monkeypatch.setattr(needed, "find_gpus", lambda: [HOPPER])
    monkeypatch.setattr(needed, "find_plugin", find)
    monkeypatch.setattr(form, "plugin_obstacle", lambda flavor, gpu: "")
    assert needed.is_needed(attention, "auto", linear) is expected
    assert needed.main(["--attention", attention, "--linear", linear]) == (0 if expected else 1)


def test_nothing_is_needed_where_nothing_can_be_built(monkeypatch):
    def refuse(name):
        raise InputError("no TensorRT here can build")

    monkeypatch.setattr(needed, "choose_flavor", refuse)
    assert needed.is_needed("auto", "auto") is False
