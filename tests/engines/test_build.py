"""Real engines, built ahead of time by TensorRT-RTX: what is filed, what is found again, what is refused."""

from __future__ import annotations

import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from engines import build as room
from engines.batch import BatchProfile
from engines.build import AHEAD_OF_TIME_TARGETS, BuildRequest, build, choose_flavor, engine_key
from engines.form import choose_form
from engines.store import engine_path, list_engines
from engines.validation import Validation
from runtime.errors import AccuracyError, InputError, ToolchainError
from runtime.files import sha256_file
from runtime.flavors import Flavor
from runtime.manifest import manifest_path, read_manifest
from tests.export.micro import micro_answers, micro_export


def request_of(tmp_path, validation, precision="fp16", attention="native", **changes):
    request = BuildRequest(
        onnx=micro_export(precision).path,
        checkpoint="micro-64",
        precision=precision,
        validation=validation,
        attention=attention,
        flavor="tensorrt_rtx",
        targets=("8.6",),
        root=tmp_path / "engines",
        command="cat2dog build --model models/micro-64",
    )
    return replace(request, **changes)


def filed(root: Path) -> list[str]:
    """Everything under the root but lock files."""
    return sorted(path.name for path in root.rglob("*") if path.is_file() and not path.name.endswith(".lock"))


@pytest.fixture(scope="module")
def _built(tmp_path_factory):
    """One engine that tests may look at, made on first use."""
    made = {}

    def get(validation):
        if "built" not in made:
            made["request"] = request_of(tmp_path_factory.mktemp("built"), validation)
            made["built"] = build(made["request"])
        return made["request"], made["built"]

    return get


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
@pytest.mark.parametrize("attention", ["native", "decomposed"])
def test_an_engine_and_its_manifest(rtx, precision, attention, validation, tmp_path):
    phases = []
    batch = BatchProfile.parse("1-2-4")
    request = request_of(tmp_path, validation, precision, attention, batch=batch, targets=())
    built = build(request, lambda phase, fraction: phases.append(phase))
    assert built.fresh and {"lowering the graph", "parsing", "building"} <= set(phases)

    folder = f"aot-sm80-86-89-120_tensorrt_rtx{'.'.join(rtx.version.split('.')[:3])}"
    assert built.path.parent == tmp_path / "engines" / folder
    key = built.manifest.key
    assert built.path.name == f"micro-64_{precision}_{attention}_b1-4_{key.key8}.engine"
    assert filed(tmp_path / "engines") == sorted([built.path.name, built.path.with_suffix(".json").name])
    assert list_engines(tmp_path / "engines") == [built.path]

    manifest = read_manifest(built.path)
    assert manifest == built.manifest
    assert manifest.sha256 == sha256_file(built.path) and manifest.size == built.path.stat().st_size > 10_000
    assert key.onnx_sha256 == sha256_file(request.onnx) and key.precision == precision and key.attention == attention
    assert key.weights_sha256 == sha256_file(request.onnx.with_name(f"{request.onnx.name}.data"))
    assert key.batch == (1, 2, 4) and key.targets == AHEAD_OF_TIME_TARGETS and key.gpu is None
    assert (key.flavor, key.flavor_version) == ("tensorrt_rtx", rtx.version)
    tensors = [(t.name, t.mode, t.dtype, t.shape) for t in manifest.tensors]
    assert tensors == [("image", "input", "uint8", (-1, 64, 64, 3)), ("dog", "output", "uint8", (-1, 64, 64, 3))]
    assert [(choice.node, choice.form, choice.why) for choice in manifest.attention] == [
        (f"network.blocks.{index}.attention/Attention", attention, "as asked") for index in range(2)
    ]
    assert manifest.gate.state == "pending" and manifest.gate.scores == () and manifest.gate.note
    assert len(manifest.gate.proxy_scores) == 2 and min(manifest.gate.proxy_scores) > 45
    assert manifest.build.seconds > 0 and manifest.build.peak_memory_bytes > 1 << 20
    assert manifest.build.command == request.command and manifest.build.versions["tensorrt_rtx"] == rtx.version


def test_a_second_build_builds_nothing(rtx, validation, _built, monkeypatch):
    request, first = _built(validation)
    monkeypatch.setattr(room, "run_child", lambda *arguments: pytest.fail("it was built again"))
    again = build(request)
    assert not again.fresh and again.manifest == first.manifest and again.path == first.path


def test_an_altered_plan_is_built_again(rtx, validation, tmp_path):
    request = request_of(tmp_path, validation)
    first = build(request)
    plan = bytearray(first.path.read_bytes())
    plan[len(plan) // 2] ^= 1
    first.path.write_bytes(plan)
    again = build(request)
    assert again.fresh and again.manifest.sha256 == sha256_file(again.path)
    manifest_path(again.path).write_text("{}")
    assert build(request).fresh


def test_force_builds_again(rtx, validation, tmp_path):
    request = request_of(tmp_path, validation, force=True)
    assert build(request).fresh and build(request).fresh


@pytest.mark.parametrize(
    "changes",
    [
        {"checkpoint": "other"},
        {"precision": "bf16"},
        {"attention": "decomposed"},
        {"batch": BatchProfile(1, 1, 2)},
        {"batch": BatchProfile(2, 2, 2)},
        {"targets": ("8.6", "8.9")},
        {"workspace_mib": 512},
        {"optimization_level": 1},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_each_ingredient_is_in_the_key(rtx, validation, tmp_path, changes):
    request = request_of(tmp_path, validation)
    plain, other = (engine_path(request.root, engine_key(r, rtx)) for r in (request, replace(request, **changes)))
    assert plain != other and plain.name[-16:] != other.name[-16:]


def test_graph_weights_flavor_and_building_code_are_in_the_key(rtx, validation, tmp_path, monkeypatch):
    request = request_of(tmp_path, validation)
    keys = {engine_key(request, rtx).key8, engine_key(request, replace(rtx, version="1.8.0")).key8}
    onnx = tmp_path / "m.onnx"
    for graph, weights in ((b"a", b"a"), (b"b", b"a"), (b"a", b"b")):
        onnx.write_bytes(graph)
        onnx.with_name("m.onnx.data").write_bytes(weights)
        keys.add(engine_key(replace(request, onnx=onnx), rtx).key8)
    monkeypatch.setattr(room, "_deciding_code", lambda: "changed")
    keys.add(engine_key(request, rtx).key8)
    assert len(keys) == 6


def test_what_is_not_in_the_plan_is_not_in_the_key(rtx, validation, tmp_path):
    request = request_of(tmp_path, validation)
    other = replace(request, command="x", verbose=True, force=True, root=tmp_path / "elsewhere" / "engines")
    assert engine_key(request, rtx).key8 == engine_key(other, rtx).key8


def test_a_wrong_reference_is_refused_with_the_way_to_look_further(rtx, validation, tmp_path):
    _, expected = micro_answers()
    wrong = Validation(validation.feed, {"dog": 255 - expected["dog"][:2]}, "psnr", 30.0, "the negative")
    request = request_of(tmp_path, wrong)
    message = (
        r"^engine .*micro-64_fp16_native_b1-1_[0-9a-f]{8}\.engine was refused by the accuracy gate with [0-9.]+ dB; "
        r"expected at least 30 dB: find the diverging layer with "
        r"`cat2dog accuracy --model models/micro-64 --precision fp16`$"
    )
    for _ in range(2):  # building it again would not help, and is not tried
        with pytest.raises(AccuracyError, match=message):
            build(request)
    (engine,) = list_engines(request.root)
    assert read_manifest(engine).gate.state == "failed"


def test_only_temporary_files_of_dead_processes_are_removed(rtx, validation, tmp_path):
    request = request_of(tmp_path, validation)
    folder = engine_path(request.root, engine_key(request, rtx)).parent
    folder.mkdir(parents=True)
    gone = subprocess.Popen(["true"])
    gone.wait()
    dead, living = folder / f".tmp-{gone.pid}-a.engine", folder / f".tmp-{os.getpid()}-b.engine"
    dead.touch()
    living.touch()
    build(request)
    assert living.exists() and not dead.exists()


def test_two_builds_at_once_build_once(rtx, validation, tmp_path):
    request, phases = request_of(tmp_path, validation), []
    with ThreadPoolExecutor(2) as pool:
        built = list(pool.map(lambda _: build(request, lambda phase, fraction: phases.append(phase)), range(2)))
    assert sorted(each.fresh for each in built) == [False, True]
    assert built[0].manifest == built[1].manifest
    assert phases.count("waiting for another build of this engine") == 1 and phases.count("lowering the graph") == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"targets": ("9.0",)}, r"^TensorRT 1\.\S+ does not build for compute capability 9\.0; it knows .*8\.6.*$"),
        ({"attention": "fast"}, r"^attention form 'fast' is not one of plugin, native, decomposed, auto$"),
        ({"flavor": "tensorrt_xl"}, r"^there is no flavor 'tensorrt_xl'; expected one of tensorrt, tensorrt_rtx$"),
        (
            {"onnx": Path("absent.onnx")},
            r"^cannot read absent\.onnx: No such file or directory; expected a readable file$",
        ),
    ],
    ids=lambda value: str(next(iter(value))) if isinstance(value, dict) else "",
)
def test_what_cannot_be_built_is_one_line(rtx, validation, tmp_path, changes, message):
    request = request_of(tmp_path, validation, **changes)
    with pytest.raises(InputError, match=message):
        build(request)
    assert filed(tmp_path / "engines") == []


def test_a_file_that_is_not_onnx_is_one_line(rtx, validation, tmp_path):
    onnx = tmp_path / "m.onnx"
    onnx.write_bytes(b"\x08\x08 not a graph")
    with pytest.raises(InputError, match=r"^.*m\.onnx is not an ONNX file \("):
        build(request_of(tmp_path, validation, onnx=onnx))
    assert filed(tmp_path / "engines") == []


def test_an_engine_of_a_fixed_batch_export_has_that_batch(rtx, validation, tmp_path):
    from export.export import export
    from tests.export.micro import micro_recipe

    onnx = export(micro_recipe(), tmp_path / "m.onnx", "fp16", batch=2).path
    with pytest.raises(
        InputError, match=r"m\.onnx has a fixed batch of 2; batch 1-4 needs an export with a dynamic one$"
    ):
        build(request_of(tmp_path, validation, onnx=onnx, batch=BatchProfile(1, 4, 4)))
    built = build(request_of(tmp_path, validation, onnx=onnx, batch=BatchProfile(2, 2, 2)))
    assert {tensor.shape for tensor in built.manifest.tensors} == {(2, 64, 64, 3)}


TENSORRT = Flavor("tensorrt", "10.13.0", "python", can_build=True, can_run=True)


def test_forms_and_flavors(monkeypatch, validation, tmp_path):
    assert choose_form("auto", TENSORRT) == "decomposed"
    assert choose_form("auto", replace(TENSORRT, version="10.14.1")) == "native"
    assert choose_form("auto", replace(TENSORRT, version="11.0.0")) == "native"
    assert choose_form("native", replace(TENSORRT, name="tensorrt_rtx", version="1.7.1")) == "native"
    with pytest.raises(
        InputError, match=r"^tensorrt 8\.6\.0 has no native attention \(10\.14 brought it\): use decomposed$"
    ):
        choose_form("native", replace(TENSORRT, version="8.6.0"))
    with pytest.raises(InputError, match=r"^tensorrt builds only for the GPU it runs on; leave out --targets$"):
        engine_key(request_of(tmp_path, validation, attention="auto"), TENSORRT)

    absent = replace(TENSORRT, can_build=False, reason="it is not installed")
    monkeypatch.setattr(room, "find_flavor", lambda name: absent)
    monkeypatch.setattr(room, "find_flavors", lambda: [absent, TENSORRT])
    assert choose_flavor("auto") is TENSORRT
    with pytest.raises(InputError, match=r"^tensorrt cannot build here: it is not installed$"):
        choose_flavor("tensorrt")
    monkeypatch.setattr(room, "find_flavors", lambda: [absent, replace(absent, name="tensorrt_rtx")])
    with pytest.raises(
        InputError,
        match=r"^no TensorRT here can build: tensorrt: it is not installed; tensorrt_rtx: it is not installed$",
    ):
        choose_flavor("auto")


def test_an_error_of_the_disk_is_one_line(rtx, validation, tmp_path):
    (tmp_path / "engines").write_text("a file where a folder should be")
    with pytest.raises(ToolchainError, match=r"^cannot (lock|write) "):
        build(request_of(tmp_path, validation))
