"""What a camera adds: colour of the light, exposure, vignette, focus, sensor noise, JPEG. The cat's side only, but for
the colour of the light and the exposure, which the dog keeps."""

from __future__ import annotations

import cv2
import numpy as np

from training.draw_scene import Scene


def tone(scene: Scene, picture: np.ndarray, amount: float = 1.0) -> np.ndarray:
    """Exposure and colour of the light on float32 RGB `[s,s,3]`; `amount` 0 leaves the picture as it is."""
    gain = (np.array(scene.light.tint) * scene.light.exposure) ** amount
    return picture * gain.astype(np.float32)


def photograph(rng: np.random.Generator, picture: np.ndarray) -> np.ndarray:
    """Take a photo: float32 RGB `[s,s,3]` about 0..1 to uint8 `[s,s,3]`."""
    size = len(picture)
    scale = size / 128
    axis = np.linspace(-1, 1, size, dtype=np.float32)
    far = axis[:, None] ** 2 + axis[None, :] ** 2
    picture = picture * (1 - rng.uniform(0, 0.2) * far)[..., None]
    gamma = float(np.exp(rng.normal(0, 0.1)))
    picture = np.clip(picture, 0.0, 1.0) ** gamma
    choice = rng.random()
    if choice < 0.45:
        picture = cv2.GaussianBlur(picture, (0, 0), rng.uniform(0.3, 1.0) * scale)
    elif choice < 0.55:
        length = max(2, round(rng.uniform(1.5, 4) * scale))
        angle = rng.uniform(0, 3.14)
        kernel = np.zeros((2 * length + 1, 2 * length + 1), dtype=np.float32)
        end = np.array([np.cos(angle), np.sin(angle)]) * length / 2
        tip, tail = np.round(length + end).astype(int), np.round(length - end).astype(int)
        cv2.line(kernel, tip.tolist(), tail.tolist(), 1.0)
        picture = cv2.filter2D(picture, -1, kernel / kernel.sum())
    elif choice < 0.8:  # sharpening, as phones do
        picture = picture * 1.6 - cv2.GaussianBlur(picture, (0, 0), 0.9 * scale) * 0.6
    noise = abs(rng.normal(0, 0.016))
    grain = rng.standard_normal((size, size, 1), dtype=np.float32) * noise
    chroma = cv2.resize(rng.standard_normal((size // 2, size // 2, 3), dtype=np.float32), (size, size)) * (noise * 0.8)
    picture = picture + grain + chroma
    photo = (np.clip(picture, 0, 1) * 255 + 0.5).astype(np.uint8)
    if rng.random() < 0.6:
        quality = int(rng.integers(55, 96))
        _, data = cv2.imencode(".jpg", photo, (cv2.IMWRITE_JPEG_QUALITY, quality))
        photo = cv2.imdecode(data, cv2.IMREAD_COLOR)
    return photo
