import pytest
from dstbench.testing import Check, checks

from dstbench_my_feature_extractor import MyFeatureExtractor


@pytest.mark.parametrize("check", checks(MyFeatureExtractor), ids=str)
def test_keeps_its_promises(check: Check) -> None:
    check()
