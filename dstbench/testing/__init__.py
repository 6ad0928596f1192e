"""The conformance suite: whether a plugin keeps the promises of its kind.

On the command line it is ``dstbench check NAME``; in the tests of a plugin it is

>>> import pytest
>>> from dstbench.sparsity import Sparsifier as MySparsifier
>>> from dstbench.testing import checks
>>> @pytest.mark.parametrize("check", checks(MySparsifier), ids=str)
... def test_keeps_its_promises(check):
...     check()
"""

from dstbench.testing.checking import Check, CheckFailed
from dstbench.testing.suite import checks

__all__ = ["Check", "CheckFailed", "checks"]
