"""The sample pictures that the README's commands use."""

from pathlib import Path

from PIL import Image

from runtime.images import find_images, read_image

IMAGES = Path(__file__).parents[2] / "images"


def test_there_are_five_small_readable_pictures_of_different_shapes():
    paths = find_images([IMAGES])
    assert [path.name for path in paths] == [f"img{number}.jpg" for number in range(1, 6)]
    assert max(path.stat().st_size for path in paths) < 200_000
    assert len({Image.open(path).size for path in paths}) == 5
    for path in paths:
        assert read_image(path, 128).std() > 25


def test_one_lies_on_its_side_and_says_so():
    picture = Image.open(IMAGES / "img5.jpg")
    assert picture.getexif()[0x0112] == 6 and picture.size == (720, 600)


def test_each_is_named_with_its_origin():
    text = (IMAGES / "README.md").read_text()
    assert all(f"`img{number}.jpg`" in text for number in range(1, 6)) and text.count("CC0") == 2
