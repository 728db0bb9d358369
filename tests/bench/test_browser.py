"""The report in a real browser, as wide as a desk and as narrow as a phone."""

from __future__ import annotations

import io
import shutil

import numpy as np
import pytest
from PIL import Image

from bench.report.__main__ import main
from tests.bench import made

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed: apt-get install chromium"),
]

# Drawings whose text or shapes reach out of them, and texts smaller than this many pixels.
OUTSIDE = """() => [...document.querySelectorAll('svg')].flatMap(svg => {
  const whole = svg.getBoundingClientRect();
  return [...svg.querySelectorAll('text,rect,circle')].filter(each => {
    const box = each.getBoundingClientRect();
    return box.left < whole.left - 1 || box.right > whole.right + 1 || box.bottom > whole.bottom + 1;
  }).map(each => each.outerHTML);
})"""
SMALLEST = """() => Math.min(...[...document.querySelectorAll('svg text')].map(each =>
  parseFloat(each.getAttribute('font-size')) * each.ownerSVGElement.getBoundingClientRect().width / 480))"""


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("browser")
    results = made.write_all(folder / "results")
    assert main(["--results", str(results), "--output", str(folder)]) == 0
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        opened = browser.new_page()
        opened.said = []
        opened.on("console", lambda message: opened.said.append(message.text))
        opened.on("pageerror", lambda error: opened.said.append(str(error)))
        opened.goto((folder / "index.html").as_uri())
        yield opened
        browser.close()


@pytest.mark.parametrize(("width", "least"), [(1280, 11.0), (390, 7.0)])
def test_it_fits(page, width, least):
    page.set_viewport_size({"width": width, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= width, "the page scrolls sideways"
    assert page.evaluate(OUTSIDE) == []
    assert page.evaluate(SMALLEST) >= least
    assert page.said == []
    seen = np.asarray(Image.open(io.BytesIO(page.screenshot(full_page=True))).convert("L"))
    assert seen.shape[1] == width and seen.shape[0] > 2000 and np.unique(seen).size > 20


def test_wide_tables_scroll_by_themselves(page):
    page.set_viewport_size({"width": 390, "height": 800})
    wide = page.evaluate("[...document.querySelectorAll('.wide')].some(each => each.scrollWidth > each.clientWidth)")
    assert wide, "no table is wider than a phone: this test says nothing"
