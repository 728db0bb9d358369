"""`cat2dog run` through folders that resumes, `cat2dog store`, and what they say of wrong usage."""

from __future__ import annotations

import importlib.util
import json
import shutil

import pytest

from cli.main import main
from tests.fleet.pictures import png
from tests.serving.plans import write_plan


@pytest.fixture
def cats(shop, exported):
    folder = shop.folder / "fleet_cats"
    folder.mkdir(exist_ok=True)
    for number in range(12):
        (folder / f"{number}.png").write_bytes(png(number))
    return folder


def test_a_folder_resumes(shop, cats):
    words = (
        "run",
        "--model",
        "models/tiny-128",
        "--runner",
        "onnxruntime",
        "--input-image",
        cats,
        "--output",
        "f_dogs",
    )
    (cats / "5.png").write_bytes(b"no picture")
    done = shop.cat2dog(*words, "--resume", "--json")
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: 1 of 12 pictures failed twice, such as 5.png (5.png: ")
    answer = json.loads(done.stdout)
    assert (answer["done"], answer["failed"], list(answer["failures"])) == (11, 1, ["5.png"])
    dogs = shop.folder / "f_dogs"
    times = {path.name: path.stat().st_mtime_ns for path in dogs.glob("*.png")}
    assert len(times) == 11
    (cats / "5.png").write_bytes(png(5))
    (dogs / "failed.json").unlink()
    again = shop.cat2dog(*words, "--json")  # a run has begun there: the same command without --resume goes on with it
    assert again.returncode == 0, again.stderr
    assert (json.loads(again.stdout)["done"], json.loads(again.stdout)["done_before"]) == (1, 11)
    assert all((dogs / name).stat().st_mtime_ns == when for name, when in times.items())
    shutil.rmtree(dogs)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--resume", "--input-image", "a.png", "--output", "o"], "a.png is no folder"),
        (["--ray", "--input-image", "f", "--output", "f"], "written over the cats"),
        (["--resume", "--input-image", "f"], "one folder or URL as --input-image, and one as --output"),
        (["--workers", "2", "--input-image", "f", "--output", "o"], "--workers 2 was given; expected"),
        (["--resume", "--psnr", "--input-image", "f", "--output", "o"], "--psnr compares"),
        (
            ["--resume", "--runner", "pytorch", "--input-image", "f", "--output", "o"],
            "--runner pytorch is the reference",
        ),
    ],
)
def test_wrong_usage_is_one_line(tmp_path, monkeypatch, capsys, words, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / "1.png").write_bytes(png(1))
    (tmp_path / "a.png").write_bytes(png(1))
    assert main(["run", "--model", "models/tiny-128", *words]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
    assert not (tmp_path / "o").exists() or not list((tmp_path / "o").glob("*.png"))


@pytest.mark.skipif(importlib.util.find_spec("ray") is not None, reason="Ray is installed here")
def test_without_ray_it_names_the_package(shop, cats):
    words = ("run", "--model", "models/tiny-128", "--runner", "onnxruntime", "--input-image", cats)
    done = shop.cat2dog(*words, "--output", "r_dogs", "--ray")
    assert done.returncode == 2
    assert done.stderr == "error: --ray needs the package 'ray', which is not installed: pip install 'cat2dog[ray]'\n"


def test_the_store_is_listed_dropped_and_collected(tmp_path, monkeypatch, capsys):
    from engines.remote_store import RemoteStore

    monkeypatch.chdir(tmp_path)
    for capability in ("8.0", "9.0"):
        RemoteStore("shared").publish(write_plan(tmp_path / "made", capability=capability))
    assert main(["store", "list", "--store", "shared", "--json"]) == 0
    assert [row["gpu"] for row in json.loads(capsys.readouterr().out)] == ["GPU 8.0", "GPU 9.0"]
    assert main(["triton-repo", "out", "--model", "models/tiny-16", "--store", "shared", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["engines"]) == 2
    assert "cc_model_filenames" in (tmp_path / "out/models/tiny-16/config.pbtxt").read_text()
    assert main(["store", "drop", "--store", "shared"]) == 2
    assert "drop what?" in capsys.readouterr().err
    assert main(["store", "drop", "--store", "shared", "--checkpoint", "tiny-16"]) == 0
    assert main(["store", "collect", "--store", "shared", "--grace-days", "0", "--json"]) == 0
    assert capsys.readouterr().out.count("plans/") == 2
    assert main(["store", "collect", "--store", ""]) == 2
