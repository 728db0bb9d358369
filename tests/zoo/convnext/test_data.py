"""The drawn folder reads back as what it is; another is refused in one line."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from runtime.errors import InputError
from runtime.metrics import psnr
from zoo.convnext import data
from zoo.convnext.data import load_folder, synthetic, validation_pictures
from zoo.convnext.synthetic import CLASSES, draw, labels_of, main, wnid


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("drawn") / "tiny"
    assert main(["--out", str(path), "--classes", "5", "--per-class", "3", "--val-per-class", "2"]) == 0
    return path


def test_the_folder_is_laid_out_as_tiny_imagenet_is(folder):
    assert sorted(each.name for each in folder.iterdir()) == ["train", "val", "wnids.txt"]
    wnids = (folder / "wnids.txt").read_text().split()
    assert wnids == [wnid(label) for label in (0, 40, 80, 120, 160)]
    assert len(list((folder / "train" / wnids[0] / "images").glob("*.JPEG"))) == 3
    first = (folder / "val" / "val_annotations.txt").read_text().splitlines()[1]
    assert first == f"val_1.JPEG\t{wnids[1]}\t0\t0\t63\t63"


def test_it_reads_back(folder):
    read, drawn = load_folder(folder), synthetic(3, 2, 5)
    assert read.classes == 5 and len(read.train) == 15 and len(read.val) == 10
    assert read.train.images.shape == (15, 64, 64, 3) and read.train.images.dtype == np.uint8
    assert np.array_equal(read.val.labels, drawn.val.labels)
    assert np.array_equal(np.sort(read.train.labels), np.sort(drawn.train.labels))
    assert all(psnr(one, other) > 30 for one, other in zip(read.val.images, drawn.val.images, strict=True))
    assert np.array_equal(validation_pictures(folder, 5), read.val.images[::2])
    assert read.digest() != drawn.digest()


def test_drawing_is_seeded_and_classes_differ():
    labels = labels_of(1)
    assert len(labels) == CLASSES == 200 and sorted(labels) == list(range(200))
    one = draw(labels[:20], 0)
    assert np.array_equal(one, draw(labels[:20], 0)) and not np.array_equal(one, draw(labels[:20], 1))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda path: shutil.rmtree(path), "wnids.txt cannot be read"),
        (lambda path: (path / "wnids.txt").write_text("a\na\n"), "names 2 classes, some perhaps twice"),
        (lambda path: (path / "wnids.txt").write_text("../a\n"), "which is no name of a folder"),
        (lambda path: (path / "wnids.txt").write_bytes(b"\xff\xfe\xff"), "it is no text"),
        (lambda path: (path / "wnids.txt").write_text("n1\n"), "n1/images cannot be read"),
        (lambda path: (path / "val" / "val_annotations.txt").write_text("val_0.JPEG n1"), "line 1"),
        (lambda path: (path / "val" / "val_annotations.txt").write_text("../x\tn90000000"), "line 1"),
        (lambda path: (path / "val" / "val_annotations.txt").write_text(""), "names no pictures"),
        (lambda path: (path / "val" / "images" / "val_3.JPEG").unlink(), "val_3.JPEG does not exist"),
        (lambda path: (path / "val" / "images" / "val_3.JPEG").write_bytes(b"no picture"), "is not an image"),
        (lambda path: (path / "val" / "images" / "val_3.JPEG").write_bytes(b"\xff\xd8\xff"), "val_3.JPEG"),
    ],
)
def test_a_folder_that_is_not_is_refused_in_a_line(folder, tmp_path, spoil, said):
    path = tmp_path / "spoilt"
    shutil.copytree(folder, path)
    spoil(path)
    with pytest.raises(InputError, match=said) as caught:
        load_folder(path)
    assert "\n" not in str(caught.value)


def test_what_would_not_fit_in_memory_is_refused_before_it_is_decoded(folder, monkeypatch):
    monkeypatch.setattr(data, "_MOST_BYTES", 64 * 64 * 3 * 14)
    with pytest.raises(InputError, match="15 pictures are 0 GiB of pixels"):
        load_folder(folder)


def test_sizes_out_of_range_are_refused(folder, tmp_path, capsys):
    with pytest.raises(InputError, match="201 classes"):
        synthetic(1, 1, 201)
    assert main(["--out", str(tmp_path / "x"), "--classes", "201"]) == 2
    assert main(["--out", str(folder)]) == 2
    assert "exists; give a new folder" in capsys.readouterr().err
