"""Each step in C++ against the same step in Python: decoding, drawing, cropping, hashing, softmax; and bad files."""

from __future__ import annotations

import hashlib
import io
import random

import numpy as np
import pytest
from PIL import Image

from runtime.errors import InputError
from tests.runtime.cpp.conftest import ROOT
from zoo.resnet50 import pixels
from zoo.resnet50.answer import answer_of
from zoo.resnet50.pictures import drawn, write_jpegs

pytestmark = pytest.mark.xdist_group("cpp_runner")


def sha(array: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


@pytest.fixture(scope="module")
def jpegs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("jpegs")
    return [*sorted((ROOT / "images").glob("*.jpg")), *write_jpegs(folder, 18, seed=3)]


def test_decoding_gives_the_same_bytes(runner, jpegs):
    answers = runner.ask(*(f"pixels {path}" for path in jpegs))
    for path, answer in zip(jpegs, answers, strict=True):
        picture = pixels.decode(path.read_bytes())
        assert answer == f"{picture.shape[0]} {picture.shape[1]} {sha(picture)}", path


def test_crops_are_the_same_bytes(runner, jpegs):
    cases = [(path, seed, index) for path in jpegs for seed, index in ((0, 0), (1, 5), (pixels.MOST_SEED, 10**6))]
    answers = runner.ask(*(f"crop {path} {seed} {index}" for path, seed, index in cases))
    for (path, seed, index), answer in zip(cases, answers, strict=True):
        picture = pixels.decode(path.read_bytes())
        top, left = pixels.place(picture.shape[:2], seed, index)
        assert answer == f"{top} {left} {sha(pixels.cut(picture, top, left))}", (path, seed, index)


def test_draws(runner):
    generator = random.Random(1)
    cases = [(generator.getrandbits(64), generator.getrandbits(40), generator.getrandbits(31) + 1) for _ in range(300)]
    cases += [(0, 0, 1), (pixels.MOST_SEED, 2**63, 2**32 - 1)]
    answers = runner.ask(*(f"draw {seed} {number} {below}" for seed, number, below in cases))
    assert list(map(int, answers)) == [pixels.draw(*case) for case in cases]


def test_hashes(runner):
    generator = random.Random(2)
    # Every length around the blocks of 64 bytes, where the padding changes its form.
    cases = [generator.randbytes(length) for length in (*range(0, 140), 1000)]
    expected = [hashlib.sha256(case).hexdigest() for case in cases]
    for program in ("probe", "bare_probe"):  # by OpenSSL, and without it
        assert runner.ask(*(f"sha256 {case.hex() or '-'}" for case in cases), program=program) == expected


def test_answers(runner):
    cases = [{3: 2.5, 9: 1.0}, {}, {999: 1e4, 0: -1e4}, {5: 1.0, 2: 1.0}, {1: -3.0}]
    answers = runner.ask(*(f"answer {' '.join(f'{at}:{value}' for at, value in case.items())}" for case in cases))
    labels = [f"class {i}" for i in range(1000)]
    for case, answer in zip(cases, answers, strict=True):
        logits = np.zeros((1, 1000), np.float32)
        for at, value in case.items():
            logits[0, at] = value
        expected = answer_of({"logits": logits, "statistics": np.array([[0.5, 0.25]], np.float32)})
        assert answer == " | ".join(expected.lines(7, labels))
    assert runner.ask("answer 7:nan")[0].startswith("! 1 the network answered with values that are not finite")


def fault(path) -> str:
    try:
        pixels.read_crop(path, 0, 0)
    except InputError:
        return "refused"
    return "taken"


def test_bad_files_are_refused_by_both(runner, tmp_path):
    good = write_jpegs(tmp_path / "good", 1)[0].read_bytes()
    small, cmyk = io.BytesIO(), io.BytesIO()
    Image.fromarray(drawn(1, (66, 200))).save(small, "JPEG")
    Image.fromarray(drawn(1, (100, 100))).convert("CMYK").save(cmyk, "JPEG")
    # A header that promises more pixels than are allowed; the file is some hundred bytes.
    sizes = good.index(b"\xff\xc0") + 5
    huge = good[:sizes] + b"\xff\x00\xff\x00" + good[sizes + 4 :]
    files = {
        "empty": b"",
        "text": b"not a picture",
        "png": b"\x89PNG\r\n\x1a\n" + good,
        "short": good[: len(good) // 2],
        "head": good[:200],
        "small": small.getvalue(),
        "cmyk": cmyk.getvalue(),
        "huge": huge,
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    answers = runner.ask(*(f"crop {tmp_path / name} 0 0" for name in files), f"crop {tmp_path} 0 0", "crop /absent 0 0")
    assert all(answer.startswith("! 2 ") for answer in answers), answers
    assert {name: fault(tmp_path / name) for name in files} == dict.fromkeys(files, "refused")
    said = dict(zip(files, answers, strict=False))
    assert "expected at least 67 x 67" in said["small"] and "million allowed" in said["huge"]


def test_damaged_jpegs_do_no_harm(runner, tmp_path):
    """Bits flipped anywhere: the sanitizers see nothing, and what both take is the same bytes."""
    good = write_jpegs(tmp_path / "good", 4)
    generator = random.Random(4)
    paths = []
    for number in range(120):
        data = bytearray(good[number % 4].read_bytes())
        for _ in range(generator.choice((1, 3, 20))):
            data[generator.randrange(2, len(data))] ^= 1 << generator.randrange(8)
        paths.append(tmp_path / f"{number}.jpg")
        paths[-1].write_bytes(data)
    taken = 0
    for path, answer in zip(paths, runner.ask(*(f"pixels {path}" for path in paths)), strict=True):
        try:
            picture = pixels.decode(path.read_bytes())
        except InputError:
            continue
        if not answer.startswith("!"):
            assert answer == f"{picture.shape[0]} {picture.shape[1]} {sha(picture)}", path
            taken += 1
    assert taken > 5


SOUND = ['{"a": [1, -2.5e3, "x\\u00e4\\ud83d\\ude00\\n", true, false, null], "b": {}}', " [] ", '"text"', "0"]
UNSOUND = [
    "", "{", "[1,]", '{"a": 1, "a": 2}', '{"a" 1}', "01", "1.", "-", "+1", "nul", '"\x01"', '"\\x"', '"\\ud800"',
    '"abc', "[1] 2", "[" * 1000, '{"a":' * 1000, "1e", '"\\u12', "NaN",
]  # fmt: skip


def test_json(runner):
    answers = runner.ask(*(f"json {text.encode().hex() or '-'}" for text in [*SOUND, *UNSOUND]))
    assert answers[: len(SOUND)] == ["sound"] * len(SOUND)
    assert all(answer.startswith("! 4 ") for answer in answers[len(SOUND) :]), answers


def test_many_names_are_no_work(runner):
    """A megabyte of them: compared in pairs, they would take a minute."""
    text = "{" + ",".join(f'"{number:x}":0' for number in range(90_000)) + "}"
    assert len(text) < 1 << 20
    assert runner.ask(f"json {text.encode().hex()}") == ["sound"]
    twice = text[:-1] + ',"0":0}'
    assert "gives a field twice" in runner.ask(f"json {twice.encode().hex()}")[0]


def test_broken_json_does_no_harm(runner):
    whole = SOUND[0].encode()
    generator = random.Random(5)
    lines = []
    for _ in range(400):
        data = bytearray(whole[: generator.randrange(1, len(whole) + 1)])
        data[generator.randrange(len(data))] = generator.randrange(256)
        lines.append(f"json {data.hex()}")
    runner.ask(*lines)
