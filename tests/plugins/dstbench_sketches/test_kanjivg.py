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
from dstbench_sketches.svg import CURVE_POINTS, read_svg
from hypothesis import given
from hypothesis import strategies as st

from dstbench.contracts import READY, Availability
from dstbench.errors import DataError, PluginError

HEAD = """<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE svg PUBLIC "-//W3C//DTD SVG 1.0//EN" "http://www.w3.org/TR/2001/REC-SVG-20010904/DTD/svg10.dtd" [
<!ATTLIST g xmlns:kvg CDATA #FIXED "http://kanjivg.tagaini.net" kvg:element CDATA #IMPLIED >
]>"""  # noqa: E501


def svg(*paths: str, head: str = HEAD) -> bytes:
    """A file as KanjiVG's are."""
    strokes = "".join(f'<path {path} id="kvg:s{n}"/>' for n, path in enumerate(paths))
    return f"""{head}
<svg xmlns="http://www.w3.org/2000/svg" width="109" height="109" viewBox="0 0 109 109">
<g id="kvg:StrokePaths" style="fill:none"><g kvg:element="x">{strokes}</g></g>
<g id="kvg:StrokeNumbers"><text transform="matrix(1 0 0 1 16.5 22.6)">1</text></g>
</svg>""".encode()


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


def test_lines_and_curves_by_hand() -> None:
    """A Bézier curve is (1-t)³P0 + 3(1-t)²t P1 + 3(1-t)t² P2 + t³P3; s mirrors the last handle."""
    curve, line = read_svg(svg('d="M0,0c0,10,10,10,10,0s10-10,10,0"', 'd="M1,2L4,6"'))
    t = np.linspace(0, 1, CURVE_POINTS)[:, None]
    first, second, third, last = np.array([(0, 0), (0, 10), (10, 10), (10, 0)])
    expected = (1 - t) ** 3 * first + 3 * (1 - t) ** 2 * t * second
    expected = expected + 3 * (1 - t) * t**2 * third + t**3 * last
    np.testing.assert_allclose(curve[: len(t)], expected, atol=1e-9)
    np.testing.assert_allclose(curve[len(t) :], [10, 0] + expected * [1, -1], atol=1e-9)
    np.testing.assert_allclose(line[[0, -1]], [(1, 2), (4, 6)])


def test_a_path_that_starts_twice_is_two_strokes() -> None:
    assert len(read_svg(svg('d="M0,0L1,1M5,5L6,6"'))) == 2


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "XML"),
        (b"<svg", "XML"),
        (b"\xff\xfe\x00", "XML"),
        (svg('d="M0,0L1,1"')[:-20], "XML"),
        (b'<?xml version="1.0" encoding="no-such"?><svg/>', "XML"),
        (svg('d="M0,0L1,1"', 'class="no d"'), "without a line"),
        (svg('d="M0,0L1,1"', 'd=""'), "without a line"),
        (svg('d="M5,5"'), "without a line"),
        (svg('d="M0,0L"'), "cannot be read|without a line"),
        (svg('d="hello"'), "cannot be read|without a line"),
    ],
)
def test_what_is_no_character_is_refused(content, reason) -> None:
    with pytest.raises(DataError, match=reason):
        read_svg(content)


def test_entities_are_not_expanded() -> None:
    bomb = '<!DOCTYPE svg [<!ENTITY a "M0,0L1,1"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>'
    with pytest.raises(DataError, match="XML"):
        read_svg(svg('d="&b;"', head=bomb))
    outside = '<!DOCTYPE svg [<!ENTITY file SYSTEM "file:///etc/hostname">]>'
    with pytest.raises(DataError, match="XML"):
        read_svg(svg('d="&file;"', head=outside))


@given(st.binary(max_size=200) | st.text("MmLlCcSsAaZzQqHhVv0123456789.,-e ", max_size=40))
def test_nonsense_is_read_or_refused(nonsense) -> None:
    content = nonsense if isinstance(nonsense, bytes) else svg(f'd="{nonsense}"')
    try:
        strokes = read_svg(content)
    except DataError:
        return
    assert all(stroke.ndim == 2 and stroke.shape[1] == 2 for stroke in strokes)


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
        with pytest.raises(DataError, match=r"could not be downloaded .*hash.* setting 'path'"):
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
