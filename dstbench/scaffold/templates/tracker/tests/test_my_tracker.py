import pytest
from dstbench.testing import Check, checks

from dstbench_my_tracker import MyTracker


@pytest.mark.parametrize("check", checks(MyTracker), ids=str)
def test_keeps_its_promises(check: Check) -> None:
    check()
