"""Where the plugin library is looked for, which engines need it, and how it is taken into a process."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace

import pytest

from runtime import plugins, tensorrt_runner
from runtime.errors import InputError
from runtime.manifest import AttentionChoice, Build, Gate, Manifest
from runtime.plugins import find_plugin, load_plugin, needs_plugin
from tests.runtime.stand_ins import KEY

NAME = "libcat2dog_plugin_trt8.so"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """A folder without build/, and no variable."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CAT2DOG_PLUGIN", raising=False)
    monkeypatch.setattr(plugins, "__file__", str(tmp_path / "package" / "runtime" / "plugins.py"))


def manifest(attention: str = "native", *forms: str) -> Manifest:
    choices = tuple(AttentionChoice(f"node{i}", form) for i, form in enumerate(forms))
    gate = Gate("passed", "psnr", 30.0, "PyTorch fp32", (50.0,))
    build = Build(1.0, 1, "2026-11-23", "cat2dog build")
    return Manifest("x.engine", "a" * 64, 1, replace(KEY, attention=attention), gate, build, attention=choices)


@pytest.mark.parametrize("root", ["package", "."])
def test_found_beside_the_package_or_here(tmp_path, root):
    library = tmp_path / root / "build" / "plugin" / NAME
    library.parent.mkdir(parents=True)
    library.touch()
    assert find_plugin("8.6.1").resolve() == library.resolve()
    with pytest.raises(
        InputError, match=r"needs build/plugin/libcat2dog_plugin_trt11\.so, .*: `make plugin` builds it"
    ):
        find_plugin("11.1.0")


def test_the_variable_comes_first(tmp_path, monkeypatch):
    monkeypatch.setenv("CAT2DOG_PLUGIN", "mine.so")
    with pytest.raises(InputError, match=r"CAT2DOG_PLUGIN=mine\.so: no such file; .*`make plugin`"):
        find_plugin("8.6.1")
    (tmp_path / "mine.so").touch()
    assert find_plugin("8.6.1") == tmp_path / "mine.so"


def test_which_engines_need_it():
    assert needs_plugin(manifest("plugin", "plugin"))
    assert needs_plugin(manifest("auto", "decomposed", "plugin"))
    assert not needs_plugin(manifest("auto", "decomposed"))
    assert not needs_plugin(manifest("plugin", "decomposed"))  # no kernel fitted
    assert not needs_plugin(manifest("plugin"))  # a network without attention


def test_the_runner_finds_it_where_none_is_given(tmp_path):
    needed = tensorrt_runner._needed_plugins
    assert needed(manifest("native"), ["a.so"]) == ["a.so"]
    assert needed(manifest("plugin", "plugin"), ["x/libcat2dog_plugin_trt1.so"]) == ["x/libcat2dog_plugin_trt1.so"]
    with pytest.raises(InputError, match="make plugin"):
        needed(manifest("plugin", "plugin"), ["a.so"])
    library = tmp_path / "build" / "plugin" / "libcat2dog_plugin_trt1.so"
    library.parent.mkdir(parents=True)
    library.touch()
    assert needed(manifest("plugin", "plugin"), ["a.so"]) == ["a.so", library]


def test_a_library_that_does_not_register_is_refused(tmp_path):
    if shutil.which("gcc") is None:
        pytest.skip("no gcc")
    for name, code in (("good", 0), ("bad", 1)):
        (tmp_path / f"{name}.c").write_text(f"int cat2dog_register(void) {{ return {code}; }}")
        subprocess.run(["gcc", "-shared", "-fPIC", f"{name}.c", "-o", f"{name}.so"], cwd=tmp_path, check=True)
    load_plugin(tmp_path / "good.so")
    with pytest.raises(InputError, match=r"bad\.so is not for the TensorRT in this process; .*`make plugin`"):
        load_plugin(tmp_path / "bad.so")
