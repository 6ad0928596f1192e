"""What is caught of a plugin's failure, and what is not."""

import time
from threading import current_thread

import pytest

from dstbench.errors import DataError, DstbenchError
from dstbench.plugins.isolation import Aside, call_with_timeout, isolate


@pytest.mark.parametrize("error", [ZeroDivisionError("no"), SystemExit("no"), DataError("no")])
def test_a_failure_is_told_with_its_traceback(error: BaseException) -> None:
    told: list[str] = []
    with isolate(told.append):
        raise error
    (text,) = told
    assert text.startswith("Traceback (most recent call last):")
    assert text.endswith(": no\n")


def test_what_works_tells_nothing() -> None:
    told: list[str] = []
    with isolate(told.append):
        pass
    assert told == []


@pytest.mark.parametrize("error", [KeyboardInterrupt(), DataError("no")])
def test_ctrl_c_and_what_is_excepted_go_on(error: BaseException) -> None:
    told: list[str] = []
    with pytest.raises(type(error)), isolate(told.append, but=(DstbenchError,)):
        raise error
    assert told == []


def test_who_is_in_time_is_not_disturbed() -> None:
    threads = []
    for minutes in (None, 1):
        call_with_timeout(minutes, lambda: threads.append(current_thread()))
    assert threads[0] is current_thread() is not threads[1]


@pytest.mark.parametrize("error", [DataError("no"), SystemExit("no"), TimeoutError("no")])
def test_what_is_raised_in_time_is_raised(error: BaseException) -> None:
    def fail() -> None:
        raise error

    with pytest.raises(type(error), match=r"^no$"):
        call_with_timeout(1, fail)


def test_what_hangs_is_left_behind() -> None:
    with pytest.raises(TimeoutError, match=r"^not done within 0\.001 minutes, the benchmark's"):
        call_with_timeout(0.001, lambda: time.sleep(5))


def test_calls_aside_come_from_one_thread() -> None:
    aside = Aside()
    threads = {aside.call(1, current_thread) for _ in range(3)}
    assert len(threads) == 1
    (thread,) = threads
    assert thread is not current_thread()
    aside.close()
    thread.join(5)
    assert not thread.is_alive()


def test_what_a_call_aside_gives_or_raises() -> None:
    aside = Aside()
    assert aside.call(1, divmod, 7, 2) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        aside.call(1, divmod, 7, 0)
    with pytest.raises(TimeoutError):
        aside.call(0.01, time.sleep, 0.5)
    assert aside.call(5, len, "it goes on") == 10
    aside.close()
