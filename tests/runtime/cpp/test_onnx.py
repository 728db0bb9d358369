"""The runner with an exported ONNX file: the same lines as Python's, and every fault of a file by its exit code."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys

import onnxruntime
import pytest

from export.export import export
from runtime.signing import VARIABLE
from tests.runtime.cpp import stand_in
from tests.runtime.cpp.conftest import ROOT
from zoo.resnet50 import __main__ as command
from zoo.resnet50.pictures import write_jpegs

pytestmark = pytest.mark.xdist_group("cpp_runner")


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    return export(stand_in.small(), tmp_path_factory.mktemp("onnx") / "small_fp32.onnx", "fp32").path


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    write_jpegs(folder, 14)
    (folder / ".hidden.jpg").write_bytes(b"")
    (folder / "notes.txt").write_text("no picture")
    shutil.copy(folder / "drawn_000.jpg", folder / "UPPER.JPEG")
    return folder


def copied(exported, folder):
    for name in (exported.name, f"{exported.name}.data", "small_fp32.json"):
        shutil.copy(exported.with_name(name), folder / name)
    return folder / exported.name


def python(capsys, *arguments):
    code = command.main([*map(str, arguments)])
    said = capsys.readouterr()
    return code, said.out, said.err


def test_the_same_lines_as_python(runner, exported, pictures, tmp_path, capsys):
    labels = tmp_path / "labels.txt"
    labels.write_text("".join(f"Katze {i} ä\n" for i in range(1000)))
    given = ["--network", exported, "--images", pictures, ROOT / "images", "--labels", labels, "--seed", 2**64 - 1]
    done = runner.run(*given, "--library", runner.library())
    assert done.returncode == 0, done.stderr
    assert (0, done.stdout, "") == python(capsys, *given)
    lines = done.stdout.splitlines()
    assert len(lines) == 2 * 20
    assert lines[0].startswith("mean: ") and lines[0].endswith(" of image #1")
    assert lines[-1].startswith("image #20 is ") and " and " in lines[-1] and "% a Katze " in lines[-1]


def test_json_says_the_same(runner, exported, pictures, capsys):
    given = ["--network", exported, "--images", pictures, "--json", "--rounds", 2]
    done = runner.run(*given, "--library", runner.library(), "--threads", 1)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert rows.pop(0)["runner"].startswith("ONNX Runtime 1.")
    code, out, _ = python(capsys, *given)
    expected = [json.loads(line) for line in out.splitlines()]
    assert expected.pop(0)["runner"] == f"ONNX Runtime {onnxruntime.__version__}, CPU"
    assert code == done.returncode == 0 and len(rows) == len(expected) == 30
    for row, other in zip(rows, expected, strict=True):
        assert (row["classes"], row["crop_sha256"]) == (other["classes"], other["crop_sha256"])
        assert row["percent"] == pytest.approx(other["percent"], rel=1e-4)
        assert set(row["ms"]) == set(other["ms"]) and min(row["ms"].values()) >= 0


def test_one_bad_picture_keeps_the_others(runner, exported, pictures, tmp_path, capsys):
    (tmp_path / "bad.jpg").write_bytes(b"\xff\xd8\xff")
    given = [
        "--network",
        exported,
        "--images",
        pictures / "drawn_000.jpg",
        tmp_path / "bad.jpg",
        pictures / "drawn_001.jpg",
    ]
    done = runner.run(*given, "--library", runner.library())
    code, out, error = python(capsys, *given)
    assert (done.returncode, done.stdout) == (code, out) and code == 2
    for said in (done.stderr, error):
        assert said.startswith("skipped: ") and "bad.jpg is damaged" in said
        assert said.splitlines()[-1] == "error: 1 of 3 pictures could not be read"


def test_an_altered_file_is_refused(runner, exported, pictures, tmp_path, capsys):
    for name in (f"{exported.name}.data", exported.name):
        path = copied(exported, tmp_path)
        file = path.with_name(name)
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 1
        file.write_bytes(data)
        done = runner.run("--network", path, "--images", pictures, "--library", runner.library())
        assert done.returncode == 4 and f"{name} is not what was exported" in done.stderr
        assert python(capsys, "--network", path, "--images", pictures)[0] == 4


def test_a_signature_is_asked_of_engines_alone(runner, exported, pictures, tmp_path, capsys, monkeypatch):
    """Python and C++ run an ONNX file whatever the variable says; an option that cannot be held is refused."""
    monkeypatch.setenv(VARIABLE, str(tmp_path / "absent"))
    given = ["--network", exported, "--images", pictures / "drawn_000.jpg"]
    done = runner.run(*given, "--library", runner.library())
    assert (0, done.stdout, "") == python(capsys, *given) and done.returncode == 0, done.stderr
    done = runner.run(*given, "--library", runner.library(), "--signed-by", tmp_path)
    assert done.returncode == 2 and "is an ONNX file, which cannot be signed" in done.stderr


def _edited(manifest, change):
    fields = json.loads(manifest.read_text())
    change(fields)
    manifest.write_text(json.dumps(fields))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda fields: fields["files"].pop("small_fp32.onnx"), "it is of another graph"),
        (lambda fields: fields["files"].update({"../x": {}}), "it names a file in another folder"),
        (lambda fields: fields["files"]["small_fp32.onnx"].update(sha256="x"), "a hash is not 64 hex digits"),
        (lambda fields: fields["files"]["small_fp32.onnx"].update(size=-1), "is not what was exported"),
        (lambda fields: fields.update(files=[]), "it names no files"),
        (lambda fields: fields["files"].update({"absent.data": {}}), "absent.data is missing"),
        (lambda fields: fields.pop("files"), "it lacks 'files'"),
    ],
)
def test_a_damaged_manifest_is_refused(runner, exported, pictures, tmp_path, change, words):
    path = copied(exported, tmp_path)
    _edited(path.with_suffix(".json"), change)
    done = runner.run("--network", path, "--images", pictures, "--library", runner.library())
    assert (done.returncode, done.stderr.count("\n")) == (4, 1) and words in done.stderr, done.stderr


def test_usage(runner, exported, pictures, tmp_path):
    network = ["--network", exported]
    images = ["--images", pictures]
    (tmp_path / "few.txt").write_text("one\n")
    (tmp_path / "empty").mkdir()
    cases = [
        ([], "give --network FILE and --images PATH"),
        (["--frob"], "unknown option --frob"),
        ([*network, "--images"], "--images lacks its value"),
        ([*network, *images, "--seed", "-1"], "--seed -1 was given; expected 0 to 18446744073709551615"),
        ([*network, *images, "--seed", "18446744073709551616"], "--seed 18446744073709551616 was given"),
        ([*network, *images, "--rounds", "2"], "--rounds is for --json"),
        ([*network, *images, "--rounds", "10001", "--json"], "expected 1 to 10000"),
        ([*network, "--images", "/absent"], "/absent does not exist"),
        ([*network, "--images", tmp_path / "empty"], "holds no JPEG"),
        ([*network, *images, "--labels", tmp_path / "few.txt"], "has 1 lines; expected 1000"),
        ([*network, *images, "--library", "/absent.so"], "ONNX Runtime cannot be loaded"),
        ([*network, *images, "--library", "libm.so.6"], "libm.so.6 has no OrtGetApiBase"),
        ([*network, *images, "--plugins", "x.so", "--library", "libm.so.6"], "--plugins are for engines"),
        (["--network", tmp_path / "x.plan", *images], "is neither an engine nor an ONNX file"),
        (["--network", tmp_path / "x.onnx", *images], "does not exist or is no file"),
    ]
    for arguments, words in cases:
        done = runner.run(*arguments)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1) and words in done.stderr, (arguments, done.stderr)
        assert done.stderr.startswith("error: ") and not done.stdout
    shown = runner.run("--help")
    assert shown.returncode == 0 and "example: " in shown.stdout


def test_a_network_of_another_family_is_refused(runner, exported, pictures, tmp_path, capsys):
    path = copied(exported, tmp_path)
    graph = path.read_bytes()
    # The same length, so that all of the file's own lengths still hold.
    assert graph.count(b"statistics") >= 1
    path.write_bytes(graph.replace(b"statistics", b"tatistical"))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    _edited(path.with_suffix(".json"), lambda fields: fields["files"][path.name].update(sha256=digest))
    done = runner.run("--network", path, "--images", pictures, "--library", runner.library())
    assert done.returncode == 2 and "is no network of this family: it has a tensor 'tatistical'" in done.stderr
    code, _, error = python(capsys, "--network", path, "--images", pictures)
    assert code == 2 and "is no network of this family" in error


def test_the_programs_need_no_python(runner):
    """What the loader is asked for when it starts: no Python, no framework, no CUDA."""
    said = subprocess.run(["readelf", "-d", runner.folder / "cat2dog-resnet50"], capture_output=True, text=True)
    needed = [line.split("[")[1].rstrip("]") for line in said.stdout.splitlines() if "(NEEDED)" in line]
    own = (
        "libjpeg.",
        "libcrypto.",
        "libstdc++.",
        "libc.",
        "libm.",
        "libgcc_s.",
        "libasan.",
        "libubsan.",
        "ld-linux",
        "libdl.",
    )
    assert needed and all(name.startswith(own) for name in needed), needed


def test_the_abi_table_against_a_header(tmp_path):
    """Only where someone has the header: no package of Python's or Debian's has."""
    home = os.environ.get("ONNXRUNTIME_HOME")
    if not home:
        pytest.skip("needs onnxruntime_c_api.h in $ONNXRUNTIME_HOME/include, which no package brings")
    source = ROOT / "runtime/cpp/src/onnxruntime_abi_check.cpp"
    command = ["c++", "-std=c++17", f"-I{home}/include", f"-I{source.parent}", "-c", source, "-o", tmp_path / "check.o"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_interrupting_it(runner, exported, pictures):
    command = [runner.folder / "cat2dog-resnet50", "--network", exported, "--images", pictures, "--json"]
    command += ["--rounds", "10000", "--library", runner.library()]
    with subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None and "ONNX Runtime" in child.stdout.readline()
        child.send_signal(2)
        child.communicate(timeout=60)
    assert child.returncode == 130, sys.platform
