"""Latents on their way: adjusted, and decoded to the picture that they are so far."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from runtime.errors import ToolchainError
from zoo.text2image.adjustment import Adjustment


def adjusted(latents: torch.Tensor, adjustment: Adjustment) -> torch.Tensor:
    """`latents` `[B,C,h,w]` or packed `[B,N,C]`, adjusted channel by channel; statistics are taken in FP32."""
    axes = (1,) if latents.ndim == 3 else tuple(range(2, latents.ndim))
    wide = latents.float()
    mean = wide.mean(axes, keepdim=True)
    around = wide - mean
    if adjustment.clamp:
        around = _soft_clamp(around, adjustment.clamp * around.std(axes, keepdim=True).clamp_min(1e-6))
    kept = mean * (1 - adjustment.centre)
    return (kept + around * adjustment.contrast).to(latents.dtype)


def _soft_clamp(values: torch.Tensor, limit: torch.Tensor) -> torch.Tensor:
    """Unchanged up to half the limit, from there bent so that the limit is never passed, with no kink."""
    half = limit / 2
    bent = half + half * torch.tanh((values.abs() - half) / half)
    return torch.where(values.abs() <= half, values, values.sign() * bent)


def decoded(pipeline: Any, latents: torch.Tensor, height: int, width: int) -> tuple[np.ndarray, list[bool]]:
    """The pictures, uint8 `[B,H,W,3]`, that `latents` decode to, noise and all, as after the last step.

    The pipeline's safety checker, where it has one, sees these as it sees the last, and blackens those that are said to
    be flagged. Raises ToolchainError where the decoder overflows.
    """
    vae = pipeline.vae
    if latents.ndim == 3:  # Flux and its kin keep patches of 2 x 2 together
        latents = pipeline._unpack_latents(latents, height, width, pipeline.vae_scale_factor)
    # SDXL's decoder overflows in FP16; its pipeline widens it for the last step, and so does this for the others.
    widened = vae.dtype == torch.float16 and vae.config.get("force_upcast", False)
    before = vae.dtype
    if widened:
        vae.to(torch.float32)
    try:
        image = vae.decode(_scaled(vae.config, latents.to(vae.dtype)), return_dict=False)[0]
    finally:
        if widened:
            vae.to(before)
    image, flags = image.detach(), None
    if getattr(pipeline, "safety_checker", None) is not None:
        image, flags = pipeline.run_safety_checker(image, pipeline.device, vae.dtype)
    denormalize = [not flag for flag in flags] if flags is not None else None
    pictures = pipeline.image_processor.postprocess(image, output_type="np", do_denormalize=denormalize)
    return grey_levels(pictures), list(map(bool, flags or [False] * len(pictures)))


def _scaled(config: Any, latents: torch.Tensor) -> torch.Tensor:
    factor, shift = config.get("scaling_factor") or 1.0, config.get("shift_factor") or 0.0
    mean, std = config.get("latents_mean"), config.get("latents_std")
    if mean is not None and std is not None:
        shape = (1, -1, 1, 1)
        spread = torch.tensor(std, dtype=latents.dtype, device=latents.device).view(shape)
        return latents * spread / factor + torch.tensor(mean, dtype=latents.dtype, device=latents.device).view(shape)
    return latents / factor + shift


def grey_levels(pictures: np.ndarray) -> np.ndarray:
    """Floats in 0..1 as uint8. Raises ToolchainError for not-a-number, which would be a black picture."""
    if not np.isfinite(pictures).all():
        raise ToolchainError("the pipeline gave not-a-number: give --dtype float32 (or bfloat16)")
    return (pictures * 255).round().clip(0, 255).astype(np.uint8)
