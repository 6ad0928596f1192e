"""CelebA-HQ, LSUN bedrooms and Imagenette, in miniature."""

import hashlib
import os
import re
import struct
import sys
import tarfile
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path

import lmdb
import pytest
import torch
import torchvision.datasets
from dstbench_images import imagenette
from dstbench_images.celeba_hq import CelebAHQ
from dstbench_images.imagenette import Imagenette
from dstbench_images.lsun_bedrooms import LSUNBedrooms
from PIL import Image

from dstbench.cache import Cache
from dstbench.contracts import READY, Availability, Data, Workspace
from dstbench.errors import DataError, PluginError


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(torch.device("cpu"), Cache(tmp_path / "cache"))


def picture(red: int, format: str = "png") -> bytes:
    file = BytesIO()
    Image.new("RGB", (9, 8), (red, 0, 0)).save(file, format, lossless=True)
    return file.getvalue()


def reds(data: Data) -> list[int]:
    return [int(image[0, 0, 0]) for image in (*data.train, *data.validation)]


def test_the_papers_numbers_of_images() -> None:
    for dataset, counts in ((CelebAHQ, (12_500, 500)), (LSUNBedrooms, (10_598, 2_500))):
        settings = dataset.Settings()
        assert (settings.train, settings.validation, settings.image_size) == (*counts, 256)


@pytest.mark.parametrize("dataset", [CelebAHQ, LSUNBedrooms])
def test_a_folder_in_dstbench_data(
    dataset: type[CelebAHQ | LSUNBedrooms],
    workspace: Workspace,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("DSTBENCH_DATA", raising=False)
    small = dataset(dataset.Settings(train=5, validation=2, image_size=8))
    with pytest.raises(DataError, match="variable DSTBENCH_DATA is not set") as unset:
        small.load(workspace)
    missing = small.availability(workspace)
    assert missing == Availability("missing", str(unset.value))
    assert "zip file of" in missing.detail
    assert "https://github.com/" in missing.detail
    monkeypatch.setenv("DSTBENCH_DATA", str(tmp_path))
    with pytest.raises(DataError, match=f"{dataset.name}, where there is nothing"):
        small.load(workspace)
    assert small.availability(workspace).state == "missing"
    folder = tmp_path / dataset.name
    folder.mkdir()
    for red in range(10):
        (folder / f"{red}.jpg").write_bytes(picture(red))
    assert small.availability(workspace) == READY
    data = small.load(workspace)
    assert (len(data.train), len(data.validation)) == (5, 2)
    assert len(set(reds(data))) == 7


@pytest.fixture
def bedrooms(tmp_path: Path) -> Path:
    """A folder with an LMDB database of twenty WebP images, as LSUN's is."""
    root = tmp_path / "lsun"
    root.mkdir()
    environment = lmdb.open(str(root / "bedroom_train_lmdb"))
    with environment, environment.begin(write=True) as transaction:
        for red in range(20):
            transaction.put(f"{red:040x}".encode(), picture(10 * red, "webp"))
    return root


@pytest.mark.parametrize("below", ["", "bedroom_train_lmdb"])
def test_an_lmdb_database(workspace: Workspace, bedrooms: Path, below: str) -> None:
    def load(train: int) -> Data:
        path = str(bedrooms / below)
        settings = LSUNBedrooms.Settings(path=path, train=train, validation=4, image_size=8)
        return LSUNBedrooms(settings).load(workspace)

    data = load(train=16)
    assert (len(data.train), len(data.validation)) == (16, 4)
    assert sorted(reds(data)) == [10 * red for red in range(20)]
    with pytest.raises(DataError, match="20 images are here, of 21 asked for"):
        load(train=17)


def test_all_of_a_database(workspace: Workspace, bedrooms: Path) -> None:
    """None stands for as many as there are, as with folders: a tenth of them for validation."""
    settings = LSUNBedrooms.Settings(path=str(bedrooms), train=None, validation=None, image_size=8)
    data = LSUNBedrooms(settings).load(workspace)
    assert (len(data.train), len(data.validation)) == (18, 2)
    assert sorted(reds(data)) == [10 * red for red in range(20)]


def test_lmdb_is_an_extra(
    workspace: Workspace, bedrooms: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "lmdb", None)
    message = "dataset 'lsun-bedrooms' needs the package lmdb: pip install 'dstbench[lsun]'"
    with pytest.raises(PluginError, match=re.escape(message)):
        LSUNBedrooms(LSUNBedrooms.Settings(path=str(bedrooms))).load(workspace)


def test_a_damaged_database(workspace: Workspace, bedrooms: Path) -> None:
    (bedrooms / "bedroom_train_lmdb" / "data.mdb").write_bytes(b"nonsense" * 2000)
    with pytest.raises(DataError, match="is damaged, or no LMDB database"):
        LSUNBedrooms(LSUNBedrooms.Settings(path=str(bedrooms))).load(workspace)


def all_of(path: Path) -> LSUNBedrooms:
    return LSUNBedrooms(
        LSUNBedrooms.Settings(path=str(path), train=None, validation=None, image_size=8)
    )


@pytest.mark.parametrize("size", [-1, -9000, 8192, 5000, 4096, 100, 0])
def test_a_database_that_is_cut_off(workspace: Workspace, bedrooms: Path, size: int) -> None:
    """Reading what is missing of a mapped file would kill the process."""
    file = bedrooms / "bedroom_train_lmdb" / "data.mdb"
    os.truncate(file, size if size >= 0 else file.stat().st_size + size)
    with pytest.raises(DataError, match=r"data\.mdb is damaged"):
        all_of(bedrooms).load(workspace)


def test_a_database_whose_reading_kills_the_process(workspace: Workspace, bedrooms: Path) -> None:
    """An entry says that it is larger than all of the file: reading it ends in a signal."""
    environment = lmdb.open(str(bedrooms / "bedroom_train_lmdb"))
    with environment, environment.begin(write=True) as transaction:
        transaction.put(b"the one", bytes(10_000))
    file = bedrooms / "bedroom_train_lmdb" / "data.mdb"
    content = file.read_bytes()
    length, where = struct.pack("<IHH", 10_000, 1, 7) + b"the one", content.rindex(b"the one") - 8
    assert content[where : where + len(length)] == length
    claimed = struct.pack("<I", 200_000_000)
    file.write_bytes(content.replace(length, claimed + length[4:]))
    with pytest.raises(DataError, match="reading it ended the process that tried"):
        all_of(bedrooms).load(workspace)


@pytest.mark.parametrize("name", ["bedroom_train_lmdb/data.mdb", "bedrooms.lmdb"])
def test_a_database_by_its_file(workspace: Workspace, bedrooms: Path, name: str) -> None:
    (bedrooms / "bedrooms.lmdb").write_bytes(
        (bedrooms / "bedroom_train_lmdb" / "data.mdb").read_bytes()
    )
    assert all_of(bedrooms / name).availability(workspace) == READY
    data = all_of(bedrooms / name).load(workspace)
    assert sorted(reds(data)) == [10 * red for red in range(20)]


def test_keys_that_are_no_text_and_named_databases(tmp_path: Path) -> None:
    messages: list[str] = []
    workspace = Workspace(torch.device("cpu"), Cache(tmp_path / "cache"), messages.append)
    environment = lmdb.open(str(tmp_path / "lmdb"), max_dbs=2)
    with environment:
        named = [environment.open_db(name) for name in (b"kitchens", b"\xffs")]
        with environment.begin(write=True) as transaction:
            for red in range(4):
                transaction.put(b"\xff%d" % red, picture(red))
                transaction.put(bytes([red]), picture(10 + red), db=named[0])
                transaction.put(b"%d" % red, picture(20 + red), db=named[1])
            transaction.put(b"\xfe", b"no image")
    data = all_of(tmp_path / "lmdb").load(workspace)
    assert sorted(reds(data)) == [*range(4), *range(10, 14), *range(20, 24)]
    assert r"left out 1 image file(s) (\xfe: cannot identify" in messages[1]


def test_a_large_entry_is_a_bad_file(workspace: Workspace, bedrooms: Path) -> None:
    environment = lmdb.open(str(bedrooms / "bedroom_train_lmdb"))
    with environment, environment.begin(write=True) as transaction:
        transaction.put(b"large", bytes(2_000_000))
    settings = all_of(bedrooms).settings.model_copy(update={"max_megabytes": 1, "max_bad_files": 0})
    with pytest.raises(DataError, match="large: more than the 1,000,000 bytes allowed"):
        LSUNBedrooms(settings).load(workspace)


@pytest.mark.timeout(60)
def test_a_pipe_in_place_of_a_database(workspace: Workspace, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "data.mdb")
    with pytest.raises(DataError, match="a pipe, no regular file"):
        all_of(tmp_path).load(workspace)


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Imagenette's archive, at an address that torchvision downloads it from."""
    site = tmp_path / "site"
    site.mkdir()
    archive = site / "imagenette2-320.tgz"
    with tarfile.open(archive, "w:gz") as tar:
        for split, label, red in (
            ("train", "n01440764", 1),
            ("train", "n02102040", 2),
            ("val", "n01440764", 3),
        ):
            content = picture(red)
            member = tarfile.TarInfo(f"imagenette2-320/{split}/{label}/{red}.JPEG")
            member.size = len(content)
            tar.addfile(member, BytesIO(content))
    handler = partial(SimpleHTTPRequestHandler, directory=site)
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/{archive.name}"
    md5 = hashlib.md5(archive.read_bytes()).hexdigest()
    monkeypatch.setattr(torchvision.datasets.Imagenette, "_ARCHIVES", {"320px": (url, md5)})
    monkeypatch.setattr(imagenette, "ARCHIVE", url)
    yield archive
    server.shutdown()
    server.server_close()


def test_imagenette_is_downloaded_once(workspace: Workspace, published: Path) -> None:
    settings = Imagenette.Settings(image_size=8)
    available = Imagenette(settings).availability(workspace)
    assert available.state == "download"
    assert available.detail.startswith("about 340 MB from https://")
    data = Imagenette(settings).load(workspace)
    assert Imagenette(settings).availability(workspace) == READY
    assert reds(data) == [1, 2, 3]
    assert data.labels == {"train": ["n01440764", "n02102040"], "validation": ["n01440764"]}
    published.unlink()
    assert Imagenette(settings).load(workspace).fingerprint == data.fingerprint


def test_an_unpacking_that_was_stopped_is_begun_again(
    workspace: Workspace, published: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(_: tarfile.TarFile, folder: Path, **__: object) -> None:
        (Path(folder) / "imagenette2-320" / "train").mkdir(parents=True)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(tarfile.TarFile, "extractall", stopped)
        with pytest.raises(KeyboardInterrupt):
            Imagenette(Imagenette.Settings(image_size=8)).load(workspace)
    assert reds(Imagenette(Imagenette.Settings(image_size=8)).load(workspace)) == [1, 2, 3]


def test_a_download_that_is_not_what_was_published(workspace: Workspace, published: Path) -> None:
    published.write_bytes(b"something else")
    with pytest.raises(DataError, match=r"could not be downloaded .* setting 'path' of"):
        Imagenette(Imagenette.Settings()).load(workspace)
    assert Imagenette(Imagenette.Settings()).availability(workspace).state == "download"


def test_a_path_of_imagenette_that_names_nothing(workspace: Workspace, tmp_path: Path) -> None:
    available = Imagenette(Imagenette.Settings(path=str(tmp_path / "no"))).availability(workspace)
    assert available.state == "missing"
    assert available.detail.endswith("or any folder or zip file with train and val")
