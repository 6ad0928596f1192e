"""The mark of tests that need sparse kernels, which a machine without a compiler has not."""

import pytest

from dstbench.kernels.library import NoKernelsError, load


def _reason() -> str | None:
    try:
        load()
    except NoKernelsError as error:
        return str(error)
    return None


REASON = _reason()

with_kernels = pytest.mark.skipif(REASON is not None, reason=REASON or "there are kernels")
