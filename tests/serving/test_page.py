"""The web page in a real browser: a cat dropped by a real click, on a desk and on a phone."""

from __future__ import annotations

import io
import shutil

import numpy as np
import pytest
from PIL import Image

from tests.bench.inverter import write_inverter
from tests.serving.conftest import ROOT, started

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PYTHON = ROOT / ".venv-serving/bin/python"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed: apt-get install chromium"),
    pytest.mark.skipif(not PYTHON.exists(), reason="no serving environment: make .venv-serving/.ready"),
]
# Pixels of a picture that the page shows.
SHOWN = """async id => {
  const image = document.getElementById(id);
  await image.decode();
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
  const context = canvas.getContext("2d");
  context.drawImage(image, 0, 0);
  return [...context.getImageData(0, 0, canvas.width, canvas.height).data];
}"""


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    network = write_inverter(tmp_path_factory.mktemp("network") / "32.onnx", 32)
    with started([str(PYTHON), "-m", "serving.server", str(network), "--most-mib", "0.1"]) as server:
        server.event("ready")
        yield server.url("page")


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as running:
        opened = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


def cat(side=32):
    pixels = np.zeros((side, side, 3), np.uint8)
    pixels[:, : side // 2] = (200, 30, 10)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return pixels, file.getvalue()


@pytest.mark.parametrize("width", [1280, 390])
def test_a_cat_becomes_a_dog(url, browser, width, tmp_path):
    page = browser.new_page(viewport={"width": width, "height": 800})
    said = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(url)
    pixels, file = cat()
    with page.expect_file_chooser() as chooser:
        page.get_by_text("Drop a picture here").click()
    chooser.value.set_files({"name": "cat.png", "mimeType": "image/png", "buffer": file})
    page.get_by_text("drawn in").wait_for(timeout=20_000)
    shown = np.array(page.evaluate(SHOWN, "dog"), np.uint8).reshape(32, 32, 4)[..., :3]
    assert np.array_equal(shown, 255 - pixels)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    cats, dogs = page.locator("#cat").bounding_box(), page.locator("#dog").bounding_box()
    assert (cats["y"] == dogs["y"]) == (width > 600)  # beside each other on a desk, below each other on a phone
    with page.expect_download() as download:
        page.get_by_text("save").click()
    assert download.value.suggested_filename == "dog.png"
    page.screenshot(path=str(tmp_path / f"page_{width}.png"))
    assert not [line for line in said if "favicon" not in line], said
    page.close()


def test_what_is_wrong_is_said_and_the_next_is_drawn(url, browser):
    page = browser.new_page()
    page.goto(url)
    field = page.locator("#file")
    field.set_input_files({"name": "cat.png", "mimeType": "image/png", "buffer": b"no picture"})
    page.get_by_text("is not an image").wait_for(timeout=20_000)
    field.set_input_files({"name": "cat.png", "mimeType": "image/png", "buffer": b"\x89PNG" + b"0" * 200_000})
    page.get_by_text("at most").wait_for(timeout=20_000)
    assert page.locator("#pictures").is_hidden()
    field.set_input_files({"name": "cat.png", "mimeType": "image/png", "buffer": cat()[1]})
    page.get_by_text("drawn in").wait_for(timeout=20_000)
    page.close()
