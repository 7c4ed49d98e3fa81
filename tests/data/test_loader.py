import numpy as np
import pytest
import torch

from gioada_fast.data.files import LabelledFrame
from gioada_fast.data.loader import PairStream, pair_batches
from gioada_fast.data.unreadable import Unreadable
from gioada_fast.errors import InputError


class Numbered:
    """Frames filled with their index, except for a column; other channels are row and column."""

    has_depth = False

    def __init__(self, length, labelled, bad=()):
        self.length, self.labelled, self.bad = length, labelled, bad

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        if index in self.bad:
            raise InputError(f"frame {index} is broken")
        image = np.stack([np.full((4, 6), index), *np.indices((4, 6))], -1).astype(np.uint8)
        image[:, 0, 0] = 200
        if not self.labelled:
            return image
        return LabelledFrame(image, image[..., 0].copy(), image[..., 0].astype(np.float32))


def stream(seed=0, flip=True, target=True, size=(4, 6), **bad):
    source, images = Numbered(5, True, **bad), Numbered(3, False) if target else None
    return PairStream(source, images, seed, flip, size, unreadable=2)


def pair(k, **settings):
    found, errors = stream(**settings)[k]
    assert not errors
    return found


def batches(stream, *args, limit=0, report=print, **settings):
    unreadable = Unreadable(limit, report)
    return list(pair_batches(stream, *args, pin_memory=False, unreadable=unreadable, **settings))


def indices(pairs, key):
    return [int(pair[key][0, 3, 0]) for pair in pairs]


def test_every_epoch_is_a_permutation_of_its_own_set():
    pairs = [pair(k) for k in range(15)]
    for key, length in (("source_image", 5), ("target_image", 3)):
        seen = indices(pairs, key)
        epochs = [seen[i : i + length] for i in range(0, 15, length)]
        assert all(sorted(epoch) == list(range(length)) for epoch in epochs)
        assert len({tuple(epoch) for epoch in epochs}) > 1
    other = [pair(k, seed=1) for k in range(15)]
    assert indices(pairs, "source_image") != indices(other, "source_image")


def test_labels_and_depth_are_flipped_with_their_image():
    flipped = 0
    for k in range(20):
        found = pair(k)
        image = found["source_image"][..., 0]
        np.testing.assert_array_equal(found["source_labels"], image)
        np.testing.assert_array_equal(found["source_depth"][0], image)
        flipped += int(image[0, -1] == 200)
    assert 4 < flipped < 16
    assert all(pair(k, flip=False)["source_image"][0, 0, 0] == 200 for k in range(20))


def test_crops_are_everywhere_and_the_same_for_labels_and_depth():
    corners = set()
    for k in range(80):
        found = pair(k, size=(2, 3), flip=False)
        image = found["source_image"]
        assert image.shape == (2, 3, 3) and found["target_image"].shape == (2, 3, 3)
        np.testing.assert_array_equal(found["source_labels"], image[..., 0])
        np.testing.assert_array_equal(found["source_depth"][0], image[..., 0])
        corners.add((int(image[0, 0, 1]), int(image[0, 0, 2])))
    assert corners == {(row, column) for row in range(3) for column in range(4)}


def test_pairs_without_a_target():
    assert set(pair(0, target=False)) == {"source_image", "source_labels", "source_depth"}


def test_batches_are_channels_last():
    (batch,) = batches(stream(), 0, 1, 2, workers=0)
    shapes = {name: tuple(tensor.shape) for name, tensor in batch.items()}
    assert shapes == {
        "source_image": (2, 3, 4, 6), "target_image": (2, 3, 4, 6), "source_labels": (2, 4, 6),
        "source_depth": (2, 1, 4, 6),
    }  # fmt: skip
    for name in ("source_image", "target_image"):
        assert batch[name].is_contiguous(memory_format=torch.channels_last)
    assert batch["source_labels"].dtype == torch.uint8
    assert batch["source_depth"].dtype == torch.float32


@pytest.mark.parametrize("workers", [0, 1])
def test_an_unreadable_frame_is_reported_once_and_replaced(workers):
    reported = []
    found = batches(stream(bad=(2,)), 0, 10, 2, workers=workers, limit=1, report=reported.append)
    assert (
        len(reported) == 1
        and "frame 2 is broken" in reported[0]
        and "1 of at most 1" in reported[0]
    )
    seen = indices([{"i": image} for b in found for image in b["source_image"].permute(0, 2, 3, 1)],
                   "i")  # fmt: skip
    assert len(seen) == 20 and 2 not in seen and set(seen) == {0, 1, 3, 4}
    again = batches(stream(bad=(2,)), 4, 6, 2, workers=0, limit=1, report=reported.append)
    for a, b in zip(found[4:], again, strict=True):
        assert all(torch.equal(a[key], b[key]) for key in a)


def test_more_unreadable_frames_than_the_limit_end_the_run():
    with pytest.raises(InputError, match=r"is broken\n2 files cannot be read.*max_unreadable is 1"):
        batches(stream(bad=(1, 2)), 0, 10, 2, workers=0, limit=1)
    with pytest.raises(InputError, match="no readable frame is left"):
        batches(stream(bad=range(5)), 0, 10, 2, workers=0, limit=5)


@pytest.mark.parametrize("workers", [0, 2])
def test_starting_in_the_middle_gives_the_same_pairs(workers):
    whole = batches(stream(), 0, 6, 2, workers=0)
    rest = batches(stream(), 4, 2, 2, workers=workers)
    assert len(whole) == 6 and len(rest) == 2
    for a, b in zip(whole[4:], rest, strict=True):
        assert all(torch.equal(a[key], b[key]) for key in a)


def test_loading_leaves_the_global_generator_alone():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    batches(stream(), 0, 2, 2, workers=1)
    assert torch.equal(before, torch.get_rng_state())
