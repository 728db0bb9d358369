"""The commands: pictures and their intermediates, a study, a comparison, an INT8 file; and their errors in one line."""

from __future__ import annotations

import json

import numpy as np
import pytest

from runtime.images import read_image, write_image
from tests.zoo.text2image import tiny
from tests.zoo.text2image.denoisers import exported
from zoo.text2image import __main__ as paint
from zoo.text2image import compare, latent_study, quantize

pytestmark = pytest.mark.xdist_group("text2image")
SMALL = ("--prompt", "a cat", "--steps", "4", "--width", "32", "--height", "24")


def pipeline():
    return ("--pipeline", str(tiny.stable_diffusion()))


def pixels(path):
    from PIL import Image

    return np.asarray(Image.open(path))


def test_a_prompt_becomes_a_picture(tmp_path, capsys):
    output = tmp_path / "out.png"
    words = [*pipeline(), *SMALL, "--output", str(output), "--intermediates", str(tmp_path / "way"), "--every", "2"]
    assert paint.main(words) == 0
    out, err = capsys.readouterr()
    assert out.startswith(f"{output}: 32 x 24, 4 steps in ") and out.endswith("prompt 'a cat'\n") and not err
    assert [path.name for path in sorted((tmp_path / "way").iterdir())] == ["step_002.png"]
    assert pixels(output).shape == pixels(tmp_path / "way" / "step_002.png").shape == (24, 32, 3)
    again = tmp_path / "again.png"
    assert paint.main([*pipeline(), *SMALL, "--output", str(again)]) == 0
    assert np.array_equal(pixels(again), pixels(output))


@pytest.mark.slow
def test_all_of_it_together(tmp_path, capsys):
    given = write_image(tmp_path / "given.png", np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8))
    output = tmp_path / "out.webp"
    words = [*pipeline(), "--steps", "6", "--width", "32", "--height", "24", "--output", str(output), "--upscale"]
    words += ["--captioner", str(tiny.captioner()), "--upscaler", str(tiny.upscaler()), "--prompt", "oil on canvas"]
    words += ["--prompt-image", str(given), "--input-image", str(given), "--strength", "0.5", "--device", "cpu"]
    assert paint.main([*words, "--latent-centre", "1", "--denoiser", str(exported("unet", "fp32"))]) == 0
    said = capsys.readouterr().out
    assert "64 x 48, 3 steps" in said and said.endswith(", oil on canvas'\n") and "prompt 'oil" not in said
    assert read_image(output, 16).shape == (16, 16, 3)


def test_the_pipeline_may_be_named_by_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("MODEL_NAME", str(tiny.stable_diffusion()))
    assert paint.main([*SMALL, "--output", str(tmp_path / "out.png")]) == 0


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--prompt", "a"], "give --pipeline FOLDER, or name one in MODEL_NAME"),
        ([*SMALL, "--pipeline", "nowhere"], "'nowhere' is no folder"),
        (["PIPELINE"], "there is no prompt; give --prompt TEXT"),
        (["PIPELINE", *SMALL, "--output", "out.txt"], "expected one of .png"),
        (["PIPELINE", *SMALL, "--every", "2"], "--every says how often --intermediates"),
        (["PIPELINE", *SMALL, "--prompt-image", "a.png"], "give --captioner FOLDER"),
        (["PIPELINE", *SMALL, "--input-image", "no.png"], "no.png does not exist"),
        (["PIPELINE", *SMALL, "--steps", "1000"], "steps 1000 was given; expected 1 to 200"),
        (["PIPELINE", *SMALL, "--latent-centre", "2"], "centre 2 was given"),
        (["PIPELINE", *SMALL, "--denoiser", "x.onnx"], "x.onnx does not exist"),
        (["PIPELINE", *SMALL, "--upscaler", "nowhere"], "nowhere is missing"),
        (["PIPELINE", *SMALL, "--prompt", "\udcff"], "the prompt is not UTF-8"),
        (
            ["PIPELINE", *SMALL, "--stepz", "3"],
            "unrecognized arguments: --stepz 3; see `python -m zoo.text2image --help`",
        ),
    ],
)
def test_what_is_wrong_is_one_line_and_code_2(words, says, capsys, monkeypatch, tmp_path):
    monkeypatch.delenv("MODEL_NAME", raising=False)
    monkeypatch.chdir(tmp_path)
    given = [part for word in words for part in (pipeline() if word == "PIPELINE" else (word,))]
    assert paint.main(given) == 2
    out, err = capsys.readouterr()
    assert err.startswith("error: ") and says in err and err.count("\n") == 1 and not out
    assert not list(tmp_path.iterdir())


def test_help_shows_an_example(capsys):
    for command in (paint, compare, latent_study, quantize):
        assert command.main(["--help"]) == 0
        shown = " ".join(capsys.readouterr().out.split())
        assert "example: python -m zoo.text2image" in shown and "--pipeline FOLDER" in shown


def test_a_study_is_a_sheet_and_a_table(tmp_path, capsys):
    output = tmp_path / "sheet.png"
    assert latent_study.main([*pipeline(), *SMALL, "--output", str(output)]) == 0
    assert pixels(output).shape == (24, 32 * len(latent_study.STUDIED), 3)
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split()[:1] == ["adjustment"] and [line.split()[0] for line in lines[2:]] == [
        name.split()[0] for name in latent_study.STUDIED
    ]
    assert lines[2].endswith("inf") and not lines[3].endswith("inf")


@pytest.mark.slow
def test_a_comparison_is_a_table_or_json(capsys):
    words = [*pipeline(), *SMALL, "--seeds", "2", "--denoiser", str(exported("unet", "fp32"))]
    assert compare.main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split()[:4] == ["PyTorch", "float32", "equal", "equal"] and lines[2].startswith("unet_fp32.onnx")
    assert compare.main([*words, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert rows[0]["psnr_db"] == [compare.EQUAL] * 2 and min(rows[1]["psnr_db"]) >= 60
    assert compare.main([*words, "--seeds", "0"]) == 2


@pytest.mark.slow
def test_an_int8_file_is_made_and_built(tmp_path, capsys):
    output = tmp_path / "int8.onnx"
    words = [*pipeline(), "--size", "32x24", "--output", str(output), "--build", str(tmp_path / "engines")]
    assert quantize.main(words) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"{output}: INT8 of {tmp_path / 'int8_fp32.onnx'}") and "gate pending" in out
    assert compare.main([*pipeline(), *SMALL, "--denoiser", str(output), "--json"]) == 0
    assert min(json.loads(capsys.readouterr().out)[1]["psnr_db"]) > 22
    assert quantize.main([*pipeline(), "--output", str(tmp_path / "x.engine")]) == 2
