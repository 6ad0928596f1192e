"""What a run tells, in a file."""

import logging
import re
from pathlib import Path

import pytest

from dstbench.errors import ConfigError
from dstbench.execution import log_file

TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00"


def test_every_line_has_the_time_and_what_was_there_stays(tmp_path: Path) -> None:
    path = tmp_path / "run.log"
    path.write_text("before\n")
    log_file.begin(path)
    log_file.add(path, "one\ntwo")
    assert re.fullmatch(rf"before\n{TIME} one\n{TIME} two\n", path.read_text())


def test_who_does_not_see_the_file_makes_none(tmp_path: Path) -> None:
    log_file.add(tmp_path / "run.log", "one")
    assert not any(tmp_path.iterdir())


def test_what_cannot_be_written_to_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is no file that could be written to"):
        log_file.begin(tmp_path)
    with pytest.raises(ConfigError, match="cannot be written to: No such file or directory"):
        log_file.begin(tmp_path / "away" / "run.log")
    with pytest.raises(ConfigError, match="cannot be written to: File name too long"):
        log_file.begin(tmp_path / ("x" * 300))


def test_what_a_worker_reports_and_is_warned_of(tmp_path: Path) -> None:
    path, told, logger = tmp_path / "run.log", [], logging.getLogger("dstbench")
    log_file.begin(path)
    before = list(logger.handlers)
    try:
        report = log_file.report_into(path, told.append)
        report("stopped after step 7")
        logger.warning("no update for %d steps", 3)
    finally:
        logger.handlers = before
    assert told == ["stopped after step 7", "no update for 3 steps"]
    lines = [line.split(" ", 1)[1] for line in path.read_text().splitlines()]
    assert lines == told
