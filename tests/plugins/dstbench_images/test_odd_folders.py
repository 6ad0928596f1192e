"""Folders and zip files as people have them: links, pipes, names, splits, limits."""

import os
import threading
import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pytest
import torch
from dstbench_images.image_folder import ImageFolder
from PIL import Image
from pydantic import ValidationError

from dstbench.cache import Cache
from dstbench.contracts import Availability, Data, Workspace
from dstbench.errors import DataError

SIZE = 8
Load = Callable[..., Data]


@pytest.fixture
def messages() -> list[str]:
    return []


@pytest.fixture
def load(tmp_path: Path, messages: list[str]) -> Load:
    workspace = Workspace(torch.device("cpu"), Cache(tmp_path / "cache"), messages.append)

    def load(path: Path | str, **settings: object) -> Data:
        chosen = ImageFolder.Settings(path=str(path), image_size=SIZE, **settings)
        return ImageFolder(chosen).load(workspace)

    return load


def available(path: object) -> Availability:
    dataset = ImageFolder(ImageFolder.Settings(path=str(path)))
    return dataset.availability(Workspace(torch.device("cpu"), Cache()))


def picture(red: int, format: str = "png") -> bytes:
    file = BytesIO()
    Image.new("RGB", (SIZE, SIZE), (red, 0, 0)).save(file, format)
    return file.getvalue()


def write(root: Path, **reds: int) -> Path:
    """Images by their names, in which ``__`` stands for a slash."""
    for name, red in reds.items():
        path = root / f"{name.replace('__', '/')}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(red))
    return root


def zipped(path: Path, *entries: tuple[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries:
            archive.writestr(name, content)
    return path


def reds(data: Data) -> tuple[list[int], list[int]]:
    train, validation = (
        [int(image[0, 0, 0]) for image in split] for split in (data.train, data.validation)
    )
    return train, validation


# Splits


@pytest.mark.parametrize("training", ["train", "Train", "TRAIN", "training", "Training"])
@pytest.mark.parametrize(
    "held_out",
    ["val", "Val", "valid", "validation", "Validation", "dev", "test", "testing", "Test"],
)
def test_splits_by_their_usual_names(
    load: Load, tmp_path: Path, training: str, held_out: str
) -> None:
    root = write(tmp_path / "images", **{f"{training}__a": 1, f"{held_out}__b": 2})
    assert reds(load(root)) == ([1], [2])


def test_a_test_split_is_held_out_where_there_is_no_other(
    load: Load, tmp_path: Path, messages: list[str]
) -> None:
    root = write(tmp_path / "images", Training__a=1, Testing__b=2, dev__c=3, extra__d=4, e=5)
    assert reds(load(root)) == ([1], [3])
    assert messages == [
        f"image-folder: {root}: Training (1) for training, dev (1) for validation; left out: "
        "Testing (1), extra (1), 1 beside these folders"
    ]


def test_two_names_of_one_split_are_one_split(
    load: Load, tmp_path: Path, messages: list[str]
) -> None:
    root = write(tmp_path / "images", Train__cat__a=1, train__dog__a=2, val__cat__c=3, valid__d=4)
    data = load(root)
    assert reds(data) == ([1, 2], [3, 4])
    assert data.labels == {"train": ["cat", "dog"], "validation": ["cat", ""]}
    assert "Train (1) and train (1) for training, val (1) and valid (1) for" in messages[0]


def test_one_of_two_splits_alone_is_none(load: Load, tmp_path: Path, messages: list[str]) -> None:
    write(tmp_path / "images", **{f"train__{red:02}": red for red in range(19)}, cat__a=19)
    train, validation = reds(load(tmp_path / "images"))
    assert sorted(train + validation) == list(range(20))
    assert len(validation) == 2
    assert (
        "18 for training and 2 for validation, drawn from all 20, as there are no folders"
        in (messages[0])
    )
    assert messages[0].endswith("left out: nothing")


def test_splits_below_several_common_folders(load: Load, tmp_path: Path) -> None:
    root = write(tmp_path / "a", **{"b__c__train__cat__x": 1, "b__c__val__cat__y": 2})
    data = load(tmp_path)
    assert reds(data) == ([1], [2])
    assert data.labels == {"train": ["cat"], "validation": ["cat"]}
    assert reds(load(root)) == ([1], [2])


def test_other_kinds_of_files_are_said(load: Load, tmp_path: Path, messages: list[str]) -> None:
    root = write(tmp_path / "images", train__a=1, val__b=2)
    for name in ("train/x.HEIC", "train/y.heic", "README", "val/z.svg", ".DS_Store", "val/._b.png"):
        (root / name).touch()
    load(root)
    assert messages[0].endswith("left out: 2 .heic, 1 .svg, 1 without a suffix")


@pytest.mark.parametrize(
    ("suffix", "format"),
    [
        ("jfif", "jpeg"),
        ("JPE", "jpeg"),
        ("pgm", "ppm"),
        ("ppm", "ppm"),
        ("gif", "gif"),
        ("bmp", "bmp"),
        ("webp", "webp"),
        ("tif", "tiff"),
        ("TIFF", "tiff"),
    ],
)
def test_all_formats_are_read_beside_each_other(
    load: Load, tmp_path: Path, suffix: str, format: str
) -> None:
    root = write(tmp_path / "images", train__a=1, val__b=2)
    (root / f"train/z.{suffix}").write_bytes(picture(200, format))
    (a, z), _ = reds(load(root))
    assert a == 1
    assert abs(z - 200) < 3


# Links, and what is no file


def test_links_to_folders_and_files_are_followed(load: Load, tmp_path: Path) -> None:
    """As of a dataset that is spread over disks: classes, splits and files are links."""
    store = write(tmp_path / "store", cats__a=1, cats__b=2, dogs__c=3, held__cats__d=4, e=5)
    root = tmp_path / "images"
    (root / "train" / "own").mkdir(parents=True)
    (root / "train" / "cat").symlink_to(store / "cats")
    (root / "train" / "dog").symlink_to("../../store/dogs", target_is_directory=True)
    (root / "train" / "own" / "e.png").symlink_to(store / "e.png")
    (root / "val").symlink_to(store / "held")
    data = load(root)
    assert reds(data) == ([1, 2, 3, 5], [4])
    assert data.labels == {"train": ["cat", "cat", "dog", "own"], "validation": ["cats"]}
    (tmp_path / "link").symlink_to(root)
    assert load(tmp_path / "link").fingerprint == data.fingerprint


def test_links_that_lead_back_end(load: Load, tmp_path: Path, messages: list[str]) -> None:
    root = write(tmp_path / "images", train__cat__a=1, train__dog__b=2, val__c=3)
    (root / "train" / "cat" / "all").symlink_to(root)
    (root / "train" / "dog" / "here").symlink_to(".")
    (root / "val" / "up").symlink_to("..")
    assert reds(load(root)) == ([1, 2], [3])
    assert messages[0].endswith("left out: 3 links that lead back")


def test_links_that_lead_nowhere_are_bad_files(
    load: Load, tmp_path: Path, messages: list[str]
) -> None:
    root = write(tmp_path / "images", train__a=1, val__b=2)
    (root / "train" / "gone.png").symlink_to("nowhere.png")
    (root / "train" / "class").symlink_to(tmp_path / "no folder")
    (root / "train" / "self.png").symlink_to("self.png")
    assert reds(load(root)) == ([1], [2])
    assert "left out 3 image file(s) (train/class: No such file or directory; " in messages[1]
    with pytest.raises(DataError, match=r"3 image file\(s\) .* allows 2"):
        load(root, max_bad_files=2)


def test_a_split_that_leads_nowhere_is_not_drawn_from_the_others(
    load: Load, tmp_path: Path
) -> None:
    root = write(tmp_path / "images", val__cat__b=2, val__dog__c=3)
    (root / "train").symlink_to(tmp_path / "no folder")
    with pytest.raises(
        DataError, match=r"no image for train: .*\(train: No such file or directory"
    ):
        load(root)


def within_seconds(function: Callable[[], object], seconds: float = 20) -> None:
    """Fails where it hangs, and goes on."""
    thread = threading.Thread(target=function, daemon=True)
    thread.start()
    thread.join(seconds)
    assert not thread.is_alive()


def test_pipes_and_devices_are_bad_files(load: Load, tmp_path: Path, messages: list[str]) -> None:
    root = write(tmp_path / "images", train__a=1, val__b=2)
    os.mkfifo(root / "train" / "pipe.png")
    (root / "train" / "zero.png").symlink_to("/dev/zero")
    (root / "train" / "link.png").symlink_to("pipe.png")
    os.mkfifo(root / "train" / "pipe")  # not called as images are
    within_seconds(lambda: load(root))
    assert "train/link.png: a pipe, no regular file" in messages[1]
    assert "train/zero.png: a device, no regular file" in messages[1]
    assert messages[0].endswith("left out: 1 without a suffix")
    assert reds(load(root)) == ([1], [2])


@pytest.mark.parametrize("path", ["/dev/zero", "pipe", "link", "x" * 300, "~nosuchuser/x", "a\0b"])
def test_a_path_that_is_neither_a_folder_nor_a_file(
    tmp_path: Path, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    Path("link").symlink_to("/dev/zero")
    found: list[Availability] = []
    within_seconds(lambda: found.append(available(path)))
    assert found[0].state == "missing"
    assert "; it should name a folder or a zip file of images" in found[0].detail


# Names


def test_a_name_that_is_no_text(load: Load, tmp_path: Path) -> None:
    root = write(tmp_path / "images", train__cat__a=1, val__b=2)
    folder = os.fsencode(root) + b"/train/caf\xe9"  # Latin-1
    os.mkdir(folder)
    Path(os.fsdecode(folder + b"/\xfc.png")).write_bytes(picture(3))
    Path(os.fsdecode(folder + b"/bad\xfc.png")).write_bytes(b"")
    data = load(root)
    assert reds(data) == ([3, 1], [2])
    assert data.labels is not None
    assert data.labels["train"] == [r"caf\xe9", "cat"]
    with pytest.raises(DataError, match=r"train/caf\\xe9/bad\\xfc.png: the file is empty"):
        load(root, max_bad_files=0)


def test_dollars_in_a_path(load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name stands for a variable, if there is one."""
    for name, red in {"a$b": 1, "$HERE": 2, "5$": 3, "value": 4}.items():
        write(tmp_path / name, train__a=red, val__b=9)
    monkeypatch.delenv("b", raising=False)
    monkeypatch.setenv("HERE", "value")
    for written, red in {
        "a$b": 1,
        "a$$b": 1,
        "$$HERE": 2,
        "5$": 3,
        "$HERE": 4,
        "${HERE}": 4,
    }.items():
        assert reds(load(f"{tmp_path}/{written}"))[0] == [red], written


# Zip files


def test_separators_of_windows(load: Load, tmp_path: Path) -> None:
    archive = zipped(
        tmp_path / "images.zip",
        ("train\\", b""),
        ("train\\cat\\a.png", picture(1)),
        ("train\\dog\\b.png", picture(2)),
        ("Val\\cat\\c.png", picture(3)),
        ("__MACOSX\\train\\._a.png", b""),
        ("train\\.DS_Store", b""),
    )
    data = load(archive)
    assert reds(data) == ([1, 2], [3])
    assert data.labels == {"train": ["cat", "dog"], "validation": ["cat"]}


def test_names_that_would_lead_out(load: Load, tmp_path: Path, messages: list[str]) -> None:
    """Nothing is written: they are read as if the archive were all there is."""
    archive = zipped(
        tmp_path / "images.zip",
        ("/train/a.png", picture(1)),
        ("../../train/b.png", picture(2)),
        ("C:\\train\\c.png", picture(3)),
        ("x/../val/./d.png", picture(4)),
        ("train//a.png", picture(5)),
    )
    assert reds(load(archive)) == ([5, 2, 3], [4])
    assert messages[0].endswith("left out: 1 named like another")


def test_an_archive_with_a_folder_of_its_own(load: Load, tmp_path: Path) -> None:
    archive = zipped(
        tmp_path / "images.zip",
        ("data/", b""),
        ("data/Train/cat/a.png", picture(1)),
        ("data/Test/cat/b.png", picture(2)),
        ("data/.DS_Store", b""),
        ("__MACOSX/data/Train/cat/._a.png", b"no image"),
    )
    assert reds(load(archive, max_bad_files=0)) == ([1], [2])


def test_an_archive_with_a_damaged_name(load: Load, tmp_path: Path) -> None:
    archive = zipped(tmp_path / "images.zip", ("train/\u00e9.png", picture(1)))
    archive.write_bytes(archive.read_bytes().replace("\u00e9".encode(), b"\xff\xff"))
    with pytest.raises(DataError, match=r"images\.zip is damaged, or no zip file"):
        load(archive)


# Limits


def test_what_unpacks_to_too_much_is_a_bad_file(
    load: Load, tmp_path: Path, messages: list[str]
) -> None:
    bomb = bytes(20_000_000)
    archive = zipped(
        tmp_path / "images.zip",
        ("train/a.png", picture(1)),
        ("train/bomb.png", bomb),
        ("val/b.png", picture(2)),
    )
    assert archive.stat().st_size < 50_000
    assert reds(load(archive, max_megabytes=10)) == ([1], [2])
    assert "train/bomb.png: unpacked, more than the 10,000,000 bytes allowed" in messages[1]


def test_a_large_file_is_a_bad_file(load: Load, tmp_path: Path, messages: list[str]) -> None:
    root = write(tmp_path / "images", train__a=1, val__b=2)
    with (root / "train" / "sparse.png").open("wb") as file:
        file.truncate(1 << 40)  # takes no room on disk, but would in memory
    assert reds(load(root)) == ([1], [2])
    assert "train/sparse.png: more than the 256,000,000 bytes allowed" in messages[1]


def test_many_pixels_are_a_bad_file(load: Load, tmp_path: Path, messages: list[str]) -> None:
    root = write(tmp_path / "images", train__a=1, val__b=2)
    Image.new("1", (9000, 9000)).save(root / "train" / "large.png")
    assert reds(load(root)) == ([1], [2])
    assert "train/large.png: 9000×9000 pixels are more than max_megapixels allows" in messages[1]
    assert reds(load(root, max_megapixels=81)) == ([1, 0], [2])


def test_later_settings_are_written_down_where_they_are_changed() -> None:
    """Ids of cells are made of settings: those of before stay."""
    later = {"background": "black", "max_megapixels": 1, "max_megabytes": 1}
    assert not later.keys() & ImageFolder.Settings(path="x").model_dump().keys()
    changed = ImageFolder.Settings(path="x", **later).model_dump()
    assert later.items() <= changed.items()


def test_the_background_makes_another_dataset(load: Load, tmp_path: Path) -> None:
    root = write(tmp_path / "images", val__b=2)
    (root / "train").mkdir()
    Image.new("RGBA", (SIZE, SIZE)).save(root / "train" / "a.png")
    white, black = load(root), load(root, background="black")
    assert (reds(white)[0], reds(black)[0]) == ([255], [0])
    assert white.fingerprint != black.fingerprint


@pytest.mark.parametrize("colour", ["", "no colour", "#ffffff80"])
def test_a_background_is_an_opaque_colour(colour: str) -> None:
    with pytest.raises(ValidationError, match="background"):
        ImageFolder.Settings(path="x", background=colour)


# What is cached


def test_pixels_that_are_cut_off_are_decoded_anew(load: Load, tmp_path: Path) -> None:
    root = write(tmp_path / "images", train__a=1, val__b=2)
    load(root)
    (pixels,) = (tmp_path / "cache").glob("*/train.pixels")
    os.truncate(pixels, 100)
    load(root)
    (pixels,) = (tmp_path / "cache").glob("*/train.pixels")
    assert pixels.stat().st_size == 192
