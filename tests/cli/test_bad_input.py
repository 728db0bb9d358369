"""Bad input: one line, exit code 2, nothing left behind."""

from __future__ import annotations

import json
import pickle
import shutil
import struct
import zlib

import pytest

pytestmark = pytest.mark.xdist_group("shop")


def refused(shop, *arguments):
    """Run, assert the promise, return the message."""
    before = shop.files()
    done = shop.cat2dog(*arguments)
    assert done.returncode == 2, (done.stdout, done.stderr)
    assert done.stdout == ""
    assert shop.files() == before
    lines = done.stderr.splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: "), done.stderr
    return lines[0][len("error: ") :]


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def huge_png():
    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("text.jpg", b"this is no picture", "text.jpg"),
        ("huge.png", huge_png(), "50000"),
        ("empty.png", b"", "empty"),
    ],
)
def test_pictures(shop, exported, name, content, said):
    path = shop.folder / name
    path.write_bytes(content)
    assert said in refused(shop, "run", "--model", "models/tiny-128", "--input-image", name, "--output", "bad.png")


def test_a_truncated_jpeg(shop, exported):
    whole = (shop.folder / "images/img1.jpg").read_bytes()
    (shop.folder / "half.jpg").write_bytes(whole[: len(whole) // 2])
    message = refused(shop, "run", "--model", "models/tiny-128", "--input-image", "half.jpg", "--output", "bad.png")
    assert "half.jpg" in message


def test_a_missing_picture_names_the_nearest(shop):
    message = refused(shop, "run", "--model", "models/tiny-128", "--input-image", "images/imgg1.jpg")
    assert "imgg1.jpg" in message and "img1.jpg" in message


def test_a_folder_without_pictures(shop):
    (shop.folder / "void").mkdir()
    assert "void" in refused(shop, "run", "--model", "models/tiny-128", "--input-image", "void")


def test_an_output_that_cannot_be_written(shop):
    message = refused(
        shop, "run", "--model", "models/tiny-128", "--input-image", "images/img1.jpg", "--output", "/proc/dog.png"
    )
    assert "/proc" in message


def test_an_output_of_an_unknown_format(shop):
    message = refused(
        shop, "run", "--model", "models/tiny-128", "--input-image", "images/img1.jpg", "--output", "dog.xyz"
    )
    assert ".xyz" in message and ".png" in message


def test_several_pictures_and_one_output_file(shop):
    message = refused(
        shop, "run", "--model", "models/tiny-128", "--input-image", "images/img1.jpg", "images/img2.jpg",
        "--output", "one.png",
    )  # fmt: skip
    assert message == "2 pictures cannot be written to one file one.png; give a folder as --output"


def test_an_unknown_checkpoint_names_the_nearest(shop):
    message = refused(shop, "run", "--model", "models/tiny-182", "--input-image", "images/img1.jpg")
    assert "tiny-182" in message and "models/tiny-128" in message


def test_init_of_an_unknown_name(shop):
    message = refused(shop, "init", "--model", "models/500m-265")
    assert "did you mean '500m-256'?" in message


def test_heads_that_do_not_divide_the_width(shop):
    config = json.loads((shop.folder / "models/tiny-128/config.json").read_text())
    (shop.folder / "odd.json").write_text(json.dumps({**config, "heads": 7}))
    message = refused(shop, "init", "--model", "models/odd", "--config", "odd.json")
    assert "192" in message and "7" in message
    assert not (shop.folder / "models/odd").exists()


def damaged_checkpoint(shop, name, weights):
    folder = shop.folder / "models" / name
    folder.mkdir()
    shutil.copy(shop.folder / "models/tiny-128/config.json", folder)
    (folder / "model.safetensors").write_bytes(weights)
    return f"models/{name}"


def test_truncated_weights(shop):
    whole = (shop.folder / "models/tiny-128/model.safetensors").read_bytes()
    model = damaged_checkpoint(shop, "half", whole[: len(whole) // 2])
    assert "model.safetensors" in refused(shop, "export", "--model", model)


class Payload:
    """Would leave a file behind if it were ever unpickled."""

    def __reduce__(self):
        return open, ("unpickled", "w")


@pytest.mark.parametrize("command", ["export", "convert"])
def test_a_pickle_dressed_as_weights(shop, command):
    pickled = pickle.dumps(Payload())
    if command == "export":
        message = refused(shop, "export", "--model", damaged_checkpoint(shop, "pickle", pickled))
        assert "safetensors" in message
    else:
        (shop.folder / "evil.pt").write_bytes(pickled)
        message = refused(shop, "convert", "--weights", "evil.pt", "--model", "models/tiny-128", "--overwrite")
        assert "evil.pt" in message
    assert not (shop.folder / "unpickled").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("run",), "give --input-image PATH: pictures, or folders of them"),
        (("run", "--input-image", "images/img1.jpg"), "give --model FOLDER"),
        (("build", "--model", "models/tiny-128", "--batch", "8-1"), "batch 8-1-1 does not rise"),
        (("build", "--model", "models/tiny-128", "--batch", "x"), "batch 'x' is not of the form"),
        (("build", "--model", "models/tiny-128", "--targets", "abc"), "target 'abc' is no compute capability"),
        (("export", "--model", "models/tiny-128", "--opset", "9"), "opset 9 is not supported"),
        (("export", "--recipe", "nowhere.at.all:f"), "there is no module 'nowhere.at.all'"),
        (("export", "--recipe", "nonsense"), "not of the form package.module:factory"),
        (("frobnicate",), "invalid choice: 'frobnicate'"),
    ],
)
def test_wrong_usage(shop, arguments, said):
    assert said in refused(shop, *arguments)
