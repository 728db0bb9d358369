"""Which attention form is chosen, and what is said where one cannot be had."""

from __future__ import annotations

import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest

from engines.form import choose_form, fallback_form, kernels_identity, planner_for
from runtime.errors import InputError
from runtime.flavors import Flavor
from runtime.gpu import Gpu

OLD = Flavor("tensorrt", "8.6.0", "python", can_build=True, can_run=True)
NEW = replace(OLD, version="10.14.1")
RTX = replace(OLD, name="tensorrt_rtx", version="1.7.1")
HOPPER = Gpu(0, "NVIDIA H100", "9.0", 80 << 30, "13.0")
HALF = "or fp16 or bf16"
TURING = replace(HOPPER, name="Tesla T4", compute_capability="7.5")


@pytest.fixture
def library(monkeypatch):
    """A kernel library that covers compute capability 9.0."""
    stand_in = SimpleNamespace(
        available=lambda capability: "" if capability == "9.0" else f"no kernels for compute capability {capability}",
        identity=lambda: "f00d",
        planner=lambda capability, name: (capability, name),
    )
    monkeypatch.setitem(sys.modules, "engines.kernels.library", stand_in)


@pytest.mark.parametrize(
    ("flavor", "precision", "gpu", "form"),
    [
        (OLD, "fp16", HOPPER, "plugin"),
        (OLD, "bf16", HOPPER, "plugin"),
        (OLD, "fp32", HOPPER, "decomposed"),
        (OLD, "fp16", TURING, "decomposed"),
        (OLD, "fp16", None, "decomposed"),
        (replace(OLD, version="10.13.0"), "fp16", HOPPER, "plugin"),
        (NEW, "fp16", HOPPER, "native"),
        (replace(NEW, version="11.0.0"), "bf16", HOPPER, "native"),
        (NEW, "fp32", HOPPER, "decomposed"),
        (RTX, "fp16", HOPPER, "native"),
        (RTX, "fp32", None, "decomposed"),
    ],
)
def test_what_auto_comes_to(library, flavor, precision, gpu, form):
    assert choose_form("auto", flavor, precision, gpu) == form


@pytest.mark.parametrize("flavor", [OLD, NEW])
def test_the_plugin_form_is_taken_where_it_is_asked_for(library, flavor):
    assert choose_form("plugin", flavor, "fp16", HOPPER) == choose_form("plugin", flavor, "bf16", HOPPER) == "plugin"
    assert (fallback_form(OLD), fallback_form(NEW), fallback_form(RTX)) == ("decomposed", "native", "native")
    assert (planner_for("9.0", "NVIDIA H100"), kernels_identity()) == (("9.0", "NVIDIA H100"), ("f00d",))


@pytest.mark.parametrize(
    ("attention", "flavor", "precision", "gpu", "message"),
    [
        ("fast", OLD, "fp16", HOPPER, "attention form 'fast' is not one of plugin, native, decomposed, auto"),
        ("native", OLD, "fp16", HOPPER, "tensorrt 8.6.0 has no native attention (10.14 brought it): use decomposed"),
        *(
            (
                form,
                NEW,
                "fp32",
                HOPPER,
                f"{form} attention has no FP32 kernels: use --attention decomposed, or fp16 or bf16",
            )
            for form in ("native", "plugin")
        ),
        ("plugin", RTX, "fp16", HOPPER, "no plugin attention: tensorrt_rtx has no plugins; use native"),
        (
            *("plugin", NEW, "fp16", TURING),
            "no plugin attention: no kernels for compute capability 7.5; use native",
        ),
        (
            *("plugin", OLD, "fp16", None),
            "no plugin attention: its kernels are chosen for the GPU they run on, so it is built where that is, "
            "without --targets; use decomposed",
        ),
    ],
)
def test_forms_that_cannot_be_had(library, attention, flavor, precision, gpu, message):
    with pytest.raises(InputError) as caught:
        choose_form(attention, flavor, precision, gpu)
    assert str(caught.value) == message


def test_forms_without_kernels_load_no_library(monkeypatch):
    monkeypatch.setitem(sys.modules, "engines.kernels.library", None)
    assert choose_form("native", NEW, "fp16", HOPPER) == choose_form("auto", RTX, "fp16", HOPPER) == "native"
    assert choose_form("decomposed", OLD, "fp16", HOPPER) == choose_form("auto", OLD, "fp32", HOPPER) == "decomposed"
