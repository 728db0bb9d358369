"""The networks worth training for the demo: the named checkpoints, and a middle-sized one for precision studies."""

from __future__ import annotations

from pathlib import Path

from cat2dog.config import Config, load_config, lookup

# 11.6 M parameters, 46 MB in FP32; the same patch and resolution as 500m-256.
SMALL_256 = Config(resolution=256, patch=16, width=320, depth=9, heads=5)


def config_of(model: str) -> Config:
    """The config of `small-256`, of a named checkpoint, or of a folder with a `config.json`; else InputError."""
    if model == "small-256":
        return SMALL_256
    return load_config(model) if (Path(model) / "config.json").is_file() else lookup(model)
