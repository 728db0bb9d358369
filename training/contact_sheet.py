"""A sheet of pairs to look at: `python -m training.contact_sheet --seeds 0:24 --out sheet.png`."""

from __future__ import annotations

import argparse
import sys

import numpy as np

from runtime.errors import InputError, ToolchainError
from runtime.images import check_output, write_image
from training.draw import pair

_MOST = 400


def seeds_of(text: str, most: int = _MOST) -> range:
    """`"0:24"` is seeds 0 to 23; `"7"` is seed 7. Raises InputError for anything else."""
    first, _, last = text.partition(":")
    if not first.isdecimal() or (last and not last.isdecimal()):
        raise InputError(f"seeds '{text}' cannot be read: expected FIRST:END such as 0:24")
    seeds = range(int(first), int(last) if last else int(first) + 1)
    if not 0 < len(seeds) <= most:
        raise InputError(f"seeds '{text}' are {len(seeds)} pictures: expected 1 to {most}, such as 0:24")
    return seeds


def grid(rows: list[list[np.ndarray]], gap: int = 4) -> np.ndarray:
    """Equal pictures uint8 `[s,s,3]` side by side with white gaps; a short last row is filled up with white."""
    tall, wide = rows[0][0].shape[:2]
    columns = max(len(row) for row in rows)
    sheet = np.full((len(rows) * (tall + gap) + gap, columns * (wide + gap) + gap, 3), 255, dtype=np.uint8)
    for i, row in enumerate(rows):
        for j, picture in enumerate(row):
            top, left = gap + i * (tall + gap), gap + j * (wide + gap)
            sheet[top : top + tall, left : left + wide] = picture
    return sheet


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m training.contact_sheet", description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", default="0:24", help="FIRST:END, default 0:24")
    parser.add_argument("--size", type=int, default=128, help="pixels of one picture, default 128")
    parser.add_argument("--columns", type=int, default=4, help="pairs in a row, default 4")
    parser.add_argument("--out", required=True, help="the picture to write, such as sheet.png")
    options = parser.parse_args(arguments)
    try:
        check_output(options.out)
        pictures = [picture for seed in seeds_of(options.seeds) for picture in pair(seed, options.size)]
        step = 2 * max(1, options.columns)
        write_image(options.out, grid([pictures[i : i + step] for i in range(0, len(pictures), step)]))
    except ToolchainError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(f"{options.out}: {len(pictures) // 2} pairs")
    return 0


if __name__ == "__main__":
    sys.exit(main())
