"""Readers of label maps whose classes are in a class map of the user."""

from collections.abc import Mapping
from pathlib import Path

from .label_maps import Colours, LabelReader, Unknown, Value, colour_labels, id_labels


def class_map_labels(train_ids: Mapping[Value, int], unknown: Unknown = "error") -> LabelReader:
    """Reader of label maps that contain the ids, in one channel or in R, or the colours of a map.

    Args:
        train_ids: train id, or IGNORE, of each id or of each colour (R, G, B).
        unknown: what to do with other ids or colours.
    """
    by_id = {key: train_id for key, train_id in train_ids.items() if isinstance(key, int)}
    if by_id:
        return id_labels(by_id, in_red=True, unknown=unknown)
    by_colour = {key: train_id for key, train_id in train_ids.items() if isinstance(key, tuple)}
    return colour_labels(_Same(by_colour), unknown)


class _Same:
    """The same colours for every file."""

    def __init__(self, train_ids: Colours):
        self.train_ids = train_ids

    def __call__(self, path: Path) -> Colours:
        return self.train_ids
