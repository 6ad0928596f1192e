"""The narrower dense network of as many parameters as a sparse one has active."""

import pytest
from toys import ToyModel, ToyWidths

from dstbench.contracts import Items
from dstbench.counting.narrowing import narrowed
from dstbench.errors import PluginError

ITEMS = Items((1, 4, 4))


def parameters(width: int) -> int:
    """The toy's: three convolutions of 3×3, and their biases."""
    return 9 * width * (width + 2) + 2 * width + 1


@pytest.mark.parametrize("sparsity", [0, 0.1, 0.5, 0.75, 0.9, 0.99])
def test_the_nearest_width(sparsity: float) -> None:
    settings = ToyWidths.Settings(width=40)
    found = narrowed(ToyWidths, settings, ITEMS, sparsity)
    sparsifiable = 9 * 40 * 42
    wanted = parameters(40) - sparsifiable + round((1 - sparsity) * sparsifiable)
    nearest = min(range(1, 41), key=lambda width: abs(parameters(width) - wanted))
    assert found == settings.model_copy(update={"width": nearest})


def test_a_model_of_one_width() -> None:
    class Rigid(ToyWidths):
        narrower = ToyModel.narrower  # type: ignore[assignment]

    with pytest.raises(PluginError, match=r"model 'toy-widths' has none .*Model\.narrower"):
        narrowed(Rigid, Rigid.Settings(), ITEMS, 0.5)


def test_a_model_that_needs_data_to_tell_its_denoiser() -> None:
    with pytest.raises(PluginError, match=r"model 'toy-net' does not tell its denoiser"):
        narrowed(ToyModel, ToyModel.Settings(), ITEMS, 0.5)
