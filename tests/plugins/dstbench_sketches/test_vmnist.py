"""VMNIST: published pickles, plain arrays, traced images."""

import os
import pickle
from types import SimpleNamespace
from zipfile import ZipFile

import numpy as np
import pytest
import torch
from dstbench_sketches.sketch import to_strokes
from dstbench_sketches.vmnist import VMNIST, read_image, read_points, read_published
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from dstbench.contracts import READY, Availability
from dstbench.errors import DataError

CORNER = [[0, 10, 10], [0, 0, 20], [0, 1, 2]]


def published(*strokes: object) -> dict[str, object]:
    return {"word": "7", "drawing": list(strokes)}


def load(told, **settings):
    return VMNIST(VMNIST.Settings(**settings)).load(told.workspace)


def available(told, **settings):
    return VMNIST(VMNIST.Settings(**settings)).availability(told.workspace)


def size(data) -> int:
    return len(data.train) + len(data.validation)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("kind", [list, tuple, np.array, np.float32])
def test_lists_and_arrays_of_every_protocol_are_read(protocol, kind) -> None:
    stroke = kind(CORNER) if kind is not tuple else tuple(map(tuple, CORNER))
    (read,) = read_published(pickle.dumps(published(stroke), protocol))
    np.testing.assert_array_equal(read, [(0, 0), (10, 0), (10, 20)])


def test_arrays_pickled_before_numpy_2_are_read() -> None:
    content = pickle.dumps(published(np.array(CORNER)), 2)
    assert b"numpy._core" in content
    (read,) = read_published(content.replace(b"numpy._core", b"numpy.core"))
    np.testing.assert_array_equal(read, [(0, 0), (10, 0), (10, 20)])


@given(st.binary(max_size=100))
def test_nonsense_is_refused(content) -> None:
    with pytest.raises(DataError):
        read_published(content)


@pytest.mark.parametrize("drawing", [3, [3], ["ab"], [[[1, 2], [3]]], [[[[1, 2]] * 2] * 2], [{}]])
def test_what_is_no_drawing_is_refused(drawing) -> None:
    with pytest.raises(DataError, match="no drawing in it"):
        read_published(pickle.dumps({"drawing": drawing}))


def test_a_few_bytes_do_not_become_many_points() -> None:
    """A pickle says once what is in it a thousand times."""
    stroke = [list(range(10_000))] * 2
    with pytest.raises(DataError, match="more points than bytes"):
        read_published(pickle.dumps({"drawing": [stroke] * 1000}))


def test_the_published_folder(told, tmp_path) -> None:
    folder = tmp_path / "vmnist"
    for digit in "37":
        (folder / digit).mkdir(parents=True)
        for n in range(10):
            stroke = [[0, 10, n], [0, int(digit), 20], [0, 1, 2]]
            (folder / digit / f"sketch_{n}").write_bytes(pickle.dumps(published(stroke)))
    (folder / "3" / "sketch_9").write_bytes(pickle.dumps(published(CORNER))[:-20])
    assert size(load(told, path=folder)) == 19
    assert "vmnist: left out 1 of 20 drawings; the first: 3/sketch_9: " in told.messages[0]
    # The first of each class, the second of each …
    few = load(told, path=folder, sketches=4)
    corners = {round(float(item[1, 1] / item[1, 0]), 1) for item in [*few.train, *few.validation]}
    assert size(few) == 4
    assert corners == {0.3, 0.7}


def test_a_folder_as_people_have_it(told, tmp_path) -> None:
    """Classes may be links; what cannot be read is left out, and what is hidden is not seen."""
    store, folder = tmp_path / "store", tmp_path / "vmnist"
    store.mkdir()
    folder.mkdir()
    for n in range(10):
        (store / f"sketch_{n}").write_bytes(pickle.dumps(published([[0, 10, n], [0, 3, 20]])))
    (folder / "3").symlink_to(store)
    (store / "again").symlink_to(folder)
    (folder / ".DS_Store").touch()
    os.mkfifo(folder / "pipe")
    (folder / "zero").symlink_to("/dev/zero")
    assert size(load(told, path=folder)) == 10
    assert "left out 2 of 12 drawings; the first: " in told.messages[0]


def test_what_unpacks_to_too_much_is_an_error(told, tmp_path) -> None:
    path = tmp_path / "vmnist.npz"
    np.savez_compressed(path, points=np.zeros((1_000_000, 3)), lengths=np.array([1_000_000]))
    assert path.stat().st_size < 100_000
    with pytest.raises(DataError, match=r"24,000,\d+ bytes are more than .* 'max_megabytes'"):
        load(told, path=path, max_megabytes=20)
    np.savez_compressed(path, points=np.zeros((1_000_000, 3), "u1"), lengths=np.array([1_000_000]))
    with pytest.raises(DataError, match="24,000,000 bytes are more than"):
        load(told, path=path, max_megabytes=20)
    folder = tmp_path / "published"
    folder.mkdir()
    for n in range(10):
        (folder / f"{n}").write_bytes(
            pickle.dumps(published([[0, 10, n], [0, 3, 20]])) + bytes(999)
        )
    with pytest.raises(DataError, match="up to 4, drawings have more than the 5,000 bytes"):
        load(told, path=folder, max_megabytes=0.005)


def test_the_limit_is_written_down_where_it_is_changed() -> None:
    """Ids of cells are made of settings: those of before stay."""
    assert "max_megabytes" not in VMNIST.Settings().model_dump()
    assert VMNIST.Settings(max_megabytes=9).model_dump()["max_megabytes"] == 9


def test_lengths_that_only_sum_up_by_overflow_are_refused(told, tmp_path) -> None:
    lengths = np.array([2**64 - 4, 8], "u8")
    np.savez(tmp_path / "vmnist.npz", points=np.zeros((4, 3)), lengths=lengths)
    with pytest.raises(DataError, match="sum to the 4"):
        load(told, path=tmp_path / "vmnist.npz")


def test_of_many_lengths_the_first_are_used(told, tmp_path) -> None:
    points = np.column_stack([np.random.default_rng(0).random((40, 2)), np.zeros(40)])
    lengths = np.r_[np.full(10, 4), np.zeros(1_000_000, int)]
    np.savez(tmp_path / "vmnist.npz", points=points, lengths=lengths)
    assert size(load(told, path=tmp_path / "vmnist.npz", sketches=10)) == 10


@pytest.mark.timeout(60)
def test_a_pipe_in_place_of_arrays(told, tmp_path) -> None:
    os.mkfifo(tmp_path / "vmnist.npz")
    assert available(told, path=tmp_path / "vmnist.npz").state == "missing"
    with pytest.raises(DataError, match="a pipe, no regular file"):
        load(told, path=tmp_path / "vmnist.npz")


def test_plain_arrays(told, tmp_path) -> None:
    digit = np.array([(0.0, 0, 0), (10, 0, 1), (0, 5, 0), (10, 9, 1)])
    points = np.concatenate([digit * [k, 1, 1] for k in range(1, 11)])
    np.savez(tmp_path / "vmnist.npz", points=points, lengths=np.full(10, 4))
    data = load(told, path=tmp_path / "vmnist.npz")
    assert size(data) == 10
    assert len(to_strokes(data.train[0])) == 2
    np.testing.assert_array_equal(read_points(digit.tobytes())[1], [(0, 5), (10, 9)])


def test_arrays_of_other_lengths_are_another_dataset(told, tmp_path) -> None:
    points = np.column_stack([np.random.default_rng(0).random((40, 2)), np.zeros(40)])
    for each in 4, 2:
        np.savez(tmp_path / "vmnist.npz", points=points, lengths=np.full(40 // each, each))
        assert size(load(told, path=tmp_path / "vmnist.npz")) == 40 // each


@pytest.mark.parametrize(
    ("arrays", "reason"),
    [
        ({"points": np.zeros((4, 3))}, "lengths"),
        ({"points": np.zeros((4, 2)), "lengths": np.array([4])}, "shape"),
        ({"points": np.zeros((4, 3)), "lengths": np.array([3])}, "sum to the 4"),
        ({"points": np.zeros((4, 3)), "lengths": np.array([5, -1])}, "sum to the 4"),
        ({"points": np.zeros((4, 3)), "lengths": np.array([4.0])}, "whole numbers"),
        ({"points": np.array([["a"] * 3]), "lengths": np.array([1])}, "of numbers"),
        ({"points": np.zeros((4, 3), complex), "lengths": np.array([4])}, "of complex128"),
        ({"points": np.array([None]), "lengths": np.array([1])}, "pickle"),
        ({"points": np.full((4, 3), np.nan), "lengths": np.full(2, 2)}, "no drawing is left"),
    ],
)
def test_other_arrays_are_refused(told, tmp_path, arrays, reason) -> None:
    np.savez(tmp_path / "vmnist.npz", **arrays)
    with pytest.raises(DataError, match=reason):
        load(told, path=tmp_path / "vmnist.npz")


def test_damaged_arrays_and_other_paths_are_refused(told, tmp_path) -> None:
    np.savez(tmp_path / "whole.npz", points=np.zeros((90, 3)), lengths=np.full(9, 10))
    damaged = tmp_path / "damaged.npz"
    damaged.write_bytes((tmp_path / "whole.npz").read_bytes()[:300])
    with pytest.raises(DataError, match="cannot be read"):
        load(told, path=damaged)
    huge = b"{'descr': '<f8', 'fortran_order': False, 'shape': (10000000000000,)}"
    for header in huge, b"{":
        with ZipFile(damaged, "w") as archive:
            size = len(header).to_bytes(2, "little")
            archive.writestr("points.npy", b"\x93NUMPY\x01\x00" + size + header)
        with pytest.raises(DataError, match="cannot be read"):
            load(told, path=damaged)
    with damaged.open("wb") as file:
        np.save(file, np.zeros((4, 3)))
    with pytest.raises(DataError, match="cannot be read"):
        load(told, path=damaged)
    with pytest.raises(DataError, match="cannot be read"):
        load(told, path=tmp_path / "nowhere.npz")
    with pytest.raises(DataError, match=r"neither a folder nor an \.npz file") as refused:
        load(told, path=tmp_path / "nowhere")
    missing = Availability("missing", str(refused.value))
    assert available(told, path=tmp_path / "nowhere") == missing
    assert available(told, path=tmp_path / "nowhere.npz").state == "missing"
    assert available(told, path=tmp_path) == available(told, path=damaged) == READY
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty has 0 drawing\(s\)"):
        load(told, path=tmp_path / "empty")


def seven(shift: int) -> np.ndarray:
    """An image like MNIST's: a seven, in a box of 20 pixels."""
    image = Image.new("L", (28, 28))
    ImageDraw.Draw(image).line([(6, 5), (20, 5), (9 + shift, 22)], fill=255, width=3)
    return np.asarray(image)


def test_an_image_is_traced_in_half_its_size() -> None:
    (stroke,) = read_image(seven(0).tobytes())
    np.testing.assert_allclose(stroke[0], [3, 2.75], atol=0.75)
    np.testing.assert_allclose(stroke[-1], [4.5, 11], atol=1)


def test_without_a_path_mnist_is_traced(told, monkeypatch) -> None:
    downloads = []

    def mnist(root, download=False):
        downloads.append(download)
        images = torch.from_numpy(np.stack([seven(n % 5) for n in range(30)]))
        return SimpleNamespace(data=images)

    monkeypatch.setattr("torchvision.datasets.MNIST", mnist)
    assert available(told) == Availability("download", "12 MB: MNIST, to be traced")
    for _ in range(2):
        assert size(load(told, sketches=20)) == 20
        assert available(told) == READY
    assert downloads == [True, False, False]


def test_no_network_is_an_error(told, monkeypatch) -> None:
    def mnist(root, download=False):
        raise RuntimeError("no network")

    monkeypatch.setattr("torchvision.datasets.MNIST", mnist)
    with pytest.raises(DataError, match=r"could not be downloaded \(no network\).*setting 'path'"):
        load(told)
