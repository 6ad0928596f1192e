"""One function over many items."""

import os

import pytest

from dstbench.parallel import parallel_map


@pytest.mark.parametrize("in_processes", [False, True])
def test_results_are_in_the_order_of_the_items(in_processes: bool) -> None:
    assert list(parallel_map(abs, range(-3, 3), in_processes=in_processes)) == [3, 2, 1, 0, 1, 2]


def test_processes_are_others_where_they_are_asked_for() -> None:
    def process(_: int) -> int:
        return os.getpid()

    assert set(parallel_map(process, range(3), in_processes=False)) == {os.getpid()}
    assert os.getpid() not in set(parallel_map(process, range(3), in_processes=True))
