"""Every check of sparsifiers passes right ones, and catches a wrong one."""

from typing import Any

import pytest
from wrong_sparsifiers import ByFirstGradient, Growing, GrowingByGradient, Uneven, all_wrong

from dstbench.sparsity import Sparsifier
from dstbench.testing import Check, CheckFailed, checks

STARTS_A_PROCESS = "training-survives-a-new-process"
NAMES = [
    pytest.param(str(check), marks=pytest.mark.slow if str(check) == STARTS_A_PROCESS else ())
    for check in checks(Growing)
]
WRONG = [
    pytest.param(cls, marks=pytest.mark.slow if cls.caught_by == STARTS_A_PROCESS else ())
    for cls in all_wrong()
]
RIGHT: list[Any] = [Growing, GrowingByGradient, ByFirstGradient, Uneven]


def the_check(name: str, cls: type[Any]) -> Check:
    (check,) = [check for check in checks(cls) if str(check) == name]
    return check


@pytest.mark.parametrize("cls", WRONG, ids=lambda cls: f"{cls.__name__}-{cls.caught_by}")
def test_a_wrong_sparsifier_is_caught(cls: type[Any]) -> None:
    check = the_check(cls.caught_by, cls)
    with pytest.raises(CheckFailed) as caught:
        check()
    report = str(caught.value)
    assert f"Promised: {check.promise}" in report
    assert cls.happens in caught.value.happened
    assert cls.__name__ in caught.value.reproduce


def test_each_check_catches_a_wrong_sparsifier() -> None:
    assert {cls.caught_by for cls in all_wrong()} == {str(check) for check in checks(Growing)}


@pytest.mark.parametrize("cls", RIGHT)
@pytest.mark.parametrize("name", NAMES)
def test_a_right_sparsifier_passes(name: str, cls: type[Sparsifier]) -> None:
    the_check(name, cls)()
