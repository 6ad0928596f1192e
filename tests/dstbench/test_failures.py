"""What is caught of a plugin's failure, and what is not."""

import pytest

from dstbench.errors import DataError, DstbenchError
from dstbench.failures import contained


@pytest.mark.parametrize("error", [ZeroDivisionError("no"), SystemExit("no"), DataError("no")])
def test_a_failure_is_told_with_its_traceback(error: BaseException) -> None:
    told: list[str] = []
    with contained(told.append):
        raise error
    (text,) = told
    assert text.startswith("Traceback (most recent call last):")
    assert text.endswith(": no\n")


def test_what_works_tells_nothing() -> None:
    told: list[str] = []
    with contained(told.append):
        pass
    assert told == []


@pytest.mark.parametrize("error", [KeyboardInterrupt(), DataError("no")])
def test_ctrl_c_and_what_is_excepted_go_on(error: BaseException) -> None:
    told: list[str] = []
    with pytest.raises(type(error)), contained(told.append, but=(DstbenchError,)):
        raise error
    assert told == []
