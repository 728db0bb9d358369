"""`python -m bench.codecs`: which library decodes, resizes and encodes pictures fastest, and whether it is right.

Every candidate of a step and size is timed in rounds, one turn each (A B C A B C), in one thread, over the sample
pictures at that size (`decode and fit`: over a photo of twelve million pixels, which comes in and is cut and shrunk).
What it makes is checked first: decoders and resizers against Pillow's pixels, encoders against what was encoded.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.codec_candidates import Candidate, NotRun, Work, candidates
from bench.machine import machine
from bench.schema import SCHEMA, write_result
from bench.timing import timing, wall_ms
from runtime.images import find_images, read_image
from runtime.metrics import psnr

PACKAGES = (
    "pillow", "simplejpeg", "opencv-python-headless", "pyvips", "pyvips-binary", "fpng", "torchvision", "numpy",
    "nvidia-nvimgcodec-cu13", "nvidia-nvjpeg",
)  # fmt: skip
SIZES = (256, 512, 1024)
METHOD = (
    "one thread, five rounds, one turn a candidate (A B C A B C), over the sample pictures in turn; spread is the "
    "highest less the lowest median of a round; PSNR is the worst picture's"
)
_PHOTO = (4032, 3024)
_SAMPLES = Path(__file__).resolve().parent.parent / "images"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and write the result."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.codecs",
        description=(__doc__ or "").split("\n\n")[0].partition(": ")[2],
        epilog="example: python -m bench.codecs --output bench/results/codecs/codecs_cpu.json",
    )
    parser.add_argument("--output", type=Path, required=True, help="the result, JSON")
    parser.add_argument("--pixels", type=int, nargs="+", default=SIZES, help="sides of the pictures (256 512 1024)")
    parser.add_argument("--rounds", type=int, default=5, help="turns that each candidate gets (default: 5)")
    parser.add_argument("--turn-ms", type=float, default=150.0, help="length of a turn (default: 150)")
    parser.add_argument("--step", nargs="+", help="only these steps, such as 'encode png'")
    args = parser.parse_args(arguments)
    steps = dict.fromkeys(each.step for each in candidates())
    if unknown := next((step for step in args.step or () if step not in steps), None):
        parser.error(f"there is no step '{unknown}'; expected some of {', '.join(steps)}")
    rows: list[dict[str, Any]] = []
    about = machine(PACKAGES)
    for side in args.pixels:
        for step in args.step or steps:
            rows += measure(step, side, args.rounds, args.turn_ms)
            result = {"schema": SCHEMA, "kind": "codecs", "complete": False, "machine": about, "method": METHOD}
            write_result(args.output, {**result, "codecs": rows})
            for row in rows[-sum(each.step == step for each in candidates()) :]:
                took = f"{row['ms']['median']:.2f} ms" if "ms" in row else f"{row['status']}: {row.get('reason', '')}"
                print(f"{side} px, {step}, {row['library']} {row['settings']}: {took}", flush=True)
    write_result(args.output, {**result, "complete": True, "codecs": rows})
    return 0


def measure(step: str, side: int, rounds: int, turn_ms: float) -> list[dict[str, Any]]:
    """A row for every candidate of a step; those that are absent or wrong say why, and are not timed."""
    given, judge = _material(step, side)
    rows, works = [], {}
    for index, candidate in enumerate(each for each in candidates() if each.step == step):
        row: dict[str, Any] = {"step": step, "pixels": side, "library": candidate.library}
        rows.append({**row, "settings": candidate.settings, **_tried(candidate, side, given, judge)})
        if work := rows[-1].pop("work", None):
            works[index] = work
    times: dict[int, list[list[float]]] = {index: [] for index in works}
    for _ in range(rounds):
        for index, work in works.items():
            times[index].append(_turn(work, given, turn_ms))
    for index, each in times.items():
        rows[index]["ms"] = timing(each)
    return rows


def _tried(candidate: Candidate, side: int, given: Sequence[Any], judge: Callable[[int, Any], float]) -> dict[str, Any]:
    """What one run of each picture says of a candidate: its PSNR and size, with the work itself if it is sound."""
    try:
        work = candidate.make(side)
        answers = [work(each) for each in given]
    except NotRun as reason:
        return {"status": "not run", "reason": str(reason)}
    except ImportError as error:
        return {"status": "absent", "reason": " ".join(str(error).split())[:200]}
    except Exception as error:  # noqa: BLE001 (built without a codec, another interface: its reason)
        return {"status": "not run", "reason": f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"}
    worst = min(judge(index, answer) for index, answer in enumerate(answers))
    row: dict[str, Any] = {"psnr_db": None if worst == float("inf") else round(worst, 2)}
    if isinstance(answers[0], bytes):
        row["bytes"] = sum(map(len, answers)) // len(answers)
    if worst < candidate.least_db:
        said = f"{worst:.1f} dB, expected at least {candidate.least_db:g}"
        return {**row, "status": "wrong", "reason": said}
    return {**row, "status": "measured", "work": work}


def _material(step: str, side: int) -> tuple[list[Any], Callable[[int, Any], float]]:
    """What a step is given, and what judges its answer to the picture of that number: PSNR in dB."""
    from PIL import Image

    pictures = [read_image(path, side) for path in find_images([_SAMPLES])]
    if step.startswith("encode"):
        return pictures, lambda index, answer: psnr(_decoded(answer), pictures[index])
    if step == "decode jpeg":
        jpegs = [_jpeg(Image.fromarray(picture)) for picture in pictures]
        pixels = [_decoded(jpeg) for jpeg in jpegs]
        return jpegs, lambda index, answer: psnr(np.ascontiguousarray(answer), pixels[index])
    photos = [
        Image.open(path).convert("RGB").resize(_PHOTO, Image.Resampling.BICUBIC) for path in find_images([_SAMPLES])
    ]
    if step == "decode and fit":
        jpegs = [_jpeg(photo) for photo in photos[:2]]
        fitted = [
            next(each for each in candidates() if (each.step, each.library) == (step, "Pillow")).make(side)(jpeg)
            for jpeg in jpegs
        ]
        return jpegs, lambda index, answer: psnr(np.ascontiguousarray(answer), fitted[index])
    squares = [np.asarray(photo.crop((0, 0, 2 * side + 100, 2 * side + 100))) for photo in photos[:2]]
    resized = [np.asarray(Image.fromarray(square).resize((side, side), Image.Resampling.BICUBIC)) for square in squares]
    return squares, lambda index, answer: psnr(np.ascontiguousarray(answer), resized[index])


def _turn(work: Work, given: Sequence[Any], turn_ms: float) -> list[float]:
    first = wall_ms(lambda index: work(given[index]), len(given))
    more = int(turn_ms / max(sum(first), 0.01)) - 1
    return first + wall_ms(lambda index: work(given[index % len(given)]), max(0, more) * len(given))


def _jpeg(picture: Any) -> bytes:
    encoded = io.BytesIO()
    picture.save(encoded, "JPEG", quality=90)
    return encoded.getvalue()


def _decoded(data: bytes) -> np.ndarray:
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


if __name__ == "__main__":
    sys.exit(main())
