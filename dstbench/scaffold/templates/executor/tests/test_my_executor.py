import pytest
from dstbench.testing import Check, checks

from dstbench_my_executor import MyExecutor


@pytest.mark.parametrize("check", checks(MyExecutor), ids=str)
def test_keeps_its_promises(check: Check) -> None:
    check()
