"""Folders and zip files of images."""

import os
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
import pytest
import torch
from dstbench_images import photographs
from dstbench_images.decoding import decode
from dstbench_images.image_folder import ImageFolder
from PIL import Image

from dstbench.cache import Cache
from dstbench.contracts import Data, Items, Workspace
from dstbench.errors import DataError

SIZE = 8


@pytest.fixture
def messages() -> list[str]:
    return []


@pytest.fixture
def load(tmp_path: Path, messages: list[str]) -> Callable[..., Data]:
    workspace = Workspace(torch.device("cpu"), Cache(tmp_path / "cache"), messages.append)

    def load(path: Path | str, **settings: int) -> Data:
        chosen = ImageFolder.Settings(path=str(path), image_size=SIZE, **settings)
        return ImageFolder(chosen).load(workspace)

    return load


def picture(red: int, size: tuple[int, int] = (SIZE, SIZE), format: str = "png") -> bytes:
    file = BytesIO()
    Image.new("RGB", size, (red, 0, 0)).save(file, format)
    return file.getvalue()


def write(root: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def archived(path: Path, files: dict[str, bytes]) -> Path:
    with ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def reds(data: Data) -> tuple[list[int], list[int]]:
    """The images of both splits, which are all of one colour."""
    for image in (*data.train, *data.validation):
        assert image.shape == (3, SIZE, SIZE)
        assert image.dtype == torch.uint8
        assert (image == image[:, :1, :1]).all()
    train, validation = (
        [int(image[0, 0, 0]) for image in s] for s in (data.train, data.validation)
    )
    return train, validation


SPLIT = {
    "train/cat/b.png": picture(2),
    "train/cat/a.png": picture(1),
    "train/dog/old/c.PNG": picture(3),
    "val/cat/d.png": picture(4),
    "test/cat/e.png": picture(5),
    "train/.hidden.png": b"",
    "__MACOSX/train/cat/a.png": b"",
    "read me.txt": b"",
}


def test_folders_are_splits_and_labels(load: Callable[..., Data], tmp_path: Path) -> None:
    data = load(write(tmp_path / "images", SPLIT))
    assert reds(data) == ([1, 2, 3], [4])
    assert data.labels == {"train": ["cat", "cat", "dog/old"], "validation": ["cat"]}


def test_a_zip_is_as_a_folder(load: Callable[..., Data], tmp_path: Path) -> None:
    folder = load(write(tmp_path / "images", SPLIT))
    packed = {f"images-1.0/{name}": content for name, content in SPLIT.items()}
    for files in (SPLIT, packed):
        zipped = load(archived(tmp_path / "images.zip", files))
        assert zipped.fingerprint == folder.fingerprint
        assert zipped.labels == folder.labels
        assert reds(zipped) == reds(folder)


def test_the_outline_is_true_before_anything_is_there() -> None:
    settings = ImageFolder.Settings(path="nowhere", image_size=40)
    assert ImageFolder(settings).outline() == Items((3, 40, 40))


def test_without_folders_a_tenth_is_held_out(load: Callable[..., Data], tmp_path: Path) -> None:
    write(tmp_path / "images", {f"{red:02}.png": picture(red) for red in range(40)})
    train, validation = reds(load(tmp_path / "images"))
    assert (len(train), len(validation)) == (36, 4)
    assert sorted(train + validation) == list(range(40))

    some, others = reds(load(tmp_path / "images", train=10, validation=7))
    assert (len(set(some)), len(set(others))) == (10, 7)
    assert not set(some) & set(others)


def test_images_are_drawn_from_their_folders(load: Callable[..., Data], tmp_path: Path) -> None:
    folder = write(tmp_path / "images", SPLIT)
    train, validation = reds(load(folder, train=2))
    assert len(set(train)) == 2
    assert set(train) < {1, 2, 3}
    assert validation == [4]
    with pytest.raises(DataError, match=r"images: train: 3 images are here, of 4 asked for"):
        load(folder, train=4)


def test_the_square_in_the_middle_is_resized_as_by_pillow(
    load: Callable[..., Data], tmp_path: Path
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (30, 50, 3), dtype=np.uint8)
    (tmp_path / "images").mkdir()
    for name in "ab":
        Image.fromarray(pixels).save(tmp_path / "images" / f"{name}.png")
    data = load(tmp_path / "images", validation=1)
    square = Image.fromarray(pixels[:, 10:40])
    expected = np.asarray(square.resize((SIZE, SIZE), Image.Resampling.BICUBIC))
    assert (data.train[0].permute(1, 2, 0).numpy() == expected).all()


def test_what_is_not_rgb_becomes_so(load: Callable[..., Data], tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for index, mode in enumerate(("L", "LA", "RGBA", "P", "1", "CMYK")):
        Image.new(mode, (SIZE, SIZE)).save(tmp_path / "images" / f"{index}.tif")
    turned = Image.new("L", (SIZE, SIZE))
    turned.putpixel((0, 0), 200)
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    turned.save(tmp_path / "images" / "9.png", exif=exif)
    data = load(tmp_path / "images", validation=1)
    everything = torch.stack([*data.train, *data.validation])
    assert everything.shape == (7, 3, SIZE, SIZE)
    assert (everything[:, :, -1, -1] == 200).all(dim=1).sum() == 1


def test_decoding_goes_on_where_it_was_stopped(
    load: Callable[..., Data], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {f"train/{red}.png": picture(red) for red in range(1, 8)}
    files |= {f"val/{red}.png": picture(red) for red in range(10, 15)}
    root = write(tmp_path / "images", files | {"train/3.png": b"bad", "val/11.png": b"bad"})
    monkeypatch.setattr(photographs, "PART", 2)
    read: list[bytes] = []

    def decoding(stop_after: int) -> Callable[..., object]:
        def decodes(content: bytes, **form: Any) -> object:
            read.append(content)
            if len(read) > stop_after:
                raise KeyboardInterrupt
            return decode(content, **form)

        read.clear()
        return decodes

    for stop_after in (5, 7):  # files, of which four and seven are kept
        monkeypatch.setattr(photographs, "decode", decoding(stop_after))
        with pytest.raises(KeyboardInterrupt):
            load(root)
    monkeypatch.setattr(photographs, "decode", decoding(99))
    data = load(root)
    assert len(read) == 1
    monkeypatch.setenv("DSTBENCH_CACHE", str(tmp_path / "elsewhere"))
    workspace = Workspace(torch.device("cpu"), Cache())
    whole = ImageFolder(ImageFolder.Settings(path=str(root), image_size=SIZE)).load(workspace)
    assert reds(data) == ([1, 2, 4, 5, 6, 7], [10, 12, 13, 14])
    assert data.fingerprint == whole.fingerprint


def test_what_could_not_be_read_is_tried_again(load: Callable[..., Data], tmp_path: Path) -> None:
    root = write(tmp_path / "images", {f"{red}.png": picture(red) for red in range(9)})
    times = root.stat(), (root / "4.png").stat()
    (root / "4.png").write_bytes(b"\0" * times[1].st_size)
    os.utime(root / "4.png", ns=(times[1].st_atime_ns, times[1].st_mtime_ns))
    with pytest.raises(DataError, match="allows 0"):
        load(root, max_bad_files=0)
    (root / "4.png").write_bytes(picture(4))
    os.utime(root / "4.png", ns=(times[1].st_atime_ns, times[1].st_mtime_ns))
    train, validation = reds(load(root, max_bad_files=0))
    assert sorted([*train, *validation]) == list(range(9))


def test_bad_files_are_named_and_left_out_up_to_a_limit(
    load: Callable[..., Data], tmp_path: Path, messages: list[str]
) -> None:
    truncated = picture(9, (64, 64), "jpeg")[:-200]
    files = SPLIT | {"train/cat/x.jpg": truncated, "train/y.png": b"no image", "train/z.avif": b""}
    folder = write(tmp_path / "images", files)
    assert reds(load(folder, max_bad_files=2)) == ([1, 2, 3], [4])
    taken, message = messages
    assert taken.endswith("left out: test (1), 1 .avif, 1 .txt")
    assert message.startswith("image-folder: left out 2 image file(s) (train/cat/x.jpg: ")
    assert "train/y.png: cannot identify image file" in message
    with pytest.raises(DataError, match=r"2 image file\(s\) .*'max_bad_files' .* allows 1"):
        load(folder, max_bad_files=1)


def test_a_damaged_zip(load: Callable[..., Data], tmp_path: Path, messages: list[str]) -> None:
    archive = archived(tmp_path / "images.zip", SPLIT)
    content = archive.read_bytes()
    at = content.index(picture(1))
    archive.write_bytes(content[:at] + b"x" + content[at + 1 :])
    assert reds(load(archive)) == ([2, 3], [4])
    assert "train/cat/a.png: Bad CRC-32" in messages[1]

    archive.write_bytes(content[:100])
    with pytest.raises(DataError, match=r"images\.zip is damaged, or no zip file"):
        load(archive)


def test_a_file_that_changes_is_read_again(load: Callable[..., Data], tmp_path: Path) -> None:
    folder = write(tmp_path / "images", SPLIT)
    before = load(folder).fingerprint
    write(folder, {"train/cat/a.png": picture(77)})
    os.utime(folder / "train/cat/a.png", (1, 1))
    data = load(folder)
    assert reds(data) == ([77, 2, 3], [4])
    assert data.fingerprint != before


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (
            "nowhere",
            r"names nowhere, where there is nothing; it should name a folder or a zip file",
        ),
        ("$NOT_SET/images", r"is \$NOT_SET/images, but the environment variable NOT_SET is not"),
        (".", r"\.: no image is here \(\.bmp, \.gif"),
    ],
)
def test_a_path_without_images(
    load: Callable[..., Data],
    path: str,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NOT_SET", raising=False)
    with pytest.raises(DataError, match=message):
        load(path)


def test_a_variable_in_the_path(
    load: Callable[..., Data], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "images", SPLIT)
    monkeypatch.setenv("HERE", str(tmp_path))
    assert reds(load("${HERE}/images")) == ([1, 2, 3], [4])
