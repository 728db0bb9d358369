"""What a result says of the network that was measured, and of the engine's linear layers."""

from __future__ import annotations

from typing import Any

from cat2dog.config import Config, parameter_count
from cat2dog.flops import flops
from runtime.manifest import Manifest


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


def has_fused_layers(manifest: Manifest) -> bool:
    """Whether linear layers of the engine are kernels of ours: by force, or by measurement some of them."""
    return manifest.key.options.get("linear") == "plugin" or any(each.form == "plugin" for each in manifest.linear)
