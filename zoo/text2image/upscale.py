"""A picture to a larger one, by a super-resolution model in a folder (Swin2SR)."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import torch

from runtime.errors import InputError, ToolchainError
from zoo.text2image.folder import check_weights
from zoo.text2image.latents import grey_levels
from zoo.text2image.loading import loading, place, quiet_diffusers

# Attention over windows keeps every activation of the picture at once: some 40 kB a pixel in FP32.
MOST_PIXELS = 1 << 20


class Upscaler:
    """Loads safetensors of `folder` only. Raises InputError for what is no such model."""

    def __init__(self, folder: str | Path, device: str = "auto"):
        quiet_diffusers()
        from transformers import AutoModelForImageToImage

        self._device = place(device)
        check_weights(Path(folder))
        with loading(folder):
            model = AutoModelForImageToImage.from_pretrained(
                str(folder), local_files_only=True, trust_remote_code=False, use_safetensors=True
            )
            self._model = model.eval().to(self._device)
            self.factor, self._window = int(model.config.upscale), int(model.config.window_size)
        self._turn = threading.Lock()

    def enlarged(self, image: np.ndarray) -> np.ndarray:
        """uint8 `[H,W,3]` to `[factor·H,factor·W,3]`. Raises InputError for more than MOST_PIXELS pixels."""
        height, width = image.shape[:2]
        if height * width > MOST_PIXELS:
            raise InputError(f"{width} x {height} pixels are too many to enlarge; at most {MOST_PIXELS} are taken")
        # To whole windows, mirrored: an edge that ends in black would be seen in the picture.
        window = self._window
        whole = np.pad(image, ((0, -height % window), (0, -width % window), (0, 0)), mode="symmetric")
        pixels = torch.from_numpy(whole).permute(2, 0, 1)[None].to(self._device, self._model.dtype) / 255
        try:
            with self._turn, torch.inference_mode():
                larger = self._model(pixel_values=pixels).reconstruction
        except RuntimeError as error:
            raise ToolchainError(f"the super-resolution model failed: {' '.join(str(error).split())[:300]}") from error
        larger = larger[0, :, : height * self.factor, : width * self.factor].float().permute(1, 2, 0)
        return grey_levels(larger.clamp(0, 1).cpu().numpy())
