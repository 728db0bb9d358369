"""What a result says of the network that was measured."""

from __future__ import annotations

from typing import Any

from cat2dog.config import Config, parameter_count
from cat2dog.flops import flops


def described(checkpoint: str, config: Config, precision: str, images: int) -> dict[str, Any]:
    """The schema's subject; `images` is how many pictures PSNR is over."""
    counted = flops(config)
    return {
        "checkpoint": checkpoint,
        "resolution": config.resolution,
        "tokens": config.tokens,
        "parameters": parameter_count(config),
        "precision": precision,
        "flops": counted.total,
        "attention_flops": counted.attention,
        "images": images,
    }
