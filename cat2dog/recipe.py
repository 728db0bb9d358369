"""cat2dog as a recipe: what export and engines need to know of a checkpoint. Only `module` imports torch."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cat2dog.config import load_config
from cat2dog.fingerprint import fingerprint
from cat2dog.flops import flops
from cat2dog.folder import WEIGHTS, find
from cat2dog.reference import Progress, reference
from cat2dog.safetensors_file import read_entries
from runtime.images import find_images, read_image
from runtime.runner import TensorSpec

if TYPE_CHECKING:
    import torch

SAMPLES = Path(__file__).resolve().parent.parent / "images"
GATE_DB = 30.0


class Cat2DogRecipe:
    """One checkpoint folder. `cache` is where reference outputs and file hashes are kept.

    Raises InputError for a folder that is no sound checkpoint: its config and the header of its weights are checked.
    """

    # The network works in -1..1; export folds the way there and back into the graph.
    pixels = ((127.5,) * 3, (127.5,) * 3)
    judge = ("psnr", GATE_DB)

    def __init__(self, folder: str | os.PathLike[str], cache: str | os.PathLike[str], progress: Progress | None = None):
        self.folder, self.cache, self.progress = find(folder), Path(cache), progress
        self.config = load_config(self.folder)
        read_entries(self.folder / WEIGHTS)
        self.name = self.folder.resolve().name
        side = self.config.resolution
        self.inputs = (TensorSpec("image", "uint8", (-1, side, side, 3)),)
        self.outputs = (TensorSpec("dog", "uint8", (-1, side, side, 3)),)

    def module(self) -> torch.nn.Module:
        """The float network, weights mapped from the checkpoint."""
        from cat2dog.checkpoint import load

        return load(self.folder)

    def validation(self, limit: int | None = None) -> dict[str, np.ndarray]:
        """The sample images at the checkpoint's resolution, or the first `limit` of them."""
        paths = find_images([SAMPLES])[:limit]
        return {"image": np.stack([read_image(path, self.config.resolution) for path in paths])}

    def reference(self, feed: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """FP32 eager PyTorch with plain attention, cached by content."""
        return {"dog": reference(self.folder, feed["image"], self.cache, self.progress)}

    def flops(self) -> int:
        """Of one picture."""
        return flops(self.config).total

    def identity(self) -> dict[str, str]:
        """Config and weights by content, and the code that makes the network of them."""
        from runtime.files import sha256_file, sha256_text

        code = sha256_text("".join(sha256_file(Path(__file__).parent / name) for name in ("config.py", "model.py")))
        return {"recipe": self.name, **fingerprint(self.folder, self.cache / "hashes.json"), "model_code_sha256": code}
