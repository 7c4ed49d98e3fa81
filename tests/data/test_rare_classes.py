"""Rare-class sampling: drawn classes and frames, crops that show them, unreadable frames."""

from collections import Counter

import numpy as np
import pytest
import torch

from gioada_fast.config import DataConfig
from gioada_fast.data import class_counts, sets
from gioada_fast.data.files import LabelledFrame
from gioada_fast.data.loader import PairStream
from gioada_fast.data.pack_writer import pack
from gioada_fast.data.rare_classes import RareClasses, rare_classes
from gioada_fast.data.source_mix import SourceMix
from gioada_fast.data.unreadable import Unreadable
from gioada_fast.errors import InputError
from gioada_fast.labels import IGNORE

from .test_loader import batches
from .test_sets import config, write_street_scenes

SIZE = (40, 50)
# pixels of classes 0 to 3 in frames 0 to 5, of 40 x 60; the smallest that shows a class has 6
PIXELS = [
    (2000, 0, 0, 0), (1800, 30, 0, 0), (1500, 500, 0, 0),
    (1900, 3, 100, 0), (1900, 0, 0, 2), (1500, 0, 100, 4),
]  # fmt: skip


class Drawn:
    """Frames with the pixels of ``PIXELS`` from the left column on; the image has the index."""

    has_depth = True

    def __init__(self, pixels=PIXELS, bad=()):
        self.bad, self.maps = bad, []
        for counts in pixels:
            flat = np.full(2400, IGNORE, np.uint8)
            flat[: sum(counts)] = np.repeat(np.arange(4), counts)
            self.maps.append(np.ascontiguousarray(flat.reshape(60, 40).T))

    def __len__(self):
        return len(self.maps)

    def labels(self, index):
        return self.maps[index]

    def __getitem__(self, index):
        if index in self.bad:
            raise InputError(f"frame {index} is broken")
        labels = self.maps[index]
        image = np.full((*labels.shape, 3), index, np.uint8)
        return LabelledFrame(image, labels, np.zeros(labels.shape, np.float32))


def classes_of(source, temperature=0.01):
    unreadable = Unreadable(0, print)
    counts = class_counts.counts_by_frame(source, unreadable)
    frequency = class_counts.frequencies(counts, source, 4)
    return RareClasses(counts, frequency, temperature, SIZE)


def stream(source, temperature=0.01, seed=0, unreadable=0, size=(40, 60)):
    drawn = None if temperature is None else classes_of(source, temperature)
    return PairStream(source, None, seed, True, size, unreadable, rare_classes=drawn)


def test_classes_are_drawn_by_their_rarity_and_then_frames_that_show_them():
    drawn, frequency = classes_of(Drawn(), 0.02), np.sum(PIXELS, 0) / np.sum(PIXELS)
    expected = np.exp((1 - frequency) / 0.02)
    draws = [drawn.draw(0, np.random.default_rng((0, k))) for k in range(4000)]
    counts = Counter(draw.train_id for draw in draws)
    for c, share in enumerate(expected / expected.sum()):
        assert counts[c] == pytest.approx(4000 * share, abs=120)
    # class 1 needs 6 pixels; class 3, of which no frame has 6, the median of its frames
    shown = {c: {int(d.frames[0]) for d in draws if d.train_id == c} for c in (1, 2, 3)}
    assert shown == {1: {1, 2}, 2: {3, 5}, 3: {5}}
    assert all(len(set(d.frames)) == len(d.frames) for d in draws[:50])


@pytest.mark.parametrize("temperature", [1e-9, 1e9])
def test_any_temperature_gives_probabilities(temperature):
    drawn = classes_of(Drawn(), temperature)
    counts = Counter(drawn.draw(0, np.random.default_rng((0, k))).train_id for k in range(400))
    assert set(counts) == ({3} if temperature < 1 else {0, 1, 2, 3})


def test_without_it_pairs_are_those_of_epochs_and_with_it_only_source_frames_change():
    source, plain = Drawn(), stream(Drawn(), None)
    drawn = stream(source)
    assert [int(plain[k][0]["source_image"][0, 0, 0]) for k in range(6)] != list(range(6))
    assert sorted(int(plain[k][0]["source_image"][0, 0, 0]) for k in range(6)) == list(range(6))
    for k in range(40):
        pair, again = drawn[k][0], stream(Drawn())[k][0]
        assert all(np.array_equal(pair[name], again[name]) for name in pair)
        index = int(pair["source_image"][0, 0, 0])
        # the same flip as without it
        assert (pair["source_labels"] == source.maps[index]).all() == (
            plain[k][0]["source_labels"] == source.maps[plain[k][0]["source_image"][0, 0, 0]]
        ).all()


@pytest.mark.parametrize("workers", [0, 2])
def test_pairs_do_not_depend_on_batches_workers_and_processes(workers):
    whole = batches(stream(Drawn(), size=(20, 30)), 0, 4, 4, workers=0)
    halves = batches(stream(Drawn(), size=(20, 30)), 2, 6, 2, workers=workers)
    second = batches(stream(Drawn(), size=(20, 30)), 0, 4, 2, workers=0, rank=1, processes=2)
    for name in whole[0]:
        every = torch.cat([batch[name] for batch in whole])
        assert torch.equal(every[4:], torch.cat([batch[name] for batch in halves]))
        assert torch.equal(every[2:4], second[0][name])


def test_crops_are_drawn_until_they_show_the_class():
    source = Drawn([(1200, 0, 1000, 200)])  # class 3 in the last five columns
    drawn = PairStream(source, None, 0, False, (20, 30), rare_classes=classes_of(source, 1e-9))
    plain = PairStream(source, None, 0, False, (20, 30))
    with_class, without = (
        [(pairs[k][0]["source_labels"] == 3).any() for k in range(100)] for pairs in (drawn, plain)
    )
    assert sum(with_class) > 70 > 30 > sum(without)
    # a crop that shows it is kept
    assert all(with_class[k] for k in range(100) if without[k])


def test_an_unreadable_frame_is_replaced_by_one_that_shows_the_class_then_by_any():
    pixels = [(0, 0, 900, 0), (0, 900, 0, 0), (0, 900, 0, 0), (0, 0, 900, 0)]
    pairs = stream(Drawn(pixels, bad=(3,)), 1e9, unreadable=1)
    found = [pairs[k] for k in range(60)]
    assert all(pair for pair, _ in found) and any(errors for _, errors in found)
    assert all((pair["source_labels"] == 2).any() for pair, errors in found if errors)
    pairs = stream(Drawn(bad=(5,)), 1e-9, unreadable=1)  # no other frame shows class 3
    found = [pairs[k] for k in range(20)]
    assert all(pair and errors for pair, errors in found)
    assert {int(pair["source_image"][0, 0, 0]) for pair, _ in found} <= {0, 1, 2, 3, 4}


def test_each_of_several_sources_keeps_its_share_and_draws_the_classes_that_it_has():
    source = SourceMix({"a": Drawn(), "b": Drawn(PIXELS[:2])}, (1, 3))
    pairs = stream(source, 1e-9)
    for k in range(40):
        labels = pairs[k][0]["source_labels"]
        part, _ = source.turn(k)
        # the rarest of both sources that the source has
        assert (labels == (3, 1)[part]).any()


def test_a_source_without_labelled_pixels_gives_its_epochs():
    pairs = stream(Drawn([(0, 0, 0, 0)] * 3))
    assert sorted(int(pairs[k][0]["source_image"][0, 0, 0]) for k in range(3)) == [0, 1, 2]


def test_files_and_their_pack_give_the_same_draws(tmp_path, monkeypatch):
    monkeypatch.setattr(class_counts, "CACHE", str(tmp_path / "cache"))
    write_street_scenes(tmp_path)
    data: DataConfig = config(tmp_path)
    data.packs = str(tmp_path / "packs")
    pack(data, lambda _: None, workers=0)
    draws = []
    for packs in (data.packs, None):
        data.packs = packs
        source = sets.source_frames(data)
        drawn = rare_classes(source, 11, 0.01, Unreadable(0, print), data)
        draws.append([drawn.draw(0, np.random.default_rng(k)) for k in range(20)])
    for one, other in zip(*draws, strict=True):
        assert one[:2] == other[:2] and np.array_equal(one.frames, other.frames)
