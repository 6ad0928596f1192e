import pytest
from dstbench.testing import Check, checks

from dstbench_my_extractor import MyExtractor


@pytest.mark.parametrize("check", checks(MyExtractor), ids=str)
def test_keeps_its_promises(check: Check) -> None:
    check()
