"""A sheet of pictures: what went in, the reference's answer, a peer's answer, and their difference."""

from __future__ import annotations

import io
from typing import Any

import numpy as np

from bench.tables import latency

GAIN = 32
_ROWS, _TILE = 3, 160


def pictured(content: dict[str, Any]) -> str:
    """The peer that the sheet of a result shows: the fastest engine, or the fastest of all where no engine ran."""
    timed = [
        (row["ms"]["median"], peer["name"])
        for peer in content["peers"]
        if "psnr_db" in peer and (row := latency(peer, "network", 1))
    ]
    engines = [entry for entry in timed if entry[1].startswith("tensorrt")]
    return min(engines or timed)[1] if timed else ""


def sheet(given: np.ndarray, expected: np.ndarray, answers: np.ndarray) -> bytes:
    """JPEG bytes of the first pictures of uint8 `[N,R,R,3]` batches, a row each; differences times GAIN."""
    from PIL import Image

    rows = []
    for image, wanted, got in zip(given[:_ROWS], expected, answers, strict=False):
        difference = np.abs(wanted.astype(np.int32) - got) * GAIN
        tiles = [image, wanted, got, np.minimum(difference, 255).astype(np.uint8)]
        small = [Image.fromarray(tile).resize((_TILE, _TILE), Image.Resampling.BOX) for tile in tiles]
        rows.append(np.concatenate([np.asarray(tile) for tile in small], axis=1))
    encoded = io.BytesIO()
    Image.fromarray(np.concatenate(rows)).save(encoded, "JPEG", quality=90, subsampling=0)
    return encoded.getvalue()
