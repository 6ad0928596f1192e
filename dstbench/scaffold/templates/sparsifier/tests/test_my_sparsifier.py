import pytest
from dstbench.testing import Check, checks

from dstbench_my_sparsifier import MySparsifier


@pytest.mark.parametrize("check", checks(MySparsifier), ids=str)
def test_keeps_its_promises(check: Check) -> None:
    check()
