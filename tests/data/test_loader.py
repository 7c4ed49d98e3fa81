import numpy as np
import pytest
import torch

from gioada_fast.data.datasets import LabelledFrame
from gioada_fast.data.loader import PairStream, pair_batches


class Numbered:
    """Frames whose first pixel is their index."""

    def __init__(self, length, labelled):
        self.length, self.labelled = length, labelled

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        image = np.full((4, 6, 3), index, np.uint8)
        image[:, 0] = 200
        if not self.labelled:
            return image
        return LabelledFrame(image, image[..., 0].copy(), image[..., 0].astype(np.float32))


def stream(seed=0, flip=True, target=True):
    return PairStream(Numbered(5, True), Numbered(3, False) if target else None, seed, flip)


def indices(pairs, key):
    return [int(pair[key][0, 0, 3]) for pair in pairs]


def test_every_epoch_is_a_permutation_of_its_own_set():
    pairs = [stream()[k] for k in range(15)]
    for key, length in (("source_image", 5), ("target_image", 3)):
        seen = indices(pairs, key)
        epochs = [seen[i : i + length] for i in range(0, 15, length)]
        assert all(sorted(epoch) == list(range(length)) for epoch in epochs)
        assert len({tuple(epoch) for epoch in epochs}) > 1
    assert indices(pairs, "source_image") != indices((stream(seed=1)[k] for k in range(15)),
                                                     "source_image")  # fmt: skip


def test_labels_and_depth_are_flipped_with_their_image():
    flipped = 0
    for k in range(20):
        pair = stream()[k]
        image = pair["source_image"][0]
        assert torch.equal(pair["source_labels"], image)
        assert torch.equal(pair["source_depth"][0], image.float())
        flipped += int(image[0, -1] == 200)
    assert 4 < flipped < 16
    assert all(stream(flip=False)[k]["source_image"][0, 0, 0] == 200 for k in range(20))


def test_without_a_target_there_is_none():
    assert set(stream(target=False)[0]) == {"source_image", "source_labels", "source_depth"}


@pytest.mark.parametrize("workers", [0, 2])
def test_going_on_in_the_middle_gives_the_same_pairs(workers):
    whole = list(pair_batches(stream(), 0, 6, 2, workers=0, pin_memory=False))
    rest = list(pair_batches(stream(), 4, 2, 2, workers=workers, pin_memory=False))
    assert len(whole) == 6 and len(rest) == 2
    for a, b in zip(whole[4:], rest, strict=True):
        assert all(torch.equal(a[key], b[key]) for key in a)


def test_loading_leaves_the_global_generator_alone():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    list(pair_batches(stream(), 0, 2, 2, workers=1, pin_memory=False))
    assert torch.equal(before, torch.get_rng_state())
