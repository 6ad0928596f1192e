import pytest
from dstbench.testing import Check, checks

from dstbench_my_model import MyModel


@pytest.mark.parametrize("check", checks(MyModel), ids=str)
def test_keeps_its_promises(check: Check) -> None:
    check()
