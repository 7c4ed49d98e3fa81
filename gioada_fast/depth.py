"""Depth as the networks see it: encoded to numbers from 0 to 1, and as surface normals.

Every encoding is 1 at ``NEAR`` metres and decreases with distance. Pixels without depth (the sky,
holes in a sensor's map) are encoded as 0, like infinitely far ones, and are invalid: they do not
count in the loss.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from .labels import FAR

NEAR = 2.0
"""Metres; smaller depths are clamped to it."""

_LOG_RANGE = math.log(FAR / NEAR)

_ENCODE: dict[str, Callable[[Tensor], Tensor]] = {
    "inverse": lambda d: NEAR / d,
    "log": lambda d: 1 - torch.log(d / NEAR) / _LOG_RANGE,
    "linear": lambda d: 1 - (d - NEAR) / (FAR - NEAR),
}
_DECODE: dict[str, Callable[[Tensor], Tensor]] = {
    "inverse": lambda e: NEAR / e.clamp(NEAR / FAR, 1),
    "log": lambda e: NEAR * torch.exp((1 - e.clamp(0, 1)) * _LOG_RANGE),
    "linear": lambda e: NEAR + (1 - e.clamp(0, 1)) * (FAR - NEAR),
}
ENCODINGS = tuple(_ENCODE)


def has_depth(depth: Tensor) -> Tensor:
    """Mask of the pixels whose depth, in metres, is valid for training: bool, of the same shape."""
    return (depth > 0) & (depth <= FAR)


def encode_depth(depth: Tensor, encoding: str = "inverse") -> tuple[Tensor, Tensor]:
    """Encode depth and mark its valid pixels.

    Args:
        depth: metres, any shape, float32; 0 means no depth.
        encoding: ``inverse`` (NEAR / depth, as in DADA and GIO-Ada), ``log`` or ``linear``.

    Returns:
        (encoded, valid), both of the shape of ``depth``: encoded depth in [0, 1], 0 at invalid
        pixels, and bool.
    """
    valid = has_depth(depth)
    encoded = _ENCODE[encoding](depth.clamp(NEAR, FAR))
    return torch.where(valid, encoded, 0.0), valid


def decode_depth(encoded: Tensor, encoding: str = "inverse") -> Tensor:
    """Decode to metres between ``NEAR`` and ``FAR``: the inverse of ``encode_depth``."""
    return _DECODE[encoding](encoded)


@torch.no_grad()
def align_relative_depth(relative: Tensor, encoded: Tensor, encoding: str = "inverse") -> Tensor:
    """Metres from depth of unknown scale and shift, by the depth that a network predicts.

        1 / z = s r + t,  s and t by least squares for each image: r to the predicted 1 / z

    Source: scale and shift of MiDaS (Ranftl et al., TPAMI 2022, arXiv 1907.01341), fitted to the
    network's own prediction because nothing else is metric.

    Args:
        relative: float32 [N, 1, H, W]: r, larger is nearer; 0 means unknown.
        encoded: [N, 1, H, W] predicted depth.
        encoding: of ``encoded``.

    Returns:
        float32 [N, 1, H, W] metres between ``NEAR`` and ``FAR``, 0 where unknown: also in images
        where r does not grow with the predicted nearness.
    """
    valid = relative > 0
    inverse = 1 / decode_depth(encoded.float(), encoding)
    count = valid.sum((2, 3), keepdim=True).clamp(min=1)

    def mean(x: Tensor) -> Tensor:
        return torch.where(valid, x, 0.0).sum((2, 3), keepdim=True) / count

    mean_r, mean_inverse = mean(relative), mean(inverse)
    r = relative - mean_r
    variance, covariance = mean(r * r), mean(r * (inverse - mean_inverse))
    fits = valid & (variance > 0) & (covariance > 0)
    aligned = mean_inverse + covariance / torch.where(variance > 0, variance, 1.0) * r
    metres = (1 / aligned.clamp(min=1 / FAR)).clamp(NEAR, FAR)
    return torch.where(fits, metres, 0.0)


def surface_normals(depth: Tensor) -> Tensor:
    """Normals of the visible surfaces, from the gradient of inverse depth.

        1/z = (n_x u / f + n_y v / f + n_z) / k      on the plane n . X = k
        n   ~ -(f g_u, f g_v, 1/z - u g_u - v g_v)   g: gradient of 1/z per pixel

    u and v are a pixel's distances from the centre of the image. The focal length f is the width of
    the image, a field of view of 53 degrees. Another focal length, or a crop that moves the centre,
    tilts all normals of a plane in the same way. The normals of a mirrored map are the mirrored
    normals.

    Inverse depth is linear in u and v on a plane, so its two one-sided differences agree there. At
    the edge of a surface, the smaller one is used (van Albada et al. 1982); where their signs
    differ, as on a thin pole, the gradient is 0 and the normal points along the camera's axis.

    Args:
        depth: [N, 1, H, W] metres along the camera's axis; 0 means no depth. H and W are at least
            2.

    Returns:
        float32 [N, 3, H, W], channels-last: unit vectors towards the camera, whose axes point right
        (x), down (y) and forward (z); zero at pixels without valid depth. Has no gradient.
    """
    depth = depth.detach().float()
    valid = has_depth(depth)
    # missing depth counts as infinitely far: an edge
    inverse = torch.where(valid, 1 / depth, 0.0)
    height, width = depth.shape[2:]
    g_u, g_v = _slope(inverse, 3), _slope(inverse, 2)
    u = torch.arange(width, device=depth.device) - (width - 1) / 2
    v = torch.arange(height, device=depth.device).unsqueeze(1) - (height - 1) / 2
    normal = torch.cat([width * g_u, width * g_v, inverse - u * g_u - v * g_v], dim=1)
    # n . X = -1 before the normalisation, so every normal points towards the camera
    normal = torch.where(valid, -F.normalize(normal, dim=1), 0.0)
    return normal.contiguous(memory_format=torch.channels_last)


def _slope(x: Tensor, dim: int) -> Tensor:
    """Difference per pixel along ``dim`` (2 or 3), in the layout of ``x``.

    About the mean of the two one-sided differences if they agree, else the smaller one; 0 if their
    signs differ.
    """
    difference = F.pad(x.diff(dim=dim), (1, 1, 0, 0) if dim == 3 else (0, 0, 1, 1), "replicate")
    size = x.shape[dim]
    a, b = difference.narrow(dim, 0, size), difference.narrow(dim, 1, size)
    squares = (a * a + b * b).clamp(min=torch.finfo(x.dtype).tiny)
    return (a * b).clamp(min=0) * (a + b) / squares
