"""The camera: pinhole rays, and how optics and sensor turn radiance into an image."""

from dataclasses import dataclass

import cv2
import numpy as np

from .looks import Look

SUBSAMPLES = 2
"""Supersampling: colour takes SUBSAMPLES x SUBSAMPLES rays a pixel, labels and depth its centre."""


@dataclass
class Camera:
    """A pinhole camera on a car."""

    position: np.ndarray
    """float32 [3] metres."""
    rotation: np.ndarray
    """float32 [3, 3]: world = rotation @ camera, camera axes (right, forward, up)."""
    focal: float
    """Focal length as a fraction of the image's width."""

    def rays(self, size: tuple[int, int], samples: int) -> tuple[np.ndarray, np.ndarray]:
        """Rays through a regular grid of ``samples`` x ``samples`` points in each pixel.

        Args:
            size: (H, W) in pixels.
            samples: points along each side of a pixel.

        Returns:
            Unit directions float32 [N, 3] and cosines of their angles to the optical axis
            float32 [N], with N = H * W * samples ** 2. The samples of a pixel are adjacent.
        """
        height, width = size
        focal = self.focal * width
        offset = (np.arange(samples) + 0.5) / samples
        columns = ((np.arange(width)[:, None] + offset - width / 2) / focal).astype(np.float32)
        rows = ((height / 2 - np.arange(height)[:, None] - offset) / focal).astype(np.float32)
        shape = (height, width, samples, samples)
        x = np.broadcast_to(columns[None, :, None, :], shape).ravel()
        z = np.broadcast_to(rows[:, None, :, None], shape).ravel()
        cosine = 1 / np.sqrt(1 + x * x + z * z)
        directions = np.empty((len(x), 3), np.float32)
        for axis, (right, forward, up) in enumerate(self.rotation):
            directions[:, axis] = (x * right + forward + z * up) * cosine
        return directions, cosine


def draw_camera(rng: np.random.Generator, look: Look, x: float) -> Camera:
    """Draws position, orientation and field of view; ``x`` is the lateral position in metres."""
    turned = rng.random() < 0.12
    yaw = rng.normal(0, np.deg2rad(18 if turned else 3.5))
    pitch = np.deg2rad(rng.uniform(*look.camera_pitch))
    roll = rng.normal(0, np.deg2rad(0.6))
    cy, sy, cp, sp, cr, sr = (f(a) for a in (yaw, pitch, roll) for f in (np.cos, np.sin))
    rotation = (
        np.array([[cy, -sy, 0], [sy, cy, 0], [0, 0, 1]])
        @ np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
        @ np.array([[cr, 0, sr], [0, 1, 0], [-sr, 0, cr]])
    )
    field = np.deg2rad(rng.uniform(*look.field_of_view))
    position = np.array([x, 0, rng.uniform(*look.camera_height)], np.float32)
    return Camera(position, rotation.astype(np.float32), 0.5 / np.tan(field / 2))


def develop(
    rng: np.random.Generator, look: Look, radiance: np.ndarray, size: tuple[int, int]
) -> np.ndarray:
    """Turns linear radiance into an 8-bit image.

    Args:
        rng: draws exposure, optics and sensor noise.
        look: the ranges to draw from.
        radiance: float32 [H * W, SUBSAMPLES ** 2, 3] linear RGB.
        size: (H, W) in pixels.

    Returns:
        uint8 [H, W, 3] RGB.
    """
    height, width = size
    scale = width / 240
    # clip before averaging, as a sensor saturates: edges against a bright sky stay smooth
    image = np.minimum(radiance, 3.0).mean(1).reshape(height, width, 3)
    stops = rng.uniform(*look.exposure) - (rng.uniform(1, 2) if rng.random() < look.dusk else 0)
    gains = np.array([rng.uniform(*channel) for channel in look.white_balance], np.float32)
    image *= gains * np.float32(2.0**stops)
    image += np.float32(0.05) * cv2.GaussianBlur(image, (0, 0), 6 * scale)
    image = cv2.GaussianBlur(image, (0, 0), rng.uniform(*look.blur) * scale)
    y = (np.arange(height, dtype=np.float32)[:, None] / height - 0.5) * 2
    x = (np.arange(width, dtype=np.float32)[None] / width - 0.5) * 2
    falloff = 1 - np.float32(rng.uniform(*look.vignette)) * (x * x + y * y) / 2
    image *= falloff[..., None]
    # tone curve: linear up to 0.7, then a shoulder that approaches 1
    image = np.where(image < 0.7, image, 0.7 + 0.3 * np.tanh((image - 0.7) * np.float32(2.4)))
    image = np.power(np.clip(image, 0, 1), np.float32(1 / 2.2))
    middle = np.float32(0.45)
    contrast = np.float32(rng.uniform(*look.contrast))
    image = middle + (image - middle) * contrast
    black = np.float32(rng.uniform(*look.black_level))
    image = black + image * (1 - black)
    luma = np.float32(0.3) * image[..., 0] + np.float32(0.59) * image[..., 1]
    luma += np.float32(0.11) * image[..., 2]
    image = luma[..., None] + (image - luma[..., None]) * np.float32(rng.uniform(*look.saturation))
    sigma = np.float32(rng.uniform(*look.noise))
    grain = rng.standard_normal((height, width, 3), np.float32)
    # demosaicing correlates the noise of the channels
    grain = 0.6 * grain + 0.8 * grain[..., :1]
    image += grain * sigma
    return (np.clip(image, 0, 1) * 255 + np.float32(0.5)).astype(np.uint8)
