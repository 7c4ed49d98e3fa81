"""Images of another shape are cropped, not squeezed."""

import numpy as np
import pytest

from gioada_fast.data.transforms import covering_size, crop_to_shape, fit, kept_share, resize_image

TARGET = (96, 320)


@pytest.mark.parametrize(
    ("shape", "covering", "cropped"),
    [
        ((96, 320), TARGET, (96, 320)),
        ((192, 640), TARGET, (192, 640)),
        ((250, 828), TARGET, (250, 828)),  # KITTI's frames at hand: half a row too high
        ((360, 480), (240, 320), (144, 480)),
        ((480, 360), (427, 320), (108, 360)),
        ((100, 1000), (96, 960), (100, 333)),
        ((10, 10), (320, 320), (3, 10)),
        ((1, 1), (320, 320), (1, 1)),
    ],
)
def test_sizes(shape, covering, cropped):
    assert covering_size(shape, TARGET) == covering
    image = np.zeros((*shape, 3), np.uint8)
    assert fit(image, TARGET).shape[:2] == covering
    assert crop_to_shape(image, TARGET).shape[:2] == cropped
    assert kept_share(shape, TARGET) == cropped[0] * cropped[1] / (shape[0] * shape[1])


def test_the_crop_is_in_the_middle_and_a_circle_stays_a_circle():
    rows, columns = np.indices((360, 480))
    disc = ((rows - 180) ** 2 + (columns - 240) ** 2 < 60**2).astype(np.uint8) * 255
    image = resize_image(crop_to_shape(np.dstack([disc] * 3), TARGET), TARGET)[..., 0] > 127
    height, width = image.any(1).sum(), image.any(0).sum()
    assert abs(int(height) - int(width)) <= 1
    assert abs(np.flatnonzero(image.any(0)).mean() - 159.5) <= 1
    assert abs(np.flatnonzero(image.any(1)).mean() - 47.5) <= 1
