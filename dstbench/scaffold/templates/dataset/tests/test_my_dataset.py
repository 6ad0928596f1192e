import pytest
from dstbench.testing import Check, checks

from dstbench_my_dataset import MyDataset


@pytest.mark.parametrize("check", checks(MyDataset), ids=str)
def test_keeps_its_promises(check: Check) -> None:
    check()
