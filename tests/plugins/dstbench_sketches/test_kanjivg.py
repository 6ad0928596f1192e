"""KanjiVG: its files, its release, and what is not one."""

import hashlib
import io
import os
import re
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from dstbench_sketches import kanjivg
from dstbench_sketches.kanjivg import KanjiVG
from dstbench_sketches.sketch import to_strokes
from svg_files import svg

from dstbench.contracts import READY, Availability
from dstbench.errors import DataError, PluginError


def release(**files: bytes) -> bytes:
    """A zip file with these characters."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as zipped:
        zipped.writestr("README.md", "KanjiVG")
        for name, content in files.items():
            zipped.writestr(f"kanji/{name}.svg", content)
    return archive.getvalue()


def characters(count: int) -> dict[str, bytes]:
    """Crosses, each with a level stroke at a height of its own, and an upright one."""
    return {
        f"{0x4E00 + n:05x}": svg(f'd="M10,{20 + n}c10,0,30,0,60,0"', 'd="M40,10L40,90"')
        for n in range(count)
    }


def load(told, path: Path | None = None, **settings):
    return KanjiVG(KanjiVG.Settings(path=path, **settings)).load(told.workspace)


@pytest.fixture(autouse=True)
def without_data(monkeypatch, request) -> None:
    if "data_folder" not in request.fixturenames:
        monkeypatch.delenv("DSTBENCH_DATA", raising=False)


@pytest.fixture
def data_folder() -> Path:
    if "DSTBENCH_DATA" not in os.environ:
        pytest.skip("DSTBENCH_DATA is not set")
    return Path(os.environ["DSTBENCH_DATA"])


def test_svgpathtools_is_an_extra(told, tmp_path, monkeypatch) -> None:
    archive = tmp_path / "kanjivg.zip"
    archive.write_bytes(release(**characters(20)))
    monkeypatch.setitem(sys.modules, "svgpathtools", None)
    message = "dataset 'kanjivg' needs the package svgpathtools: pip install 'dstbench[kanjivg]'"
    with pytest.raises(PluginError, match=f"^{re.escape(message)}$"):
        load(told, archive)


def test_characters_of_an_archive_without_variants(told, tmp_path) -> None:
    archive = tmp_path / "kanjivg.zip"
    archive.write_bytes(release(**characters(20), **{"04e00-Kaisho": svg('d="M0,0L1,1"')}))
    data = load(told, archive)
    assert (len(data.train), len(data.validation)) == (18, 2)
    for item in [*data.train, *data.validation]:
        level, upright = to_strokes(item)
        assert np.ptp(level[:, 1]) < 1e-4
        assert np.ptp(upright[:, 0]) < 1e-4
    assert data.to_images(data.train).shape == (18, 1, 64, 64)


def test_labels_are_numbers_of_strokes(told, tmp_path) -> None:
    archive = tmp_path / "kanjivg.zip"
    lines = [f'd="M{n},0L{n},9"' for n in range(5)]
    files = {f"{0x4E00 + count:05x}": svg(*lines[:count]) for count in range(1, 6)}
    archive.write_bytes(release(**files))
    data = load(told, archive)
    assert sorted([*data.labels["train"], *data.labels["validation"]]) == [1, 2, 3, 4, 5]
    for part in "train", "validation":
        strokes = [len(to_strokes(item)) for item in data.split(part)]
        assert strokes == data.labels[part]


def test_characters_that_cannot_be_read_are_counted(told, tmp_path) -> None:
    archive = tmp_path / "kanjivg.zip"
    archive.write_bytes(release(**characters(20), **{"0ffff": svg("id='no-d'")}))
    data = load(told, archive)
    assert len(data.train) + len(data.validation) == 20
    (message,) = told.messages
    assert message.startswith("kanjivg: left out 1 of 21 drawings; the first: kanji/0ffff.svg: ")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"<html>not found</html>",
        release(**characters(9))[:2000],
        release(**characters(9)).replace(b"L40,90", b"L40,91"),  # no longer its checksum
    ],
)
def test_a_damaged_archive_is_an_error_that_says_what_would_be_right(
    told, tmp_path, content
) -> None:
    archive = tmp_path / "kanjivg.zip"
    archive.write_bytes(content)
    with pytest.raises(DataError, match=r"damaged, or no zip file .* release of KanjiVG"):
        load(told, archive)


def test_an_archive_that_would_fill_the_memory_is_an_error(told, tmp_path) -> None:
    archive = tmp_path / "kanjivg.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as zipped:
        zipped.writestr("kanji/04e00.svg", b" " * 100_001)
    with pytest.raises(DataError, match=r"no release of KanjiVG.* 100,001 bytes.*max_megabytes"):
        load(told, archive, max_megabytes=0.1)


def test_an_archive_of_other_things_is_an_error(told, tmp_path) -> None:
    archive = tmp_path / "kanjivg.zip"
    archive.write_bytes(release())
    with pytest.raises(DataError, match="holds no characters"):
        load(told, archive)


def test_a_missing_archive_is_an_error(told, tmp_path) -> None:
    with pytest.raises(DataError, match=r"the setting 'path' .* no file"):
        load(told, tmp_path / "nowhere.zip")


def test_the_data_folder_is_looked_into(told, tmp_path, monkeypatch) -> None:
    (tmp_path / "kanjivg").mkdir()
    (tmp_path / "kanjivg" / "kanjivg-20260101-main.zip").write_bytes(release(**characters(5)))
    monkeypatch.setenv("DSTBENCH_DATA", str(tmp_path))
    data = load(told)
    assert len(data.train) + len(data.validation) == 5


def test_the_release_is_downloaded_once_and_checked(told, web, monkeypatch) -> None:
    web.files["/kanjivg.zip"] = release(**characters(5))
    monkeypatch.setattr(kanjivg, "RELEASE_URL", f"{web.url}/kanjivg.zip")
    monkeypatch.setattr(
        kanjivg, "RELEASE_SHA256", hashlib.sha256(web.files["/kanjivg.zip"]).hexdigest()
    )
    for _ in range(2):
        data = load(told)
        assert len(data.train) + len(data.validation) == 5
    assert web.requests == ["/kanjivg.zip"]


def test_a_download_that_is_not_the_release_is_an_error(told, web, monkeypatch) -> None:
    web.files["/kanjivg.zip"] = release(**characters(5))
    monkeypatch.setattr(kanjivg, "RELEASE_URL", f"{web.url}/kanjivg.zip")
    for _ in range(2):  # and it is not kept
        with pytest.raises(DataError, match=r"could not be downloaded .*SHA-256.* setting 'path'"):
            load(told)


def test_a_download_that_breaks_off_is_an_error(told, web, monkeypatch) -> None:
    web.files["/kanjivg.zip"] = release(**characters(5))
    web.cut_off_at = 500
    monkeypatch.setattr(kanjivg, "RELEASE_URL", f"{web.url}/kanjivg.zip")
    with pytest.raises(DataError, match="could not be downloaded"):
        load(told)


def test_no_network_is_an_error(told, monkeypatch) -> None:
    monkeypatch.setattr(kanjivg, "RELEASE_URL", "http://127.0.0.1:9/kanjivg.zip")
    with pytest.raises(DataError, match=r"could not be downloaded .* setting 'path'"):
        load(told)


@pytest.mark.slow
def test_all_real_characters_load(told, data_folder) -> None:
    data = load(told)
    assert len(data.train) + len(data.validation) == 6703
    assert not any("left out" in message for message in told.messages)
    assert max(len(item) for item in data.train) <= 300


def test_whether_it_is_there(told, tmp_path, monkeypatch) -> None:
    def available(path: Path | None = None):
        return KanjiVG(KanjiVG.Settings(path=path)).availability(told.workspace)

    assert available() == Availability("download", f"13 MB from {kanjivg.RELEASE_URL}")
    told.workspace.cache.folder(*kanjivg.RELEASE, lambda folder: None)
    assert available() == READY
    missing = available(tmp_path / "nowhere.zip")
    assert missing.state == "missing"
    assert "nowhere.zip, which is no file; it should be a release's zip" in missing.detail
    (tmp_path / "here.zip").touch()
    assert available(tmp_path / "here.zip") == READY


def test_what_is_in_the_data_folder_is_there(told, tmp_path, monkeypatch) -> None:
    (tmp_path / "kanjivg").mkdir()
    (tmp_path / "kanjivg" / "release.zip").touch()
    monkeypatch.setenv("DSTBENCH_DATA", str(tmp_path))
    assert KanjiVG(KanjiVG.Settings()).availability(told.workspace) == READY


def test_an_archive_as_windows_packs_it(told, tmp_path) -> None:
    archive = tmp_path / "kanjivg.zip"
    with zipfile.ZipFile(archive, "w") as zipped:
        for name, content in characters(5).items():
            zipped.writestr(f"kanji\\{name}.svg", content)
            zipped.writestr(f"__MACOSX/kanji/._{name}.svg", b"")
    data = load(told, archive)
    assert len(data.train) + len(data.validation) == 5
    assert told.messages == []


@pytest.mark.timeout(60)
def test_a_pipe_or_a_device_is_an_error(told, tmp_path, monkeypatch) -> None:
    (tmp_path / "kanjivg").mkdir()
    os.mkfifo(tmp_path / "kanjivg" / "release.zip")
    with pytest.raises(DataError, match="which is no file"):
        load(told, tmp_path / "kanjivg" / "release.zip")
    with pytest.raises(DataError, match="which is no file"):
        load(told, Path("/dev/zero"))
    monkeypatch.setenv("DSTBENCH_DATA", str(tmp_path))
    assert KanjiVG(KanjiVG.Settings()).availability(told.workspace).state == "download"
