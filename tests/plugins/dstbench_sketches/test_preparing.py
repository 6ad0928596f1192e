"""What all datasets share: splits, cache, what is left out, pictures."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from dstbench_sketches import preparing
from dstbench_sketches.preparing import (
    PARALLEL_FROM,
    Drawing,
    SketchSettings,
    Splits,
    SplitSettings,
    Typical,
    content_key,
    prepare,
    split,
)
from hypothesis import given
from hypothesis import strategies as st

from dstbench.cache import Cache
from dstbench.contracts import Items
from dstbench.errors import DataError


def as_it_is(strokes):
    return strokes


def drawings(count: int, start: int = 0) -> list[Drawing]:
    """Lines from the origin, each in a direction of its own."""
    numbers = range(start, start + count)
    return [Drawing(f"line {n}", [[(0, 0), (np.cos(n), np.sin(n))]]) for n in numbers]


def data(told, splits: Splits, key: str = "key", **settings):
    return prepare(
        "lines", {"key": key}, lambda: splits, as_it_is, SketchSettings(**settings), told.workspace
    )


def test_items_are_sequences_in_order(told) -> None:
    loaded = data(told, Splits(drawings(3), drawings(2, start=3)), spacing=0.5, scale=1)
    assert (len(loaded.train), len(loaded.validation)) == (3, 2)
    for n, item in enumerate([*loaded.train, *loaded.validation]):
        assert item.dtype == torch.float32
        x, y = np.cos(n), np.sin(n)
        expected = torch.tensor([[0, 0, 0], [x / 2, y / 2, 0], [x, y, 1]])
        torch.testing.assert_close(item, expected.float())


@pytest.mark.parametrize(
    ("spacing", "points"),
    [
        (0.5, 11),  # 8 parts, half a part and one point more for each of two strokes
        (0.05, 83),
        (0.01, 300),  # the most that the settings allow
        (9.0, 3),
    ],
)
def test_points_of_typical_drawings(spacing: float, points: int) -> None:
    items = Typical(2, 4.0, "say").outline(SketchSettings(spacing=spacing))
    assert items == Items((points, 3), f"sketches of {points} points, say")


def test_points_of_typical_drawings_as_published() -> None:
    settings = SketchSettings(spacing=0.5, resampling="published")
    assert Typical(2, 4.0, "say").outline(settings).shape == (7, 3)


def test_pictures_have_one_channel_and_the_size_that_is_set(told) -> None:
    loaded = data(told, Splits(drawings(3), drawings(2)), image_size=16)
    pictures = loaded.to_images(loaded.train)
    assert (pictures.shape, pictures.dtype) == ((3, 1, 16, 16), torch.uint8)
    assert (pictures.amax(dim=(1, 2, 3)) > 100).all()
    assert loaded.to_images([torch.full((4, 3), torch.nan)]).max() == 0


def test_what_cannot_be_read_is_left_out_and_counted(told) -> None:
    empty, dot = Drawing("the first", []), Drawing("the second", [[(1, 1)]])
    loaded = data(told, Splits([empty, *drawings(3)], [*drawings(2), dot]))
    assert (len(loaded.train), len(loaded.validation)) == (3, 2)
    assert told.messages == [
        "lines: left out 2 of 7 drawings; the first: the first: the drawing is empty"
    ]


def test_nothing_left_of_a_split_is_an_error(told) -> None:
    with pytest.raises(DataError, match="no drawing is left for validation, of 1"):
        data(told, Splits(drawings(3), [Drawing("nothing", [])]))


def test_prepared_once_for_the_same_content(told, monkeypatch) -> None:
    first = data(told, Splits(drawings(3), drawings(2)))

    def again():
        raise AssertionError("the drawings are read again")

    second = prepare("lines", {"key": "key"}, again, as_it_is, SketchSettings(), told.workspace)
    assert first.fingerprint == second.fingerprint
    for before, after in zip(first.train, second.train, strict=True):
        torch.testing.assert_close(before, after, rtol=0, atol=0)


def test_preparing_goes_on_where_it_was_stopped(told, monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(preparing, "PART", 2)
    dot = Drawing("a dot", [[(1, 1)]])
    splits = Splits([*drawings(3), dot, *drawings(2, start=3)], drawings(3))
    read = []

    def reading(stop_after: int):
        def reads(strokes):
            read.append(strokes)
            if len(read) > stop_after:
                raise KeyboardInterrupt
            return strokes

        return reads

    def load(stop_after: int, workspace):
        read.clear()
        return prepare(
            "lines", {}, lambda: splits, reading(stop_after), SketchSettings(), workspace
        )

    with pytest.raises(KeyboardInterrupt):
        load(5, told.workspace)
    loaded = load(99, told.workspace)
    assert len(read) == 5  # all but two parts
    whole = load(99, replace(told.workspace, cache=Cache(tmp_path / "elsewhere")))
    assert len(read) == 9
    assert loaded.fingerprint == whole.fingerprint
    assert [len(loaded.train), len(loaded.validation)] == [5, 3]
    left_out = (
        "lines: left out 1 of 9 drawings; the first: a dot: all points of the drawing are the same"
    )
    assert told.messages == [left_out, left_out]
    (folder,) = told.workspace.cache.root.glob("lines-????????????????")
    assert {path.name for path in folder.iterdir()} == {
        "sketches.safetensors", "key.json", "checksums.json"
    }  # fmt: skip


def test_fingerprint_is_that_of_sequences_and_pictures(told) -> None:
    splits = Splits(drawings(3), drawings(2))
    other = Splits(drawings(3), drawings(2, start=1))
    fingerprints = [
        data(told, splits).fingerprint,
        data(told, splits, spacing=0.5).fingerprint,
        data(told, splits, image_size=32).fingerprint,
        data(told, splits, line_width=0.1).fingerprint,
        data(told, other, key="other").fingerprint,
    ]
    assert len(set(fingerprints)) == len(fingerprints)


@pytest.mark.slow
def test_in_parallel_as_in_sequence_with_progress(told) -> None:
    many = drawings(PARALLEL_FROM)
    loaded = data(told, Splits(many[:-10], many[-10:]), spacing=1, scale=1)
    ends = torch.stack([item[-1] for item in [*loaded.train, *loaded.validation]])
    numbers = torch.arange(len(many), dtype=torch.float64)
    torch.testing.assert_close(ends[:, 0].double(), numbers.cos(), atol=1e-6, rtol=0)
    assert told.messages == [
        "lines: 1,000 of 2,000 drawings prepared",
        "lines: 2,000 of 2,000 drawings prepared",
    ]


@given(st.integers(2, 50))
def test_a_tenth_is_held_out_and_nothing_lost(count) -> None:
    every = drawings(count)
    train, validation = split(every, "lines", SplitSettings())
    assert len(validation) == int(np.ceil(count / 10))
    assert {d.where for d in [*train, *validation]} == {d.where for d in every}
    assert [d.where for d in split(every, "lines", SplitSettings()).validation] == [
        d.where for d in validation
    ]


def test_the_share_that_is_held_out_is_a_setting() -> None:
    train, validation = split(drawings(20), "lines", SplitSettings(validation_share=0.15))
    assert (len(train), len(validation)) == (17, 3)


def test_settings_of_the_published_preparation_have_a_cache_of_their_own(told) -> None:
    splits = Splits(drawings(3), drawings(2, start=3))
    even = data(told, splits, spacing=0.5, scale=1)
    published = data(told, splits, spacing=0.5, scale=1, resampling="published")
    assert [len(item) for item in even.train] == [3, 3, 3]
    assert [len(item) for item in published.train] == [2, 2, 2]
    assert even.fingerprint != published.fingerprint


def test_settings_at_their_defaults_are_not_written_down() -> None:
    assert not SplitSettings().model_dump().keys() & {"resampling", "validation_share"}


def test_one_drawing_cannot_be_split() -> None:
    with pytest.raises(DataError, match=r"^lines has 1 drawing"):
        split(drawings(1), "lines", SplitSettings())


def test_a_key_stands_for_each_drawing_of_its_own() -> None:
    whole, cut = (
        [Drawing("", content) for content in each] for each in ([b"abcd"], [b"ab", b"cd"])
    )
    assert content_key(whole) != content_key(cut)
