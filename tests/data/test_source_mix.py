"""Several sources in one run: shares, order, sizes, depth or none, packs, class weights."""

from collections import Counter

import cv2
import numpy as np
import pytest

from gioada_fast.config import DataConfig, SourceConfig, TargetConfig
from gioada_fast.data import class_counts, sets
from gioada_fast.data.class_weights import class_weights
from gioada_fast.data.loader import PairStream
from gioada_fast.data.pack_writer import pack
from gioada_fast.data.source_mix import SourceMix
from gioada_fast.data.unreadable import Unreadable
from gioada_fast.errors import InputError

from . import formats
from .test_loader import Numbered


def mix(lengths=(5, 3), shares=(3, 1), **bad):
    parts = {f"data.sources[{i}]": Numbered(n, True, **bad) for i, n in enumerate(lengths)}
    for number, part in enumerate(parts.values()):
        part.has_depth = number == 0
    return SourceMix(parts, shares)


def stream(source, seed=0, unreadable=0):
    return PairStream(source, None, seed, False, (4, 6), unreadable=unreadable)


def frame_numbers(source, pairs, **settings):
    found = stream(source, **settings)
    return [int(found[k][0]["source_labels"][0, 3]) for k in range(pairs)]


@pytest.mark.parametrize(
    ("shares", "expected"),
    [((3, 1), (750, 250)), ((1, 1, 1), (334, 333, 333)), ((0.5, 99.5), (5, 995)), ((2,), (1000,))],
)
def test_pairs_are_divided_by_shares_and_evenly_over_time(shares, expected):
    source = mix([4] * len(shares), shares)
    turns = [source.turn(k) for k in range(3000)]
    counts = Counter(part for part, _ in turns[:1000])
    assert tuple(counts[part] for part in range(len(shares))) == expected
    positions = {part: [p for other, p in turns if other == part] for part in counts}
    for number, share in enumerate(source.shares):
        assert positions[number] == list(range(len(positions[number])))
        for k in range(1, 1000, 37):
            assert abs(sum(part == number for part, _ in turns[:k]) - share * k) <= 1


def test_each_source_has_epochs_of_its_own_and_the_order_depends_on_the_seed_and_pair_alone():
    source = mix((5, 3), (1, 1))
    numbers = frame_numbers(source, 60)
    for part, length in ((0, 5), (1, 3)):
        seen = [number for k, number in enumerate(numbers) if source.turn(k)[0] == part]
        epochs = [seen[i : i + length] for i in range(0, len(seen) - length + 1, length)]
        assert all(sorted(epoch) == list(range(length)) for epoch in epochs)
    assert numbers[40:] == [
        int(stream(mix((5, 3), (1, 1)))[k][0]["source_labels"][0, 3]) for k in range(40, 60)
    ]
    assert numbers != frame_numbers(source, 60, seed=1)


def test_a_single_source_in_the_list_gives_the_pairs_of_that_source():
    assert frame_numbers(mix((5,), (2,)), 20) == frame_numbers(Numbered(5, True), 20)


def test_an_unreadable_frame_is_replaced_by_one_of_the_same_source():
    source = mix((5, 3), (1, 1), bad=(1,))
    for k in range(20):
        pair, errors = stream(source, unreadable=2)[k]
        assert pair and len(errors) <= 1
        assert int(pair["source_labels"][0, 3]) != 1


def test_frames_are_numbered_through_all_sources():
    source = mix((5, 3), (1, 1))
    assert [int(source[i].labels[0, 3]) for i in range(len(source))] == [*range(5), *range(3)]
    with pytest.raises(IndexError):
        source[8]
    assert not source.has_depth and mix((5,), (1,)).has_depth


@pytest.fixture
def two_sources(tmp_path):
    """SYNTHIA, and a folder of another size without depth; KITTI as target."""
    formats.write_synthia(tmp_path / "synthia", frames=3, size=(80, 128))
    formats.write_folder(tmp_path / "mine", ids=(0, 1), frames=2, size=(96, 192))
    formats.write_cityscapes(tmp_path / "target", size=(80, 128))
    mine = SourceConfig(
        name="folder",
        root=str(tmp_path / "mine"),
        labels="labels/*",
        classes={0: "road", 1: "sky"},
        height=96,
        width=160,
        share=3,
    )
    synthia = SourceConfig(name="synthia", root=str(tmp_path / "synthia"))
    target = TargetConfig(name="cityscapes", root=str(tmp_path / "target"))
    return DataConfig(
        sources=[synthia, mine],
        target=target,
        label_space="cityscapes16",
        height=80,
        width=128,
        packs=str(tmp_path / "packs"),
    )


def test_sources_of_other_sizes_with_and_without_depth_from_files_and_packs(two_sources):
    packs, two_sources.packs = two_sources.packs, None
    files = sets.source_frames(two_sources)
    assert list(files.parts) == ["data.sources[0]", "data.sources[1]"]
    assert [frames.has_depth for frames in files.parts.values()] == [True, False]
    assert files[0].labels.shape == (80, 128) and files[4].labels.shape == (96, 160)
    assert files[0].depth.any() and not files[4].depth.any()
    two_sources.packs = packs
    reported = []
    pack(two_sources, reported.append, workers=0)
    assert len(reported) == 3
    packed = sets.source_frames(two_sources)
    for index in range(len(files)):
        for one, other in zip(files[index], packed[index], strict=True):
            np.testing.assert_array_equal(one, other)
    two_sources.sources[1].height = 90
    with pytest.raises(InputError, match=r"source_1.*data\.source\.height = 96.*\n.*--data\.sour"):
        sets.source_frames(two_sources)


def test_class_weights_are_those_of_the_mixture_and_are_kept(two_sources, tmp_path, monkeypatch):
    monkeypatch.setattr(class_counts, "CACHE", str(tmp_path / "cache"))
    two_sources.packs = None
    source = sets.source_frames(two_sources)
    frequency = np.zeros(16)
    for share, frames in zip((0.25, 0.75), source.parts.values(), strict=True):
        labels = np.concatenate([frames.labels(i).ravel() for i in range(len(frames))])
        counts = np.bincount(labels, minlength=256)[:16]
        frequency += share * counts / counts.sum()
    expected = 1 / np.sqrt(frequency)

    def count():
        return class_weights(source, 16, Unreadable(0, print), two_sources)

    first = count()
    np.testing.assert_allclose(first, expected / expected.mean(), rtol=1e-6)
    kept = list((tmp_path / "cache/class_counts").iterdir())
    assert len(kept) == 2
    monkeypatch.setattr(class_counts, "_count_one", None)  # a second count would fail
    np.testing.assert_array_equal(count(), first)


def test_kept_counts_are_counted_again_when_a_file_or_a_setting_changes(
    two_sources, tmp_path, monkeypatch
):
    monkeypatch.setattr(class_counts, "CACHE", str(tmp_path / "cache"))
    two_sources.packs = None

    def count():
        source = sets.source_frames(two_sources)
        return class_weights(source, 16, Unreadable(0, print), two_sources)

    first = count()
    path = tmp_path / "mine/labels/000001.png"
    cv2.imwrite(str(path), np.zeros((96, 192), np.uint8))
    changed = count()
    assert (first != changed).any()
    two_sources.sources[1].classes = {0: "road", 1: None}
    assert (count() != changed).any()
    for file in (tmp_path / "cache/class_counts").iterdir():
        file.write_text("not a count")
    second = count()
    monkeypatch.setattr(class_counts, "_count_one", None)
    np.testing.assert_array_equal(count(), second)  # the broken files were replaced


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"sources": []}, r"data\.sources is empty"),
        ({"sources": [SourceConfig(), SourceConfig(height=70)], "height": 80},
         r"data\.sources\[1\]\.height is 70, must be at least data\.height, 80"),
    ],
)  # fmt: skip
def test_wrong_lists_of_sources(settings, words):
    with pytest.raises(InputError, match=words):
        DataConfig(**settings)
