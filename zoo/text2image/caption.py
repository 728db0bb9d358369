"""A picture to a prompt, by an image-to-text model in a folder (BLIP, GIT, a vision encoder-decoder, …)."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from runtime.errors import InputError, ToolchainError
from zoo.text2image.folder import check_weights
from zoo.text2image.loading import loading, place, quiet_diffusers

MOST_TOKENS = 64


class Captioner:
    """Loads safetensors of `folder` only. Raises InputError for what is no such model."""

    def __init__(self, folder: str | Path, device: str = "auto"):
        quiet_diffusers()
        from transformers import AutoModelForImageTextToText, AutoProcessor

        self._device = place(device)
        check_weights(Path(folder))
        with loading(folder):
            options = {"local_files_only": True, "trust_remote_code": False}
            self._processor = AutoProcessor.from_pretrained(str(folder), **options)
            model = AutoModelForImageTextToText.from_pretrained(str(folder), use_safetensors=True, **options)
            self._model = model.eval().to(self._device)
        self._turn = threading.Lock()

    def caption(self, image: np.ndarray) -> str:
        """What uint8 `[H,W,3]` shows, in words; the same picture gives the same words.

        Raises InputError where the model says nothing, ToolchainError where it fails.
        """
        try:
            with self._turn, torch.inference_mode():
                feed = self._processor(images=Image.fromarray(image), return_tensors="pt").to(self._device)
                tokens = self._model.generate(**feed, max_new_tokens=MOST_TOKENS, do_sample=False)
            words = self._processor.batch_decode(tokens, skip_special_tokens=True)[0].strip()
        except (RuntimeError, ValueError, TypeError, KeyError, IndexError) as error:
            raise ToolchainError(f"the image-to-text model failed: {' '.join(str(error).split())[:300]}") from error
        if not words:
            raise InputError("the image-to-text model finds no words for this picture; give a prompt")
        return str(words)
