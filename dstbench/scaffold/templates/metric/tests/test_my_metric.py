import pytest
from dstbench.testing import Check, checks

from dstbench_my_metric import MyMetric


@pytest.mark.parametrize("check", checks(MyMetric), ids=str)
def test_keeps_its_promises(check: Check) -> None:
    check()
