"""Draws pictures: coloured depth, overlays, and panels with captioned columns."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np

from ..atomic_files import write_atomically
from ..data.files import LabelledFrame
from ..data.transforms import resize_image, resize_nearest
from ..errors import InputError
from ..labels import LabelSpace

SOURCE_COLUMNS = {
    "source": "source",
    "translated": "translated",
    "label": "label",
    "source_depth": "source depth",
}
TARGET_COLUMNS = {
    "target": "target",
    "segmentation": "segmentation",
    "depth": "predicted depth",
}
TRAINING_LAYOUTS = tuple(
    [
        [caption for key, caption in SOURCE_COLUMNS.items() if translates or key != "translated"],
        [*TARGET_COLUMNS.values()],
    ]
    for translates in (True, False)
)
"""Captions of each group of columns that ``training_panel`` may draw."""
COMPARISON_COLUMNS = {
    "target": "target",
    "label": "ground truth",
    "source_only": "source only",
    "source_only_longer": "source only, longer",
    "control": "control",
    "adapted": "adapted",
    "supervised": "supervised",
}
"""Key of each column in a row of pictures, and the caption above the column."""

_GUTTER, _GROUP_GUTTER, _CAPTION = 3, 15, 24
_PAPER, _INK = 255, (40, 40, 40)
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_JPEG_QUALITY = 90


def colour_depth(depth_encoded: np.ndarray, valid: np.ndarray | None = None) -> np.ndarray:
    """Encoded depth in the colours of ``plasma``: near is bright yellow, far is dark blue.

    The square root stretches the far range, where inverse depth has hardly any contrast.

    Args:
        depth_encoded: [H, W] float from 1 (near) to 0 (far), see ``depth.encode_depth``; other
            values are clamped.
        valid: bool [H, W], or None if all pixels are valid. Invalid pixels and NaN become black.

    Returns:
        RGB uint8 [H, W, 3].
    """
    known = ~np.isnan(depth_encoded)
    if valid is not None:
        known &= valid
    unit = np.sqrt(np.clip(np.where(known, depth_encoded, 0), 0, 1))
    colours = cv2.applyColorMap(np.rint(255 * unit).astype(np.uint8), cv2.COLORMAP_PLASMA)
    return np.where(known[..., None], colours[..., ::-1], np.uint8(0))


def colour_share(share: np.ndarray) -> np.ndarray:
    """[H, W] in [0, 1] in the colours of ``inferno``: 0 is black, 1 is bright yellow.

    Returns:
        RGB uint8 [H, W, 3].
    """
    return cv2.applyColorMap(np.rint(255 * share).astype(np.uint8), cv2.COLORMAP_INFERNO)[..., ::-1]


def overlay(
    image: np.ndarray, colours: np.ndarray, alpha: float = 0.5, out: np.ndarray | None = None
) -> np.ndarray:
    """``(1 - alpha) * image + alpha * colours``, rounded.

    Args:
        image: RGB uint8 [H, W, 3].
        colours: RGB uint8 [H, W, 3], for example from ``LabelSpace.colourise``.
        alpha: weight of ``colours``, 0 to 1.
        out: array for the result, perhaps ``colours``.

    Returns:
        RGB uint8 [H, W, 3].

    Raises:
        ValueError: the shapes differ.
    """
    if image.shape != colours.shape:
        raise ValueError(f"image is {list(image.shape)}, colours are {list(colours.shape)}")
    return cv2.addWeighted(image, 1 - alpha, colours, alpha, 0, dst=out)


def training_pictures(
    frames: Sequence[LabelledFrame],
    depth: np.ndarray,
    valid: np.ndarray,
    targets: np.ndarray,
    segmentation: np.ndarray,
    target_depth: np.ndarray,
    translated: np.ndarray | None,
    space: LabelSpace,
    size: tuple[int, int],
) -> list[dict[str, np.ndarray]]:
    """Rows for ``training_panel``, one per pair.

    Args:
        frames: source frames.
        depth: their encoded depth [N, H, W].
        valid: where they have depth, bool [N, H, W].
        targets: RGB uint8 [N, H', W', 3].
        segmentation: predicted train ids of the targets [N, H', W'].
        target_depth: predicted encoded depth of the targets [N, H', W'].
        translated: translated source RGB uint8 [N, H, W, 3], or None without translation.
        space: classes of the train ids.
        size: (height, width) of all pictures; source and target may have different sizes.
    """
    rows = []
    for i, frame in enumerate(frames):
        row = {
            "source": frame.image,
            "label": space.colourise(frame.labels),
            "source_depth": colour_depth(depth[i], valid[i]),
            "target": targets[i],
            "segmentation": space.colourise(segmentation[i]),
            "depth": colour_depth(target_depth[i]),
        }
        if translated is not None:
            row["translated"] = translated[i]
        rows.append({name: resize_image(picture, size) for name, picture in row.items()})
    return rows


def training_panel(rows: Sequence[Mapping[str, np.ndarray]]) -> np.ndarray:
    """One row per pair: source with ground truth on the left, target with prediction on the right.

    Args:
        rows: for each pair, pictures by the keys of ``SOURCE_COLUMNS`` and ``TARGET_COLUMNS``.
            Columns that no row has are left out (``translated`` in the source-only phase). See
            ``grid`` for the pictures.

    Returns:
        RGB uint8 [height, width, 3].
    """
    return grid(rows, SOURCE_COLUMNS, TARGET_COLUMNS)


def comparison_pictures(
    images: Sequence[np.ndarray],
    labels: Sequence[np.ndarray] | None,
    segmentations: Mapping[str, np.ndarray],
    space: LabelSpace,
) -> list[dict[str, np.ndarray]]:
    """Rows for ``comparison_panel``, one per image.

    Args:
        images: target images, RGB uint8 [H, W, 3].
        labels: their ground truth as train ids, of any size; None if there is none.
        segmentations: predicted train ids [N, H, W] by the name of a result's column.
        space: classes of the train ids.
    """
    keys = {caption: key for key, caption in COMPARISON_COLUMNS.items()}
    rows = []
    for i, image in enumerate(images):
        row = {"target": image}
        if labels is not None:
            height, width = image.shape[:2]
            row["label"] = space.colourise(resize_nearest(labels[i], (height, width)))
        for name, segmentation in segmentations.items():
            row[keys[name]] = space.colourise(segmentation[i])
        rows.append(row)
    return rows


def comparison_panel(rows: Sequence[Mapping[str, np.ndarray]]) -> np.ndarray:
    """One row per evaluation frame: target, ground truth, and the segmentation of each result.

    Args:
        rows: for each frame, pictures by the keys of ``COMPARISON_COLUMNS``. Columns that no row
            has are left out. See ``grid`` for the pictures.

    Returns:
        RGB uint8 [height, width, 3].
    """
    return grid(rows, COMPARISON_COLUMNS)


def grid(rows: Sequence[Mapping[str, np.ndarray]], *groups: Mapping[str, str]) -> np.ndarray:
    """Captioned columns on white, in groups with a wider gutter between them.

    Args:
        rows: pictures by key, RGB uint8 [H, W, 3], all of the same size.
        groups: for each group, keys and captions (ASCII) of its columns in order.

    Returns:
        RGB uint8 [height, width, 3].

    Raises:
        ValueError: there is no row, a key is missing in some rows or in all groups, or pictures
            differ in shape or dtype.
    """
    if not rows:
        raise ValueError("a panel needs at least one row")
    keys, named = set(rows[0]), {key for group in groups for key in group}
    if any(set(row) != keys for row in rows) or not keys or not keys <= named:
        raise ValueError(
            f"rows have {[sorted(row) for row in rows]}, expected the same keys in every row, all "
            f"from {sorted(named)}"
        )
    shape = next(iter(rows[0].values())).shape
    for row in rows:
        for key, picture in row.items():
            if picture.shape != shape or picture.dtype != np.uint8 or shape[2:] != (3,):
                raise ValueError(
                    f"{key} is {picture.dtype} {list(picture.shape)}, expected uint8 [H, W, 3] "
                    f"of the same size as the first, {list(shape)}"
                )

    height, width = shape[:2]
    present = [[item for item in group.items() if item[0] in keys] for group in groups]
    captions = [item for group in present for item in group]
    lefts = _lefts(width, map(len, present))
    total_width = lefts[-1] + width + _GUTTER
    total_height = _CAPTION + len(rows) * (height + _GUTTER)

    panel = np.full((total_height, total_width, 3), _PAPER, np.uint8)
    for (key, caption), left in zip(captions, lefts, strict=True):
        _write_caption(panel[:_CAPTION, left : left + width], caption)
        for index, row in enumerate(rows):
            top = _CAPTION + index * (height + _GUTTER)
            panel[top : top + height, left : left + width] = row[key]
    return panel


def cut_grid(
    panel: np.ndarray, size: tuple[int, int], *groups: Sequence[str]
) -> list[dict[str, np.ndarray]] | None:
    """The pictures that ``grid`` drew, by the caption of their column, row by row.

    Args:
        panel: RGB uint8 [height, width, 3].
        size: (height, width) of each picture.
        groups: for each group, the captions of its columns in order.

    Returns:
        Views of the panel; None if it has another size than such a grid.
    """
    height, width = size
    lefts = _lefts(width, map(len, groups))
    count, rest = divmod(panel.shape[0] - _CAPTION, height + _GUTTER)
    if rest or count < 1 or panel.shape[1] != lefts[-1] + width + _GUTTER:
        return None
    captions = [caption for group in groups for caption in group]
    return [
        {
            caption: panel[top : top + height, left : left + width]
            for caption, left in zip(captions, lefts, strict=True)
        }
        for top in range(_CAPTION, panel.shape[0], height + _GUTTER)
    ]


def _lefts(width: int, counts: Iterable[int]) -> list[int]:
    """Left edge of each column of a grid, from the number of columns in each group."""
    lefts: list[int] = []
    left = _GUTTER
    for count in counts:
        lefts += [left + index * (width + _GUTTER) for index in range(count)]
        left += count * (width + _GUTTER) + (_GROUP_GUTTER - _GUTTER if count else 0)
    return lefts


def save_image(path: Path, image: np.ndarray) -> None:
    """Write an image as JPEG or PNG, depending on the path's suffix, completely or not at all.

    Args:
        path: file in an existing folder; an existing file is replaced.
        image: RGB uint8 [H, W, 3], or one channel [H, W] (ids uint8; as PNG also uint16).

    Raises:
        InputError: another suffix, or the path cannot be written.
        ValueError: another shape or dtype.
    """
    suffix = path.suffix.lower()
    if suffix not in {".jpg", ".jpeg", ".png"}:
        raise InputError(f"{path}: suffix is {path.suffix!r}, expected .jpg, .jpeg or .png")
    data = encode_image(image, suffix)
    write_atomically(path, lambda temporary: temporary.write_bytes(data))


def encode_image(image: np.ndarray, suffix: str = ".jpg") -> bytes:
    """The content of the file that ``save_image`` writes."""
    png = suffix == ".png"
    colour = image.ndim == 3 and image.shape[2] == 3
    dtypes = (np.uint8, np.uint16) if png and not colour else (np.uint8,)
    if image.dtype not in dtypes or not (colour or image.ndim == 2):
        raise ValueError(
            f"image is {image.dtype} {list(image.shape)}, expected uint8 [H, W, 3] or [H, W] "
            "(uint16 [H, W] as PNG)"
        )
    options = [] if png else [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]
    _, data = cv2.imencode(suffix, image[..., ::-1] if colour else image, options)
    return data.tobytes()


def _write_caption(strip: np.ndarray, caption: str) -> None:
    """Draw ``caption`` centred in a white strip [h, w, 3], in smaller letters if it is too long."""
    scale = 0.5
    (width, _), _ = cv2.getTextSize(caption, _FONT, scale, 1)
    scale *= min(1, (strip.shape[1] - 2) / width)
    (width, height), _ = cv2.getTextSize(caption, _FONT, scale, 1)
    corner = (strip.shape[1] - width) // 2, (strip.shape[0] + height) // 2
    # putText needs contiguous pixels, but the strip is a view of the panel
    drawn = np.ascontiguousarray(strip)
    cv2.putText(drawn, caption, corner, _FONT, scale, _INK, 1, cv2.LINE_AA)
    strip[:] = drawn
