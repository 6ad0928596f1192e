"""The kernels of this machine; without a compiler there are none to test."""

import pytest

from dstbench.kernels.library import NoKernelsError, load


@pytest.fixture(autouse=True)
def _kernels() -> None:
    try:
        load()
    except NoKernelsError as error:
        pytest.skip(str(error))
