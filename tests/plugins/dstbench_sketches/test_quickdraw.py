"""Quick, Draw!: records, files, streams."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from dstbench_sketches import quickdraw
from dstbench_sketches.quickdraw import QuickDraw, read_record
from dstbench_sketches.sketch import to_item
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from dstbench.contracts import READY, Availability
from dstbench.errors import DataError


def record(n: int = 0, recognized: bool = True, drawing: object = None) -> bytes:
    """A line of a simplified file: a stroke with a corner of its own, and a short one."""
    drawing = drawing or [[[0, n, 255], [0, 10, 20]], [[5, 6], [7, 8]]]
    fields = {"word": "cat", "countrycode": "LU", "recognized": recognized, "key_id": str(n)}
    return json.dumps({**fields, "drawing": drawing}).encode() + b"\n"


def records(count: int) -> bytes:
    return b"".join(record(n) for n in range(count))


def load(told, **settings):
    return QuickDraw(QuickDraw.Settings(**{"categories": ("cat",)} | settings)).load(told.workspace)


def size(data) -> int:
    return len(data.train) + len(data.validation)


def test_a_simplified_record() -> None:
    first, second = read_record(record(3))
    np.testing.assert_array_equal(first, [(0, 0), (3, 10), (255, 20)])
    np.testing.assert_array_equal(second, [(5, 7), (6, 8)])


def test_a_raw_record_has_times_too() -> None:
    (stroke,) = read_record(record(drawing=[[[1.5, 2.5], [3.5, 4.5], [0, 17]]]))
    np.testing.assert_array_equal(stroke, [(1.5, 3.5), (2.5, 4.5)])


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"", "not JSON"),
        (record()[:-30], "not JSON"),
        (b"\xff", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[1, 2]", "not a JSON object"),
        (b"{}", "no drawing"),
        (b'{"drawing": 3}', "no drawing"),
        (b'{"drawing": [3]}', "no drawing"),
        (b'{"drawing": [[[1, 2], [3]]]}', "no drawing"),
    ],
)
def test_what_is_no_record_is_refused(line, reason) -> None:
    with pytest.raises(DataError, match=reason):
        read_record(line)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=12,
)


@given(json_values | st.lists(st.lists(st.lists(json_values, max_size=3), max_size=3), max_size=3))
def test_nonsense_is_an_item_or_refused(nonsense) -> None:
    try:
        item = to_item(read_record(json.dumps({"drawing": nonsense}).encode()))
    except DataError:
        return
    assert np.isfinite(item).all()


def test_the_first_sketches_of_each_category(told, tmp_path) -> None:
    (tmp_path / "cat.ndjson").write_bytes(records(50))
    (tmp_path / "The Eiffel Tower.ndjson").write_bytes(records(50))
    data = load(told, categories=("cat", "The Eiffel Tower"), sketches=20, path=tmp_path)
    assert (len(data.train), len(data.validation)) == (36, 4)
    assert told.messages == []


def test_unrecognised_drawings_are_a_setting(told, tmp_path) -> None:
    lines = [record(n, recognized=n % 2 == 0) for n in range(40)]
    (tmp_path / "cat.ndjson").write_bytes(b"".join(lines))
    assert size(load(told, sketches=30, path=tmp_path)) == 20
    assert told.messages == ["quickdraw: 'cat' has 20 drawings, of 30"]
    assert size(load(told, sketches=30, path=tmp_path, recognized_only=False)) == 30


def test_a_truncated_file_loses_one_drawing(told, tmp_path) -> None:
    (tmp_path / "cat.ndjson").write_bytes(records(20)[:-40])
    assert size(load(told, path=tmp_path)) == 19
    assert "left out 1 of 20 drawings; the first: cat.ndjson, line 20: not JSON" in told.messages[1]


def test_records_that_are_no_drawing_are_counted(told, tmp_path) -> None:
    bad = [b"\n", b"nonsense\n", record(drawing=[[[1], [1]]]), record(drawing=[[[], []]])]
    (tmp_path / "cat.ndjson").write_bytes(records(20) + b"".join(bad))
    assert size(load(told, path=tmp_path)) == 20
    assert "left out 3 of 23 drawings" in told.messages[1]


def test_only_what_is_needed_is_downloaded(told, web, monkeypatch) -> None:
    monkeypatch.setattr(quickdraw, "URL", web.url)
    web.files["/simplified/The Eiffel Tower.ndjson"] = records(100) * 4000  # 50 MB
    settings = {"categories": ("The Eiffel Tower",), "sketches": 200}
    first = load(told, **settings)
    assert size(first) == 200
    assert len(web.files["/simplified/The Eiffel Tower.ndjson"]) > 45_000_000
    # The two ends' socket buffers fill up before the server notices.
    assert web.sent < 15_000_000
    assert load(told, **settings).fingerprint == first.fingerprint
    assert len(web.requests) == 1


def test_raw_files_have_their_own_address(told, web, monkeypatch) -> None:
    monkeypatch.setattr(quickdraw, "URL", web.url)
    web.files["/raw/cat.ndjson"] = records(20)
    assert size(load(told, format="raw")) == 20


def test_a_download_that_breaks_off_is_an_error_and_not_kept(told, web, monkeypatch) -> None:
    monkeypatch.setattr(quickdraw, "URL", web.url)
    web.files["/simplified/cat.ndjson"] = records(20)
    web.cut_off_at = 500
    with pytest.raises(DataError, match="could not be read"):
        load(told)
    web.cut_off_at = None
    assert size(load(told)) == 20


def test_a_page_in_place_of_a_file_is_an_error_and_not_kept(told, web, monkeypatch) -> None:
    monkeypatch.setattr(quickdraw, "URL", web.url)
    web.files["/simplified/cat.ndjson"] = b"<html>\nplease log in\n</html>\n"
    with pytest.raises(DataError, match="is no file of drawings: not JSON"):
        load(told)
    web.files["/simplified/cat.ndjson"] = records(20)
    assert size(load(told)) == 20


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-8-sig"])
def test_encodings_of_json(told, tmp_path, encoding) -> None:
    """UTF-16 has bytes of line feeds in other characters, such as U+0A00 to U+0AFF."""
    lines = [record(n).decode().replace("cat", "\u0a0a\u010a cat") for n in range(20)]
    (tmp_path / "cat.ndjson").write_bytes("".join(lines).encode(encoding))
    assert size(load(told, path=tmp_path)) == 20
    assert told.messages == ["quickdraw: 'cat' has 20 drawings, of 10,000"]


def test_a_file_in_utf16_that_is_cut_off_loses_one_drawing(told, tmp_path) -> None:
    (tmp_path / "cat.ndjson").write_bytes(records(20).decode().encode("utf-16")[:-41])
    assert size(load(told, path=tmp_path)) == 19


def test_marks_and_separators_within_lines(told, tmp_path) -> None:
    lines = [record(n) for n in range(6)]
    lines[0] = b"\xef\xbb\xbf" + lines[0]
    lines[1] = lines[1].replace(b"cat", "a\u2028b".encode())
    lines[2] = lines[2].replace(b", ", ", \u2028".encode(), 1)
    lines[3] = lines[3].rstrip() + "\u2029\x85\r\n".encode()
    lines[4] = b"\xef\xbb\xbf" + lines[4]  # of a file that was put behind another
    (tmp_path / "cat.ndjson").write_bytes(b"".join(lines))
    assert size(load(told, path=tmp_path)) == 6
    assert len(told.messages) == 1


@pytest.mark.parametrize(
    ("value", "recognized"),
    [
        ("False", False),
        ("false", False),
        ("no", False),
        ("", False),
        ("0", False),
        (0, False),
        (None, False),
        ("True", True),
        (" TRUE ", True),
        ("1", True),
        (1, True),
    ],
)
def test_words_for_true_and_false(told, tmp_path, value, recognized) -> None:
    lines = [record(n, recognized=value if n >= 5 else True) for n in range(9)]
    (tmp_path / "cat.ndjson").write_bytes(b"".join(lines))
    assert size(load(told, path=tmp_path)) == (9 if recognized else 5)


def test_more_than_fits_is_an_error(told, tmp_path, monkeypatch) -> None:
    for name in "cat", "bus":
        (tmp_path / f"{name}.ndjson").write_bytes(records(100))
    size_of_one = len(records(100)) / 1e6
    with pytest.raises(DataError, match=r"cat\.ndjson, line 100, .* 'max_megabytes'"):
        load(told, path=tmp_path, max_megabytes=size_of_one * 0.995)
    with pytest.raises(DataError, match=r"bus\.ndjson, line .* 'max_megabytes'"):
        load(told, categories=("cat", "bus"), path=tmp_path, max_megabytes=size_of_one * 1.5)
    assert size(load(told, path=tmp_path, max_megabytes=size_of_one * 1.1)) == 100
    monkeypatch.setattr(quickdraw, "LONGEST", 1000)
    (tmp_path / "cat.ndjson").write_bytes(records(3) + b"x" * 1001)
    with pytest.raises(DataError, match="a line of more than 1,000 characters"):
        load(told, path=tmp_path)


@pytest.mark.timeout(60)
def test_a_pipe_or_a_device_is_an_error(told, tmp_path) -> None:
    os.mkfifo(tmp_path / "cat.ndjson")
    (tmp_path / "bus.ndjson").symlink_to("/dev/zero")
    for name, kind in {"cat": "a pipe", "bus": "a device"}.items():
        with pytest.raises(DataError, match=f"cannot be read \\({kind}, no regular file\\)"):
            load(told, categories=(name,), path=tmp_path)


def test_an_empty_file_is_an_error(told, tmp_path) -> None:
    (tmp_path / "cat.ndjson").touch()
    with pytest.raises(DataError, match=r"cat has 0 drawing\(s\); two are needed"):
        load(told, path=tmp_path)


def test_an_unknown_category_is_an_error(told, web, monkeypatch) -> None:
    monkeypatch.setattr(quickdraw, "URL", web.url)
    with pytest.raises(DataError, match=r"404.*categories are those of the game"):
        load(told, categories=("unicorn",))


def test_a_missing_file_is_an_error(told, tmp_path) -> None:
    with pytest.raises(DataError, match=r"category 'cat' .* cannot be read .* setting 'path'"):
        load(told, path=tmp_path)


def test_whether_it_is_there(told, web, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(quickdraw, "URL", web.url)
    web.files["/simplified/cat.ndjson"] = records(20)

    def available(**settings):
        return QuickDraw(QuickDraw.Settings(**settings)).availability(told.workspace)

    load(told, sketches=9)
    assert available(categories=("cat",), sketches=9) == READY
    assert available(categories=("cat", "bus", "fish"), sketches=9) == Availability(
        "download", f"the first 9 drawings of each of bus, fish, streamed from {web.url}/simplified"
    )
    (tmp_path / "cat.ndjson").touch()
    assert available(categories=("cat",), path=tmp_path) == READY
    missing = available(categories=("cat", "bus"), path=tmp_path)
    assert missing.state == "missing"
    assert missing.detail.startswith("the category 'bus' of the dataset 'quickdraw' cannot be read")
    assert len(web.requests) == 1


def test_a_category_is_given_once() -> None:
    with pytest.raises(ValidationError, match="'cat' is given twice; once would be right"):
        QuickDraw.Settings(categories=("cat", "bus", "cat"))


@pytest.mark.parametrize("category", ["", "../cat", "cat/../../x", "cat\0", "a.b", "http://x"])
def test_a_category_is_a_name_and_no_path(category) -> None:
    with pytest.raises(ValidationError):
        QuickDraw.Settings(categories=(category,))


@pytest.mark.parametrize(("name", "count"), [("simplified", 3), ("raw", 1)])
def test_real_records(name, count) -> None:
    if "DSTBENCH_DATA" not in os.environ:
        pytest.skip("DSTBENCH_DATA is not set")
    file = Path(os.environ["DSTBENCH_DATA"], "quickdraw", f"{name}-sample.ndjson")
    lines = file.read_bytes().splitlines()
    assert len(lines) == count
    for line in lines:
        assert 20 < len(to_item(read_record(line))) <= 300
