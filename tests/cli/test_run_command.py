"""`cat2dog run`: pictures of every kind in, dogs out, PSNR beside them."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.xdist_group("shop")


def run(shop, *arguments):
    return shop.cat2dog("run", "--model", "models/tiny-128", *arguments)


def test_a_picture_and_its_psnr(shop, exported):
    done = run(shop, "--input-image", "images/img1.jpg", "--json")
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(done.stdout)["images"]
    assert row["psnr_db"] >= 45
    assert Image.open(shop.folder / "out.png").size == (128, 128)
    assert done.stderr == ""  # progress is for terminals only


def test_the_table_shows_what_json_shows(shop, exported):
    done = run(shop, "--input-image", "images/img1.jpg", "--output", "table.png")
    assert done.returncode == 0, done.stderr
    assert "PSNR dB" in done.stdout and "table.png" in done.stdout and "ONNX Runtime CPU fp16" in done.stdout


def test_run_py_is_the_same_command(shop, exported):
    import subprocess
    import sys

    from tests.cli.conftest import ROOT

    words = ["--model", "models/tiny-128", "--input-image", "images/img1.jpg", "--no-psnr", "--output", "seed.png"]
    done = subprocess.run(
        [sys.executable, str(ROOT / "run.py"), *words], cwd=shop.folder, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr
    assert (shop.folder / "seed.png").is_file()


def test_a_folder_with_every_kind_of_picture(shop, exported):
    folder = shop.folder / "kinds"
    folder.mkdir()
    generator = np.random.default_rng(0)
    colours = generator.integers(0, 256, (90, 140, 3), dtype=np.uint8)
    rgb = Image.fromarray(colours)
    rgb.save(folder / "rgb.png")
    rgb.convert("RGBA").save(folder / "rgba.png")
    rgb.convert("L").save(folder / "grey.png")
    rgb.convert("P").save(folder / "palette.gif")
    rgb.convert("CMYK").save(folder / "cmyk.jpg")
    rgb.convert("1").save(folder / "one_bit.png")
    Image.fromarray(generator.integers(0, 1 << 16, (70, 60), dtype=np.uint16)).save(folder / "deep.png")
    turned = Image.Exif()
    turned[0x0112] = 6
    rgb.save(folder / "turned.jpg", exif=turned)
    Image.fromarray(colours[:1, :1]).save(folder / "one_pixel.png")
    done = run(shop, "--input-image", "kinds", "--output", "kinds_dogs", "--json", "--no-psnr")
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)["images"]
    assert len(rows) == 9
    assert {path.name for path in (shop.folder / "kinds_dogs").iterdir()} == {f"{p.stem}.png" for p in folder.iterdir()}
    assert all(Image.open(shop.folder / row["output"]).size == (128, 128) for row in rows)


def test_pytorch_answers_its_own_reference(shop):
    done = run(shop, "--input-image", "images/img2.jpg", "--runner", "pytorch", "--output", "p.png", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["images"][0]["psnr_db"] == "inf"


def test_one_bad_picture_among_good_ones_is_named_and_the_others_are_done(shop, exported):
    folder = shop.folder / "mixed"
    folder.mkdir()
    Image.new("RGB", (50, 50), "red").save(folder / "a.png")
    (folder / "b.jpg").write_bytes(b"not a picture at all")
    done = run(shop, "--input-image", "mixed", "--output", "mixed_dogs")
    assert done.returncode == 2
    assert "skipped: " in done.stderr and "b.jpg" in done.stderr
    assert done.stderr.splitlines()[-1] == "error: 1 of 2 pictures failed"
    assert [path.name for path in (shop.folder / "mixed_dogs").iterdir()] == ["a.png"]


def test_tensorrt_without_a_gpu_says_so(shop):
    done = run(shop, "--input-image", "images/img1.jpg", "--runner", "tensorrt", "--flavor", "tensorrt")
    assert done.returncode == 2
    assert done.stderr.startswith("error: tensorrt cannot build here: ")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--provider", "cuda"), "error: ONNX Runtime "),
        (
            ("--runner", "tensorrt", "--provider", "cuda"),
            "but --runner tensorrt was given",
        ),
        (
            ("--engine", "x.engine", "--provider", "cpu"),
            "error: --provider is for ONNX Runtime, but --engine",
        ),
    ],
)
def test_a_provider_that_cannot_be_had(shop, exported, words, said):
    done = run(shop, "--input-image", "images/img1.jpg", "--output", "provider.png", *words)
    assert done.returncode == 2
    assert said in done.stderr and not (shop.folder / "provider.png").exists()


def many(shop, name, count):
    """A folder of so many small pictures, no two alike."""
    folder = shop.folder / name
    folder.mkdir()
    for index in range(count):
        Image.new("RGB", (40, 30), (index % 256, index // 256, 90)).save(folder / f"{index:04}.png", compress_level=0)
    return folder


def test_many_pictures_are_done_in_order_with_a_summary(shop, exported):
    folder = many(shop, "many", 30)
    (folder / "0007.png").write_bytes(b"")
    (folder / "0021.png").write_bytes(b"no picture")
    done = run(shop, "--input-image", "many", "--output", "many_dogs")
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "skipped: many/0007.png is empty (0 bytes); give an image file",
        "skipped: many/0021.png is not an image; expected PNG, JPEG, WebP, GIF, BMP, TIFF or PPM",
        "error: 2 of 30 pictures failed",
    ]
    lines = done.stdout.splitlines()
    assert lines[-2] == "and 8 more"
    assert lines[-1].startswith("28 pictures in ") and " a second; on average decode " in lines[-1]
    assert len(list((shop.folder / "many_dogs").iterdir())) == 28
    shown = [line for line in lines if "many/00" in line]
    assert shown == sorted(shown) and len(shown) == 20


def test_a_picture_that_cannot_be_written_does_not_stop_the_others(shop, exported):
    many(shop, "targets", 3)
    (shop.folder / "targets_dogs/0001.png").mkdir(parents=True)
    done = run(shop, "--input-image", "targets", "--output", "targets_dogs", "--json", "--no-psnr")
    assert done.returncode == 2
    answer = json.loads(done.stdout)
    assert [row["input"] for row in answer["images"]] == ["targets/0000.png", "targets/0002.png"]
    assert answer["failed"] == [
        "output targets_dogs/0001.png is a folder; give a file name in it, such as targets_dogs/0001.png/out.png"
    ]
    assert answer["seconds"] > 0


def test_psnr_of_many_pictures_where_it_is_asked_for(shop, exported):
    many(shop, "judged", 7)
    done = run(shop, "--input-image", "judged", "--output", "judged_dogs", "--json", "--psnr")
    assert done.returncode == 0, done.stderr
    scores = [row["psnr_db"] for row in json.loads(done.stdout)["images"]]
    assert len(scores) == 7 and min(scores) > 40


def test_an_interrupted_run_leaves_only_whole_pictures(shop, exported):
    import signal
    import subprocess
    import time

    many(shop, "long", 600)
    command = shop.command(
        "run", "--model", "models/tiny-128", "--input-image", "long", "--output", "long_dogs", "--no-psnr"
    )
    child = subprocess.Popen(
        command, cwd=shop.folder, env=shop.environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    folder = shop.folder / "long_dogs"
    end = time.monotonic() + 60
    while not folder.is_dir() or len(list(folder.iterdir())) < 5:
        assert child.poll() is None and time.monotonic() < end
        time.sleep(0.01)
    child.send_signal(signal.SIGINT)
    output, said = child.communicate(timeout=60)
    assert child.returncode == 130
    assert (output, said) == ("", "interrupted; nothing unfinished was filed\n")
    written = list(folder.iterdir())
    assert 5 <= len(written) < 600
    for path in written:
        assert path.name[0] != "."
        with Image.open(path) as picture:
            picture.load()
            assert picture.size == (128, 128)
